"""`gradus pull`: a home made, or brought up to date, from a place, so that a walk goes on at its next step.

What comes: of each roadmap its records, its finished artifacts, and of each unfinished stage the newest checkpoint
that is whole in the place. A parcel becomes part of the home only when every byte of it is what its record says; a
file that is not is fetched once more, and refused if it comes damaged again. What is in the home already stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gradus.core.artifact import LARGE_BYTES, MANIFEST, FileEntry, open_artifact
from gradus.core.checkpoint_measures import best_step
from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.files import fsync_file, fsync_folder
from gradus.core.home import ARTIFACTS, CHECKPOINTS_FOLDER, LOCK, PROTECTED_FILE, RUN_RECORD, RUNS, WORK_SUFFIX
from gradus.core.lock import exclusive_lock
from gradus.core.quantity import format_bytes
from gradus.data.transfer import Patience
from gradus.release.parcels import (
    BESIDE,
    checkpoint_steps,
    entry_of,
    protected_steps,
    run_artifacts,
    step_folder,
)
from gradus.release.place import (
    RECORDS,
    ParcelRecord,
    PlaceError,
    PlaceUnreachableError,
    RemotePlace,
    read_record,
    record_path,
    record_paths,
    recorded_step,
)

PULLS = ".pull"
Result = TypeVar("Result")


@dataclass
class Pulled:
    """What a pull brought: roadmaps, artifacts, the step of each unfinished stage by its artifact, and bytes."""

    roadmaps: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)
    num_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def pull(place: RemotePlace, home: Path, roadmap: str | None, say: Callable[[str], None]) -> Pulled:
    """Bring what a place holds of one roadmap, or of all of them, into a home.

    say: told a line for each parcel. Errors: ConfigError for a roadmap that is not there, PlaceError for a damaged
    place, GradusError where the roadmap is being walked in that home.
    """
    return _Pull(place, home, say).run(roadmap)


class _Pull:
    def __init__(self, place: RemotePlace, home: Path, say: Callable[[str], None]) -> None:
        self._place, self._home, self._say = place, home, say
        self._patience = Patience("pull")
        self._pulled = Pulled()

    def run(self, roadmap: str | None) -> Pulled:
        there = self._patiently(lambda: record_paths(self._place, RUNS))
        names = [path.removeprefix(f"{RECORDS}/{RUNS}/").removesuffix(".json") for path in there]
        if not names:
            private = ", or it is private: set HF_TOKEN" if self._place.address.startswith("hub:") else ""
            raise ConfigError(f"{self._place.address}: no roadmap has been pushed there{private}")
        if roadmap is not None and roadmap not in names:
            hint = did_you_mean(roadmap, names) or f"; there are {', '.join(names)}"
            raise ConfigError(f'{self._place.address}: no roadmap "{roadmap}"{hint}')
        records = set(self._patiently(lambda: record_paths(self._place, ARTIFACTS)))
        for name in [roadmap] if roadmap is not None else names:
            refusal = f'"{name}" is being walked in {self._home} (process {{pid}}); stop it first'
            with exclusive_lock(self._home / RUNS / name / LOCK, refusal):
                self._pull_roadmap(name, records)
        return self._pulled

    def _pull_roadmap(self, name: str, records: set[str]) -> None:
        for artifact in self._pull_run(name):
            path = record_path(f"{ARTIFACTS}/{artifact}")
            if (self._home / ARTIFACTS / artifact / MANIFEST).is_file():
                continue
            if path in records:
                self._pull_artifact(artifact, path)
            else:
                self._pull_checkpoint(name, artifact, records)
        self._pulled.roadmaps.append(name)

    # Parcels

    def _pull_run(self, name: str) -> list[str]:
        """Bring the records of a run, which stay as they are where it was walked here; its artifacts, here or there."""
        folder, artifacts = self._home / RUNS / name, []

        def keep(built: Path) -> None:
            artifacts.extend(run_artifacts(built, name))
            if (folder / RUN_RECORD).is_file():
                self._say(f"{RUNS}/{name} is here already and stays as it is")
            else:
                self._place_files(built / RUNS / name, folder)

        self._assembled(record_path(f"{RUNS}/{name}"), keep)
        return list(dict.fromkeys([*artifacts, *run_artifacts(self._home, name)]))

    def _pull_artifact(self, artifact: str, path: str) -> None:
        def commit(built: Path) -> None:
            folder = built / ARTIFACTS / artifact
            open_artifact(folder, verify=False)
            folder.rename(self._home / ARTIFACTS / artifact)
            fsync_folder(self._home / ARTIFACTS)

        self._assembled(path, commit)
        self._pulled.artifacts.append(artifact)

    def _pull_checkpoint(self, name: str, artifact: str, records: set[str]) -> None:
        """Of an unfinished stage the newest whole checkpoint, if newer than what is here, and those kept besides."""
        work = self._home / ARTIFACTS / f"{artifact}{WORK_SUFFIX}"
        prefix = f"{RECORDS}/{ARTIFACTS}/{artifact}{WORK_SUFFIX}/"
        here = max(checkpoint_steps(work / CHECKPOINTS_FOLDER), default=0)
        steps = {recorded_step(self._place, path): path for path in records if path.startswith(prefix)}
        for step in sorted((step for step in steps if step > here), reverse=True):
            if self._fetch_checkpoint(steps[step], work, step, "; taking an earlier checkpoint"):
                self._pulled.checkpoints[artifact] = step
                break
        for step in sorted(self._kept_besides(name, artifact, work, steps)):
            self._fetch_checkpoint(steps[step], work, step, "")

    def _kept_besides(self, name: str, artifact: str, work: Path, steps: Collection[int]) -> set[int]:
        """Of the steps in the place those older than the newest here that training would have kept: protected, best."""
        folder = work / CHECKPOINTS_FOLDER
        here = checkpoint_steps(folder)
        marks = self._patiently(lambda: self._place.listing(f"{ARTIFACTS}/{work.name}/{CHECKPOINTS_FOLDER}"))
        marked = {step for step in steps if any(path.endswith(f"/step-{step:08d}/{PROTECTED_FILE}") for path in marks)}
        wanted = protected_steps(self._home, name).get(artifact, set()) | marked
        if (best := best_step(folder, {*steps, *here})) is not None:
            wanted.add(best)
        return {step for step in wanted & set(steps) if step not in here and step < max(here, default=0)}

    def _fetch_checkpoint(self, record: str, work: Path, step: int, otherwise: str) -> bool:
        """Bring a checkpoint; whether it came whole. otherwise: what is said to follow where it did not."""
        try:
            self._assembled(record, lambda built: self._place_checkpoint(built, work, step))
        except PlaceError as problem:
            self._pulled.problems.append(str(problem))
            self._say(f"problem: {problem}{otherwise}")
            return False
        return True

    def _place_checkpoint(self, built: Path, work: Path, step: int) -> None:
        """Put a checkpoint and what is beside it into the work folder of its stage, the checkpoint last.

        What is beside one that is older than what is here would take metrics back, and is left.
        """
        source = built / ARTIFACTS / work.name
        target = step_folder(work / CHECKPOINTS_FOLDER, step)
        target.parent.mkdir(parents=True, exist_ok=True)
        if step > max(checkpoint_steps(target.parent), default=0):
            self._place_files(source / BESIDE / target.name, work)
        (source / CHECKPOINTS_FOLDER / target.name).rename(target)
        fsync_folder(target.parent)

    def _place_files(self, source: Path, target: Path) -> None:
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            there = target / file.relative_to(source)
            there.parent.mkdir(parents=True, exist_ok=True)
            file.replace(there)

    # Bytes

    def _assembled(self, path: str, commit: Callable[[Path], None]) -> None:
        """Fetch every file of a parcel into a folder of its own, check each, and hand the folder over."""
        parcel = path.removeprefix(f"{RECORDS}/").removesuffix(".json")
        folder = self._home / ARTIFACTS / PULLS / parcel.replace("/", "--")
        for attempt in (1, 2):
            record = self._patiently(lambda: read_record(self._place, path))
            if record.parcel != parcel:
                raise PlaceError(f"{self._place.address}/{path}: the record of another parcel, {record.parcel}")
            try:
                before = self._pulled.num_bytes
                size = sum(entry.bytes for entry in record.files.values())
                if size >= LARGE_BYTES:
                    self._say(f"pulling {parcel} ({format_bytes(size)})")
                for name, entry in record.files.items():
                    self._bring(name, entry, folder / name)
                break
            except PlaceError:
                # The records of a run that is going on may be replaced between two files.
                if attempt == 2 or not parcel.startswith(f"{RUNS}/"):
                    raise
        self._remove_others(folder, record)
        for name, target in record.links.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)
        commit(folder)
        shutil.rmtree(folder, ignore_errors=True)
        self._say(f"pulled {parcel} ({format_bytes(self._pulled.num_bytes - before)})")

    def _bring(self, name: str, entry: FileEntry, target: Path) -> None:
        """One file, whole: kept from an earlier try, or fetched, and once more where it came damaged."""
        if target.is_file() and entry_of(target) == entry:
            return
        target.unlink(missing_ok=True)
        part = target.with_name(f"{target.name}.part")
        for attempt in (1, 2):
            self._patiently(lambda: self._place.fetch(name, entry, part))
            found = entry_of(part)
            if found == entry:
                break
            part.unlink()
            where = f"{self._place.address}/{name}"
            if attempt == 2:
                raise PlaceError(
                    f"{where}: damaged in the place: expected {entry.bytes:,} bytes with checksum {entry.sha256[:16]}, "
                    f"found {found.bytes:,} with {found.sha256[:16]}; delete it there and push again from the machine "
                    "that has it"
                )
            self._say(f"{where} came damaged; fetching it again")
        fsync_file(part)
        part.rename(target)
        self._pulled.num_bytes += entry.bytes

    @staticmethod
    def _remove_others(folder: Path, record: ParcelRecord) -> None:
        """Delete what an earlier try left of another version of the parcel."""
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            if file.relative_to(folder).as_posix() not in record.files:
                file.unlink()

    def _patiently(self, attempt: Callable[[], Result]) -> Result:
        """Try until it succeeds or failed too often in a row. Errors: GradusError."""
        while True:
            try:
                result = attempt()
            except PlaceUnreachableError as problem:
                self._patience.failed(str(problem))
                continue
            self._patience.advanced()
            return result
