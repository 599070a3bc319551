"""A place: where a home is pushed to and pulled from. What lies there, and what every kind of place must offer.

<path in the home>       the same bytes under the same path: artifacts/<...>/..., runs/<roadmap>/...
pushed/<parcel>.json     the record of a parcel, written last: only what a record names is there, and whole

A parcel is what belongs together: an artifact, a checkpoint of an unfinished stage, the records of a run. Nothing is
ever deleted in a place.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pydantic import Field

from gradus.core.artifact import FileEntry
from gradus.core.errors import ArtifactError, ConfigError, GradusError
from gradus.core.fingerprint import digest
from gradus.core.settings import Settings, load_settings
from gradus.release.settings import checked_address

RECORDS = "pushed"
FORMAT_VERSION = 1
PIECE_BYTES = 1 << 20
# pushed/artifacts/<artifact>.work/step-00000100.json, the step as its folder is called (parcels.py).
_STEP_RECORD, _STEP_RECORD_PARTS = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,17})\.json"), 4


class PlaceError(GradusError):
    """A place refuses, or what lies there is not what its records say. Trying again at once does not help."""


class PlaceUnreachableError(GradusError):
    """A place that cannot be reached or failed on the way: worth another try."""


class ParcelRecord(Settings):
    """What a place holds of a parcel: size and SHA-256 of every file by its path in the place.

    links: second names of folders beside them ("checkpoints/best"), which places cannot hold.
    """

    format_version: int = FORMAT_VERSION
    parcel: str
    step: int | None = None
    files: dict[str, FileEntry] = Field(default_factory=dict)
    links: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Outgoing:
    """A file on its way: its path in the place, its bytes here, and a file of the place that has the same ones."""

    path: str
    file: Path
    entry: FileEntry
    same: str | None = None


class RemotePlace(Protocol):
    """The operations of a place. Paths use "/" and are relative.

    All raise PlaceUnreachableError for what may go better next time and PlaceError for what will not.
    """

    address: str

    def listing(self, folder: str) -> dict[str, int]:
        """Sizes of the files below a folder, by path; {} where there is none."""

    def read(self, path: str) -> bytes:
        """A small file. Errors: PlaceError where it is not there."""

    def send(self, files: Sequence[Outgoing], report: Callable[[int], None]) -> None:
        """Make the files stand there, the last of them last, each read back and found equal before the next.

        What is there and equal is not sent again. report: told bytes as they go.
        """

    def fetch(self, path: str, entry: FileEntry, part: Path) -> None:
        """Bring a file to `part`, going on where an earlier try ended. The caller checks what came."""


def open_place(text: str) -> RemotePlace:
    """The place of an address. Errors: ConfigError for its form, MissingPackageError, PlaceError."""
    address = checked_address(text)
    if address.startswith("hub:"):
        from gradus.release.hub_place import HubPlace

        return HubPlace(address)
    if address.startswith("file://"):
        from gradus.release.folder_place import FolderPlace

        return FolderPlace(address)
    from gradus.release.fsspec_place import open_fsspec_place

    return open_fsspec_place(address)


# Records


def record_path(parcel: str) -> str:
    """Where the record of a parcel lies."""
    return f"{RECORDS}/{parcel}.json"


def record_text(record: ParcelRecord) -> bytes:
    """A record as it is written, with a checksum over itself."""
    body = record.model_dump(mode="json")
    return json.dumps(body | {"checksum": digest(body)}, indent=1).encode()


def read_record(place: RemotePlace, path: str) -> ParcelRecord:
    """Read and check a record. Errors: PlaceError where it is damaged or names files outside a home."""
    where = f"{place.address}/{path}"
    try:
        body = json.loads(place.read(path))
        checksum = body.pop("checksum")
        if checksum != digest(body):
            raise PlaceError(f"{where}: damaged or edited; push again from the machine that has it")
    except (ValueError, KeyError, AttributeError):
        raise PlaceError(f"{where}: not a record of gradus; push again from the machine that has it") from None
    if body.get("format_version") != FORMAT_VERSION:
        raise PlaceError(f"{where}: of format {body.get('format_version')}, this gradus reads {FORMAT_VERSION}")
    try:
        record = load_settings(ParcelRecord, body, where)
    except ConfigError as error:
        raise PlaceError(str(error)) from None
    for name in [record.parcel, *record.files, *record.links, *record.links.values()]:
        if not is_inside(name):
            raise PlaceError(f"{where}: names a file outside the home: {name}")
    return record


def is_inside(path: str) -> bool:
    """Whether a path of a place stays inside the folder that it is relative to."""
    parts = path.split("/")
    return bool(path) and "\\" not in path and "\0" not in path and not {"", ".", ".."} & set(parts)


def record_paths(place: RemotePlace, folder: str) -> list[str]:
    """Paths of the records below a folder such as "artifacts". Errors: PlaceError where one leads out of it."""
    found = sorted(path for path in place.listing(f"{RECORDS}/{folder}") if path.endswith(".json"))
    # Keys of a bucket may hold "..", and their names become folders of the home.
    if outside := next((path for path in found if not is_inside(path)), None):
        raise PlaceError(f"{place.address}: a record's name leads outside the home: {outside}")
    return found


def recorded_step(place: RemotePlace, path: str) -> int:
    """The step of the checkpoint whose record has this path. Errors: PlaceError for a name that no push gives."""
    parts = path.split("/")
    found = _STEP_RECORD.fullmatch(parts[-1])
    if found is None or len(parts) != _STEP_RECORD_PARTS:
        raise PlaceError(
            f"{place.address}/{path}: not a checkpoint, whose record is called step-NNNNNNNN.json; delete it there"
        )
    return int(found[1])


# Bytes


def copy_checked(source: BinaryIO, target: BinaryIO | None, report: Callable[[int], None]) -> FileEntry:
    """Copy all bytes (or only read them, target None) and say what they were."""
    hashing, size = hashlib.sha256(), 0
    while piece := source.read(PIECE_BYTES):
        hashing.update(piece)
        size += len(piece)
        if target is not None:
            target.write(piece)
        report(len(piece))
    return FileEntry(bytes=size, sha256=hashing.hexdigest())


@contextmanager
def resume_part(part: Path, entry: FileEntry) -> Iterator[BinaryIO]:
    """A part of a file open for writing at its end; what is longer than the file is begun again."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as handle:
        if handle.seek(0, os.SEEK_END) > entry.bytes:
            handle.seek(0)
            handle.truncate()
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


def refuse_other(found: FileEntry, outgoing: Outgoing) -> None:
    """Errors: ArtifactError where a file of this machine is not what its manifest says."""
    if found != outgoing.entry:
        raise ArtifactError(
            f"{outgoing.file}: damaged: expected {outgoing.entry.bytes:,} bytes with checksum "
            f"{outgoing.entry.sha256[:16]}, found {found.bytes:,} with {found.sha256[:16]}; it is not pushed"
        )


def silent(count: int) -> None:
    """Tell nobody of bytes."""
