"""A place that is a folder of this machine or of a mounted disk (file:///...): durable writes, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gradus.core.artifact import FileEntry
from gradus.core.errors import GradusError
from gradus.core.files import fsync_folder, is_disk_full, link_or_copy
from gradus.release.place import (
    Outgoing,
    PlaceError,
    PlaceUnreachableError,
    copy_checked,
    refuse_other,
    resume_part,
    silent,
)


class FolderPlace:
    """Files below a folder."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._root = Path(unquote(urlsplit(address).path))

    def listing(self, folder: str) -> dict[str, int]:
        """Sizes by path; half-written files are left out."""
        top = self._root / folder
        try:
            return {
                path.relative_to(self._root).as_posix(): path.stat().st_size
                for path in top.rglob("*")
                if path.is_file() and ".tmp-" not in path.name
            }
        except OSError as error:
            raise self._told(error) from error

    def read(self, path: str) -> bytes:
        """A small file."""
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            raise PlaceError(f"{self.address}: there is no {path}") from None
        except OSError as error:
            raise self._told(error) from error

    def send(self, files: Sequence[Outgoing], report: Callable[[int], None]) -> None:
        """Copy what is not there or other, each file to a name of its own first, then read back, then moved."""
        if not self._root.parent.is_dir():
            # A disk that is not mounted must not become a folder of the disk below it.
            raise PlaceUnreachableError(f"{self.address}: there is no folder {self._root.parent}")
        try:
            for outgoing in files:
                target = self._root / outgoing.path
                if self._found(target, outgoing.entry) == outgoing.entry:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                # Always the same name, so that a kill leaves one at most. What it left may be a second name of a
                # file that is there, which must not be written into.
                half = target.with_name(f".{target.name}.tmp-push")
                half.unlink(missing_ok=True)
                try:
                    if not self._linked(outgoing, half):
                        self._write(outgoing, half, report)
                    os.replace(half, target)
                finally:
                    half.unlink(missing_ok=True)
                fsync_folder(target.parent)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._told(error) from error

    def _found(self, target: Path, expected: FileEntry) -> FileEntry | None:
        """What stands there, read only where its size is right."""
        if not target.is_file() or target.stat().st_size != expected.bytes:
            return None
        with target.open("rb") as there:
            return copy_checked(there, None, silent)

    def _linked(self, outgoing: Outgoing, half: Path) -> bool:
        """Give what stands here already a second name: files of a place never change."""
        if outgoing.same is None or self._found(self._root / outgoing.same, outgoing.entry) != outgoing.entry:
            return False
        link_or_copy(self._root / outgoing.same, half)
        return True

    def _write(self, outgoing: Outgoing, half: Path, report: Callable[[int], None]) -> None:
        with outgoing.file.open("rb") as source, half.open("wb") as target:
            found = copy_checked(source, target, report)
            target.flush()
            os.fsync(target.fileno())
        refuse_other(found, outgoing)
        if self._found(half, outgoing.entry) != outgoing.entry:
            raise PlaceUnreachableError(f"{self.address}: {outgoing.path} was not written as it was sent")

    def fetch(self, path: str, entry: FileEntry, part: Path) -> None:
        """Copy to a part, going on at its end."""
        with resume_part(part, entry) as target:
            try:
                with (self._root / path).open("rb") as source:
                    source.seek(target.tell())
                    copy_checked(source, target, silent)
            except FileNotFoundError:
                raise PlaceError(
                    f"{self.address}: {path} is missing; push again from the machine that has it"
                ) from None

    def _told(self, error: OSError) -> GradusError:
        what = "the disk is full" if is_disk_full(error) else error.strerror or type(error).__name__
        return PlaceUnreachableError(f"{self.address}: {what} ({error.filename or self._root})")
