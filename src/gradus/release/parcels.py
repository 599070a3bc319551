"""What of a home is pushed, as parcels: artifacts, checkpoints of unfinished stages, the records of a run.

Training deletes its older checkpoints. So each one that is due is first given a second name (a hard link, or a copy
where the disk has none) in artifacts/.push/, together with the metrics and the clock of its stage, and is sent from
there. What is waiting there is bounded: where a place is slower than training, newer checkpoints take the place of
the oldest that wait.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gradus.core.artifact import MANIFEST, SCRATCH, FileEntry, open_artifact
from gradus.core.errors import ArtifactError
from gradus.core.files import link_or_copy
from gradus.core.fingerprint import file_digest
from gradus.core.home import (
    ARTIFACTS,
    CHECKPOINTS_FOLDER,
    LEDGER,
    PROTECTED_FILE,
    REPORT,
    RUN_RECORD,
    RUNS,
    WORK_SUFFIX,
)
from gradus.core.run_record import read_run_record
from gradus.release.place import Outgoing, ParcelRecord, record_path, record_text

PINS = ".push"
BESIDE = "beside"
MOST_PINNED = 4  # checkpoints of one stage that wait
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Parcel:
    """What is sent together. name: also of its record; step: of a checkpoint; pin: deleted once it is there."""

    name: str
    files: dict[str, tuple[Path, FileEntry]]
    step: int | None = None
    pin: Path | None = None
    links: dict[str, str] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return sum(entry.bytes for _, entry in self.files.values())

    @property
    def entries(self) -> dict[str, FileEntry]:
        """Sizes and digests by path in the place."""
        return {path: entry for path, (_, entry) in self.files.items()}

    def outgoing(self, work: Path, known: dict[str, str]) -> list[Outgoing]:
        """Its files in the order of sending, manifests after the rest and the record last.

        work: a folder where the record is written; known: a path of the place for each digest that lies there.
        """
        record = work / "record.json"
        told = ParcelRecord(parcel=self.name, step=self.step, files=self.entries, links=self.links)
        record.write_bytes(record_text(told))
        ordered = sorted(self.files.items(), key=lambda item: item[0].endswith(f"/{MANIFEST}"))
        sent = [Outgoing(path, file, entry, known.get(entry.sha256)) for path, (file, entry) in ordered]
        return [*sent, Outgoing(record_path(self.name), record, entry_of(record))]


def entry_of(file: Path) -> FileEntry:
    """Size and digest of a file."""
    return FileEntry(bytes=file.stat().st_size, sha256=file_digest(file))


# Artifacts


def run_artifacts(home: Path, roadmap: str) -> list[str]:
    """Folder names of the artifacts that a walked roadmap is made of, in its order. Errors: ArtifactError."""
    return [str(stage["artifact"]) for stage in read_run_record(home / RUNS / roadmap)["stages"]]


def protected_steps(home: Path, roadmap: str) -> dict[str, set[int]]:
    """Steps whose checkpoints a walked roadmap asks to be kept, by the artifact of their stage.

    Errors: ArtifactError.
    """
    stages = read_run_record(home / RUNS / roadmap)["stages"]
    return {str(stage["artifact"]): set(stage.get("settings", {}).get("protect", ())) for stage in stages}


def artifact_parcel(home: Path, name: str) -> Parcel | None:
    """A committed artifact; None while it is not there. Errors: ArtifactError where its manifest is damaged.

    FileNotFoundError where it is deleted meanwhile.
    """
    folder = home / ARTIFACTS / name
    if not (folder / MANIFEST).is_file():
        return None
    manifest = open_artifact(folder, verify=False).manifest
    top = f"{ARTIFACTS}/{name}"
    files = {f"{top}/{path}": (folder / path, entry) for path, entry in manifest.files.items()}
    files[f"{top}/{MANIFEST}"] = (folder / MANIFEST, entry_of(folder / MANIFEST))
    return Parcel(top, files, links=_links(folder, top))


def _links(folder: Path, top: str) -> dict[str, str]:
    """Links to something beside them, by their paths in the place; the commit may still be deleting its scratch."""
    found: dict[Path, str] = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(at, name) != folder / SCRATCH]
        found |= {path: os.readlink(path) for name in (*folders, *names) if (path := Path(at, name)).is_symlink()}
    return {f"{top}/{path.relative_to(folder).as_posix()}": to for path, to in found.items() if "/" not in to}


# Checkpoints


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that a folder seems to hold, ascending; none where it is not there, or no longer."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        names = []
    return sorted(int(found[1]) for name in names if (found := _STEP.fullmatch(name)))


def step_folder(folder: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return folder / f"step-{step:08d}"


def pins_of(home: Path, artifact: str) -> Path:
    """Where checkpoints of a stage wait."""
    return home / ARTIFACTS / PINS / f"{artifact}{WORK_SUFFIX}"


def pin_checkpoint(home: Path, artifact: str, step: int) -> Path | None:
    """Keep a checkpoint from being deleted before it is sent; None where it was gone or not whole already."""
    work = home / ARTIFACTS / f"{artifact}{WORK_SUFFIX}"
    source, pins = step_folder(work / CHECKPOINTS_FOLDER, step), pins_of(home, artifact)
    pinned = step_folder(pins, step)
    if pinned.exists():
        return pinned
    half = pins / f"{pinned.name}.tmp-{secrets.token_hex(4)}"
    half.mkdir(parents=True)
    try:
        for name in [*_manifest_files(source), MANIFEST]:
            (half / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source / name, half / name)
        if (source / PROTECTED_FILE).exists():
            (half / PROTECTED_FILE).touch()
        # Copies, since these grow: a reader cuts them back to the step of the checkpoint.
        folders = (work, work / SCRATCH, work / CHECKPOINTS_FOLDER)
        for file in [path for folder in folders for path in folder.glob("*.json*")]:
            there = half / BESIDE / file.relative_to(work)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, there)
        half.rename(pinned)
    except (FileNotFoundError, ArtifactError):
        shutil.rmtree(half, ignore_errors=True)
        return None
    _drop_oldest(pins)
    return pinned


def _manifest_files(folder: Path) -> dict[str, FileEntry]:
    """The files of a checkpoint by its manifest. Errors: ArtifactError where that is damaged."""
    file = folder / MANIFEST
    try:
        listed = json.loads(file.read_bytes())["files"]
        return {str(name): FileEntry(bytes=facts["bytes"], sha256=facts["sha256"]) for name, facts in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactError(f"{file}: not the manifest of a checkpoint") from None


def _drop_oldest(pins: Path) -> None:
    """Let the oldest go where too many wait."""
    for step in checkpoint_steps(pins)[:-MOST_PINNED]:
        drop_pin(step_folder(pins, step))


def drop_pin(pin: Path) -> None:
    """Delete what was kept for sending; renamed first, so that no half of it is ever taken for a checkpoint."""
    doomed = pin.with_name(f"{pin.name}.tmp-{secrets.token_hex(4)}")
    try:
        pin.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def pinned_parcels(home: Path, artifact: str) -> Iterator[Parcel]:
    """The checkpoints of a stage that wait, oldest first."""
    pins = pins_of(home, artifact)
    for step in checkpoint_steps(pins):
        folder = step_folder(pins, step)
        top = f"{ARTIFACTS}/{artifact}{WORK_SUFFIX}"
        inside = f"{top}/{CHECKPOINTS_FOLDER}/{folder.name}"
        try:
            listed = _manifest_files(folder)
            files = {f"{inside}/{name}": (folder / name, entry) for name, entry in listed.items()}
            files[f"{inside}/{MANIFEST}"] = (folder / MANIFEST, entry_of(folder / MANIFEST))
            if (folder / PROTECTED_FILE).exists():
                files[f"{inside}/{PROTECTED_FILE}"] = (folder / PROTECTED_FILE, entry_of(folder / PROTECTED_FILE))
            for file in sorted(path for path in (folder / BESIDE).rglob("*") if path.is_file()):
                there = f"{top}/{BESIDE}/{folder.name}/{file.relative_to(folder / BESIDE).as_posix()}"
                files[there] = (file, entry_of(file))
        except FileNotFoundError:  # another push has sent it
            continue
        yield Parcel(f"{top}/{folder.name}", files, step, folder)


def sweep_pins(home: Path, artifact: str) -> None:
    """Delete what a kill left half-made."""
    pins = pins_of(home, artifact)
    for half in pins.glob("*.tmp-*") if pins.is_dir() else []:
        shutil.rmtree(half, ignore_errors=True)


# Records of a run


def run_parcel(home: Path, roadmap: str, work: Path) -> Parcel:
    """Ledger, report and record of a run as they are now, copied to `work` since they change."""
    files = {}
    for name in (RUN_RECORD, LEDGER, REPORT):
        source = home / RUNS / roadmap / name
        if source.is_file():
            shutil.copyfile(source, work / name)
            files[f"{RUNS}/{roadmap}/{name}"] = (work / name, entry_of(work / name))
    return Parcel(f"{RUNS}/{roadmap}", files)
