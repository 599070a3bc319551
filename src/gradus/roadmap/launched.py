"""A walk on processes that a launcher has started, on one machine or several: rank 0 walks, the others follow.

torchrun, or anything that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, starts the same command
everywhere. The processes talk through the launcher's key-value store. Rank 0 tells which stage comes; the others ask
for that again and again, without end, while it does alone what is not parallel. A parallel stage then meets at a port
of its own, as where one machine starts its processes itself (workers.py). All of them need one home, and the store says
when the process at its other end is gone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gradus.core.errors import ConfigError, TrainingError
from gradus.core.home import ARTIFACTS, DRY_HOME
from gradus.roadmap.layers import read_layers
from gradus.roadmap.place import Place
from gradus.roadmap.schema import Roadmap
from gradus.roadmap.stage import Stage
from gradus.roadmap.workers import free_port, stage_task, work

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_ASK_SECONDS = 0.2
# How long another process may take to see a new file in the home, to load or end a stage, and to hear that all is over.
_SEEN_SECONDS = 60.0
_ANSWER_SECONDS = 60.0  # of a process that has seen the home, or gives it up
_READY_SECONDS = 900.0
_END_SECONDS = 60.0


def is_launched() -> bool:
    """Whether a launcher has started several processes of this command. Errors: ConfigError for no number of them."""
    written = os.environ.get("WORLD_SIZE", "1")
    if not written.isdecimal():
        raise ConfigError(
            f"the environment variable WORLD_SIZE is {written!r}, expected the number of processes that a launcher "
            "started; unset it where none did"
        )
    return int(written) > 1


def launched_overrides(file: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides with `[machine]` processes as the launcher started them. Errors: ConfigError for another number."""
    size = int(os.environ["WORLD_SIZE"])
    machine = read_layers(file, overrides).top.get("machine", {})
    if not isinstance(machine, dict):
        return list(overrides)  # an override would hide what is told with the file's other problems
    written = machine.get("processes", size)
    if written != size:
        raise ConfigError(
            f"{file}: [machine] processes = {written}, and the launcher started {size}; leave processes out, or start "
            "as many"
        )
    return [*overrides, f"machine.processes={size}"]


@dataclass(frozen=True)
class Meeting:
    """The launcher's processes: this one's rank among `size`, and what they tell each other through.

    store: a torch.distributed.Store. variables: what the launcher set.
    """

    rank: int
    size: int
    store: Any
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def tell(self, key: str, value: str) -> None:
        """Leave a value for the others."""
        with _while_connected():
            self.store.set(f"gradus/{key}", value)

    def ask(self, key: str, patience_seconds: float | None = None) -> str | None:
        """Wait for a value; None where it does not come in time. Errors: TrainingError where the store is gone."""
        began = time.monotonic()
        with _while_connected():
            while not self.store.check([f"gradus/{key}"]):
                if patience_seconds is not None and time.monotonic() - began > patience_seconds:
                    return None
                time.sleep(_ASK_SECONDS)
            return str(self.store.get(f"gradus/{key}").decode())

    def trouble(self) -> str:
        """What the first process that failed left as its last words, '' where all are well."""
        for rank in range(1, self.size):
            if words := self.ask(f"failed/{rank}", 0.0):
                return f"process {rank} failed: {words}"
        return ""

    def gather(self, key: str, patience_seconds: float) -> None:
        """Rank 0 waits until every other process has told `key/RANK`. Errors: TrainingError, with a reason."""
        began = time.monotonic()
        for rank in range(1, self.size):
            while self.ask(f"{key}/{rank}", _ASK_SECONDS) is None:
                if words := self.trouble():
                    raise TrainingError(words)
                if time.monotonic() - began > patience_seconds:
                    raise TrainingError(
                        f"process {rank} of {self.size} was not heard of for {patience_seconds:.0f} seconds; start the "
                        "command on every machine again"
                    )


@contextmanager
def _while_connected() -> Iterator[None]:
    import torch.distributed as dist

    try:
        yield
    except dist.DistError as error:
        raise TrainingError(
            f"the other processes cannot be reached any more ({str(error).splitlines()[0]}); what was saved is kept, "
            "the same command on every machine resumes it"
        ) from None


def join_meeting(home: Path) -> Meeting:
    """Meet the launcher's other processes, and make sure that all of them see one home.

    Errors: ConfigError for what the launcher did not set, or for homes that are not one.
    """
    from torch.distributed.rendezvous import rendezvous

    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise ConfigError(
            f"the launcher set WORLD_SIZE and not {', '.join(missing)}; start with torchrun, or set "
            f"{', '.join(VARIABLES)} on every process"
        )
    with _while_connected():
        store, rank, size = next(iter(rendezvous("env://")))
    # Only where all processes take part is this one of several: a stage that one does alone must not wait for others.
    meeting = Meeting(rank, size, store, {name: os.environ.pop(name) for name in VARIABLES})
    _agree_on_home(meeting, home)
    return meeting


