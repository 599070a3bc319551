"""Sending one exported folder as a whole, so that a model repository of the Hub holds it at its root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gradus.core.artifact import MANIFEST, open_artifact
from gradus.core.quantity import format_bytes
from gradus.release.parcels import entry_of
from gradus.release.place import Outgoing, RemotePlace


def push_bundle(folder: Path, place: RemotePlace, say: Callable[[str], None]) -> int:
    """Send an export's files, its manifest last; returns the bytes that were not there yet.

    Files of the same names there are replaced, others stay. Errors: ArtifactError for a folder that is no whole
    export; PlaceError and PlaceUnreachableError. After an error the same call goes on with what is missing.
    """
    files = open_artifact(folder, "export").manifest.files
    outgoing = [Outgoing(name, folder / name, entry) for name, entry in files.items()]
    outgoing.append(Outgoing(MANIFEST, folder / MANIFEST, entry_of(folder / MANIFEST)))
    say(f"sending {len(outgoing)} files ({format_bytes(sum(file.entry.bytes for file in outgoing))})")
    went = 0

    def count(size: int) -> None:
        nonlocal went
        went += size

    place.send(outgoing, count)
    return went
