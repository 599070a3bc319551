"""`gradus push`: a process of its own that sends a home to a place while training goes on.

It looks at the home, keeps checkpoints that are due from being deleted, and sends parcel by parcel (parcels.py),
each whole and read back, its record last. A place that fails is tried again, ever more slowly; a kill costs at most
the file that was on its way. Nothing here imports torch.

runs/<roadmap>/push.json   what this process is doing: sent, waiting, and what is wrong
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from gradus.core.artifact import LARGE_BYTES, FileEntry
from gradus.core.errors import ArtifactError, GradusError
from gradus.core.files import is_disk_full, write_atomic
from gradus.core.fingerprint import digest
from gradus.core.home import ARTIFACTS, CHECKPOINTS_FOLDER, PROTECTED_FILE, RUNS, WORK_SUFFIX
from gradus.core.lock import exclusive_lock
from gradus.core.quantity import format_bytes
from gradus.core.secrets import redacted
from gradus.data.transfer import Patience, UnreachableError
from gradus.release.parcels import (
    MOST_PINNED,
    PINS,
    Parcel,
    artifact_parcel,
    checkpoint_steps,
    drop_pin,
    pin_checkpoint,
    pinned_parcels,
    pins_of,
    protected_steps,
    run_artifacts,
    run_parcel,
    step_folder,
    sweep_pins,
)
from gradus.release.place import (
    RECORDS,
    PlaceError,
    PlaceUnreachableError,
    RemotePlace,
    open_place,
    read_record,
    record_path,
    record_paths,
    recorded_step,
)

STATUS = "push.json"
LOOK_EVERY_SECONDS = 0.5
# A commit of the Hub for each line of the ledger would be too many.
RECORDS_EVERY_SECONDS = 60.0


@dataclass
class PushState:
    """What a push has done and what is left; written to push.json whenever it changes."""

    place: str
    process: int = field(default_factory=os.getpid)
    sent: int = 0
    sent_bytes: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    ended: bool = False


class Push:
    """One push of one roadmap's home to one place. every: steps between checkpoints that are sent.

    say: told a line for each thing that happens.
    """

    def __init__(self, home: Path, roadmap: str, place: RemotePlace, every: int, say: Callable[[str], None]) -> None:
        self._home, self._roadmap, self._place, self._every, self._say = home, roadmap, place, every, say
        self._known: dict[str, str] = {}  # digest: a path of the place that has it
        self._there: set[str] = set()  # parcels
        self._pinned: dict[str, int] = {}  # artifact: its newest step that was kept
        self._records: dict[str, FileEntry] = {}
        self._records_sent = 0.0
        self._pinning = threading.Lock()
        self.state = PushState(place.address)

    def run(self, stop: threading.Event, follow: bool) -> bool:
        """Send until everything is there; with follow until `stop` is set, and then what is left.

        True where everything is there at the end. Another push to this place is waited for with follow, since it may
        be that of a walk that was killed and began again. Errors: GradusError where it is not.
        """
        folder, mine = self._home / ARTIFACTS / PINS, digest([self._place.address, self._roadmap])[:16]
        refusal = f"another push of this home to {self._place.address} is going on (process {{pid}})"
        lock = exclusive_lock(folder / f"{mine}.lock", refusal, self._say if follow else None)
        with lock, _empty_folder(folder / f"{mine}.sending") as work:
            self._write_state()
            for name in self._artifacts():
                sweep_pins(self._home, name)
            pinner = threading.Thread(target=self._keep_pinning, args=(stop,), daemon=True)
            if follow:
                pinner.start()
            try:
                self._run(work, stop, follow)
            except GradusError as error:
                parcels = self._parcels(work, everything=True)
                self.state.waiting = {p.name: p.num_bytes for p in parcels if p.name not in self._there}
                self.state.problem = redacted(str(error))
                raise
            finally:
                self.state.ended = True
                self._write_state()
        return not self.state.waiting and not self.state.refused

    def _run(self, work: Path, stop: threading.Event, follow: bool) -> None:
        last = looked = False
        patience = Patience("push", float("inf"), stop.wait)
        while True:
            # Asked before looking, so that what came before the end is seen.
            if not last and (not follow or stop.is_set()):
                last, patience = True, Patience("push")
            try:
                if not looked:
                    self._look_at_place()
                    looked = True
                self._pin_due(everything=last)
                left = self._send_round(work, patience, everything=last)
            except (PlaceError, PlaceUnreachableError) as problem:
                self._tell_problem(str(problem))
                if last and isinstance(problem, PlaceError):
                    raise
                # While training goes on, its user may make the bucket or ask for access.
                try:
                    patience.failed(str(problem))
                except UnreachableError as error:
                    self._tell_problem(str(error))
                    return
                continue
            if last and not left:
                return
            if not left:
                stop.wait(LOOK_EVERY_SECONDS)

    # The place

    def _look_at_place(self) -> None:
        """What is there already, by its records; an artifact of which a file is missing counts as not there."""
        mine = record_path(f"{RUNS}/{self._roadmap}")
        if mine in record_paths(self._place, RUNS):
            self._records = self._recorded(mine)
        artifacts, sizes = self._artifacts(), self._place.listing(ARTIFACTS)
        for path in record_paths(self._place, ARTIFACTS):
            name = path.removeprefix(f"{RECORDS}/").removesuffix(".json")
            folder = name.split("/")[1].removesuffix(WORK_SUFFIX)
            if folder not in artifacts:
                continue
            if name.count("/") > 1:
                self._there.add(name)
                self._pinned[folder] = max(recorded_step(self._place, path), self._pinned.get(folder, 0))
                continue
            files = self._recorded(path)
            if files and all(sizes.get(file) == entry.bytes for file, entry in files.items()):
                self._there.add(name)
                self._known |= {entry.sha256: file for file, entry in files.items()}

    def _recorded(self, path: str) -> dict[str, FileEntry]:
        """The files of a record; {} where it is damaged, which sending the parcel again mends."""
        try:
            return read_record(self._place, path).files
        except PlaceError as problem:
            self._say(f"{redacted(str(problem))}: sending it again")
            return {}

    # The home

    def _artifacts(self) -> list[str]:
        return list(dict.fromkeys(run_artifacts(self._home, self._roadmap)))

    def _keep_pinning(self, stop: threading.Event) -> None:
        """Keep checkpoints that are due while something large is being sent."""
        while not stop.wait(LOOK_EVERY_SECONDS):
            try:
                self._pin_due(everything=False)
            except (OSError, GradusError) as error:
                self._tell_problem(f"a checkpoint could not be kept for sending: {error}")

    def _pin_due(self, everything: bool) -> None:
        """Keep each new checkpoint that crosses a multiple of `every`; with everything, the newest in any case.

        Those that are protected as well, but only while few wait: they are not deleted here.
        """
        with self._pinning:
            protected = protected_steps(self._home, self._roadmap)
            for name in self._artifacts():
                folder = self._home / ARTIFACTS / f"{name}{WORK_SUFFIX}" / CHECKPOINTS_FOLDER
                steps = checkpoint_steps(folder)
                newest = max([self._pinned.get(name, 0), *checkpoint_steps(pins_of(self._home, name))])
                for step in steps:
                    due = step // self._every > newest // self._every or (everything and step == steps[-1])
                    if step > newest and due and pin_checkpoint(self._home, name, step) is not None:
                        newest = step
                self._pinned[name] = newest
                waiting = checkpoint_steps(pins_of(self._home, name))
                for step in steps:
                    stays = step in protected[name] or (step_folder(folder, step) / PROTECTED_FILE).exists()
                    is_there = f"{ARTIFACTS}/{name}{WORK_SUFFIX}/{step_folder(folder, step).name}" in self._there
                    if stays and not is_there and step not in waiting and len(waiting) < MOST_PINNED:
                        pin_checkpoint(self._home, name, step)
                        waiting.append(step)

    def _parcels(self, work: Path, everything: bool) -> list[Parcel]:
        """What is not there yet, in the order of the roadmap; the run's records last."""
        found = []
        for name in self._artifacts():
            found += list(pinned_parcels(self._home, name))
            if f"{ARTIFACTS}/{name}" not in self._there:
                with suppress(FileNotFoundError):  # the user deletes it meanwhile
                    parcel = artifact_parcel(self._home, name)
                    found += [parcel] if parcel is not None else []
        if everything or time.monotonic() - self._records_sent >= RECORDS_EVERY_SECONDS:
            records = run_parcel(self._home, self._roadmap, work)
            if records.entries != self._records:
                found.append(records)
        return found

    # Sending

    def _send_round(self, work: Path, patience: Patience, everything: bool) -> bool:
        """Send what is waiting now; whether there was anything."""
        parcels = self._parcels(work, everything)
        self.state.waiting = {parcel.name: parcel.num_bytes for parcel in parcels}
        self._write_state()
        sent_any = False
        for parcel in parcels:
            if parcel.name in self.state.refused:
                self.state.waiting.pop(parcel.name)
                continue
            try:
                self._send(parcel, work)
            except FileNotFoundError:
                # An artifact that the user deleted, or a checkpoint that newer ones took the place of.
                self._say(f"{parcel.name} is gone from this machine; passed over")
            except OSError as error:
                if not is_disk_full(error):
                    raise
                raise PlaceUnreachableError(f"{work}: the disk of this machine is full") from error
            except ArtifactError as error:
                self.state.refused[parcel.name] = redacted(str(error))
                self._tell_problem(str(error))
            else:
                sent_any = True
                patience.advanced()
                self.state.problem = ""
            self.state.waiting.pop(parcel.name, None)
            self._write_state()
        return sent_any

    def _send(self, parcel: Parcel, work: Path) -> None:
        went = 0

        def count(size: int) -> None:
            nonlocal went
            went += size

        if parcel.name not in self._there or parcel.name.startswith(f"{RUNS}/"):
            if parcel.num_bytes >= LARGE_BYTES:
                self._say(f"sending {parcel.name} ({format_bytes(parcel.num_bytes)})")
            self._place.send(parcel.outgoing(work, self._known), count)
            self.state.sent += 1
            self.state.sent_bytes += went
            self._say(f"sent {parcel.name} ({format_bytes(parcel.num_bytes)}, {format_bytes(went)} of it new)")
        if parcel.name.startswith(f"{RUNS}/"):
            self._records, self._records_sent = parcel.entries, time.monotonic()
            return
        self._there.add(parcel.name)
        self._known |= {entry.sha256: path for path, entry in parcel.entries.items()}
        if parcel.pin is not None:
            drop_pin(parcel.pin)

    # Telling

    def _tell_problem(self, text: str) -> None:
        text = redacted(text)
        if text != self.state.problem:
            self.state.problem = text
            self._say(f"problem: {text}")
            self._write_state()

    def _write_state(self) -> None:
        try:
            write_status(self._home, self._roadmap, self.state)
        except OSError as error:
            # A full disk of this machine is no reason to stop sending what is on it.
            self._say(f"problem: {STATUS} cannot be written: {error}")