def _agree_on_home(meeting: Meeting, home: Path) -> None:
    if meeting.is_main:
        mark = home / f".meeting-{secrets.token_hex(8)}"
        try:
            home.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise ConfigError(f"{home}: {error.strerror}; choose another folder with --home") from None
        try:
            meeting.tell("home", json.dumps([mark.name, str(home.resolve()), socket.gethostname()]))
            meeting.gather("home", _SEEN_SECONDS + _ANSWER_SECONDS)
        finally:
            mark.unlink()
        return
    name, theirs, host = json.loads(meeting.ask("home") or "")
    began = time.monotonic()
    while not (home / name).exists():
        if time.monotonic() - began > _SEEN_SECONDS:
            other_home = ConfigError(
                f"{home.resolve()} on {socket.gethostname()} is not the folder {theirs} of process 0 on {host}: all "
                "machines write one home; mount one folder on all of them and name it with --home"
            )
            meeting.tell(f"failed/{meeting.rank}", str(other_home))
            raise other_home
        if home.is_dir():
            list(home.iterdir())  # asks a network file system again
        time.sleep(_ASK_SECONDS)
    meeting.tell(f"home/{meeting.rank}", "seen")


@contextmanager
def leading(meeting: Meeting) -> Iterator[None]:
    """Rank 0 walks inside; the others are let go at the end, however it ends."""
    try:
        yield
    finally:
        with suppress(TrainingError):  # they are gone already, which whoever asked them has said
            meeting.tell(f"task/{_next_task(meeting)}", json.dumps(None))
            # The store may be this process's own: the others read that it is over first.
            meeting.gather("left", _END_SECONDS)


def _next_task(meeting: Meeting) -> int:
    with _while_connected():
        return int(meeting.store.add("gradus/tasks", 1))


@contextmanager
def other_processes(meeting: Meeting, roadmap: Roadmap, stage: Stage, place: Place) -> Iterator[None]:
    """Run a stage on all processes while the block runs it on rank 0.

    Errors: TrainingError with the last words of a process that fails.
    """
    task = stage_task(roadmap, stage, place) | {"port": str(free_port())}
    number = _next_task(meeting)
    meeting.tell(f"task/{number}", json.dumps(task))
    try:
        with _meeting_at(meeting, task["port"]):
            meeting.gather(f"ready/{number}", _READY_SECONDS)
            yield
        meeting.gather(f"done/{number}", _READY_SECONDS)
    except RuntimeError as error:
        # Rank 0 often only hears that the connection broke; the other process knows why.
        time.sleep(2 * _ASK_SECONDS)
        raise TrainingError(meeting.trouble() or str(error)) from error


def follow_walk(meeting: Meeting, file: Path, home: Path) -> None:
    """Be one of the other processes: run the stages that rank 0 tells until it says that the walk is over."""
    number = 0
    while True:
        number += 1
        task: dict[str, Any] | None = json.loads(meeting.ask(f"task/{number}") or "null")
        if task is None:
            meeting.tell(f"left/{meeting.rank}", "")
            return
        try:
            with _meeting_at(meeting, task["port"]):
                ready = partial(meeting.tell, f"ready/{number}/{meeting.rank}", "")
                work(_here(task, file, home), ready)
        except BaseException as error:
            words = (str(error).strip() or repr(error)).splitlines()[-1]
            with suppress(TrainingError):  # where the store is gone, there is nobody to be told
                meeting.tell(f"failed/{meeting.rank}", f"{socket.gethostname()}: {words}")
            if isinstance(error, RuntimeError):
                raise TrainingError(f"process {meeting.rank} on {socket.gethostname()}: {words}") from error
            raise
        meeting.tell(f"done/{number}/{meeting.rank}", "")


def _here(task: Mapping[str, Any], file: Path, home: Path) -> dict[str, Any]:
    """The task with this machine's paths, which may be others than rank 0's."""
    theirs = Path(task["home"]).name
    home = home / theirs if theirs.startswith(DRY_HOME) else home
    work_folder = home / ARTIFACTS / Path(task["work"]).name
    return dict(task) | {"path": str(file), "home": str(home), "work": str(work_folder)}


@contextmanager
def _meeting_at(meeting: Meeting, port: str) -> Iterator[None]:
    """Let torch meet at another port than the launcher's, whose store already holds names of earlier meetings."""
    changed = {**meeting.variables, "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "False"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