@contextmanager
def _empty_folder(folder: Path) -> Iterator[Path]:
    """A folder for what is made on the way, without what a kill left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_status(home: Path, roadmap: str, state: PushState) -> None:
    """Say in push.json what a push is doing."""
    body = vars(state) | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomic(home / RUNS / roadmap / STATUS, json.dumps(body, indent=1) + "\n")


def read_status(home: Path, roadmap: str) -> dict[str, Any] | None:
    """What push.json says; None where there is none."""
    try:
        status: dict[str, Any] = json.loads((home / RUNS / roadmap / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status


def main(task_text: str) -> int:
    """Be the process beside a walk: push until standard input ends, which it does however the walk ends."""
    task = json.loads(task_text)
    sys.excepthook = _tell_bug
    os.nice(10)  # training comes first
    stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()

    def say(text: str) -> None:
        print(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}", flush=True)  # noqa: T201

    try:
        push = Push(Path(task["home"]), task["roadmap"], open_place(task["to"]), task["every"], say)
        return 0 if push.run(stop, follow=True) else 1
    except GradusError as error:
        problem = redacted(str(error))
        say(f"error: {problem}")
        status = read_status(Path(task["home"]), task["roadmap"])
        if status is None or status["process"] != os.getpid():
            # It ended before it could look at the home.
            write_status(Path(task["home"]), task["roadmap"], PushState(task["to"], problem=problem, ended=True))
        return 1


def _tell_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback for the log, without what may be a key or a signed address."""
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
