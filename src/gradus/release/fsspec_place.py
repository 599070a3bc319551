"""A place that fsspec reaches (s3://..., gs://..., memory://...): streamed there, read back and compared."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradus.core.artifact import FileEntry
from gradus.core.errors import ConfigError, MissingPackageError
from gradus.core.secrets import exposure, redacted
from gradus.release.place import (
    Outgoing,
    PlaceError,
    PlaceUnreachableError,
    copy_checked,
    refuse_other,
    resume_part,
    silent,
)

# Packages that are an extra of gradus; others are installed by their own name.
_EXTRAS = {"s3fs": "s3"}
# Up to this size a file is sent in one request.
WHOLE_BYTES = 1 << 23
# Where making a folder would make a bucket, which is the user's to make.
_BUCKETS = {"s3", "gs", "gcs", "abfs", "oss"}


def open_fsspec_place(address: str) -> FsspecPlace:
    """The place of an address. Errors: MissingPackageError; ConfigError for its protocol; PlaceError for its keys."""
    import fsspec

    protocol = address.partition("://")[0]
    if protocol in {"s3", "s3a"} and not os.environ.get("AWS_ACCESS_KEY_ID"):
        keys = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
        if problem := exposure(keys):
            raise PlaceError(problem)
    try:
        # Listings must show what is there now, not what was there at the first look.
        filesystem, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        package = error.name or {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs"}.get(protocol, protocol)
        raise MissingPackageError(package, _EXTRAS.get(package)) from None
    except ValueError:
        raise ConfigError(f'"{address}": fsspec knows no protocol "{protocol}"') from None
    return FsspecPlace(address, filesystem, root)


class FsspecPlace:
    """Files below a folder or prefix of an fsspec file system."""

    def __init__(self, address: str, filesystem: Any, root: str) -> None:
        self.address = address
        self._files = filesystem
        self._root = str(root).rstrip("/")

    def listing(self, folder: str) -> dict[str, int]:
        """Sizes by path."""
        with self._told():
            try:
                found = self._files.find(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError:
                return {}
        start = len(self._root.lstrip("/")) + 1
        return {path.lstrip("/")[start:]: int(facts["size"]) for path, facts in found.items()}

    def read(self, path: str) -> bytes:
        """A small file."""
        with self._told():
            try:
                return bytes(self._files.cat_file(f"{self._root}/{path}"))
            except FileNotFoundError:
                raise PlaceError(f"{self.address}: there is no {path}") from None

    def send(self, files: Sequence[Outgoing], report: Callable[[int], None]) -> None:
        """Stream what is not there or other, then read it back; what the place has elsewhere is copied inside it."""
        for outgoing in files:
            if self._found(outgoing.path, outgoing.entry) == outgoing.entry:
                continue
            if outgoing.same is not None and self._copied(outgoing):
                continue
            there = f"{self._root}/{outgoing.path}"
            with outgoing.file.open("rb") as source, self._told():
                if not _BUCKETS & set(_protocols(self._files)):
                    self._files.makedirs(there.rpartition("/")[0], exist_ok=True)
                if outgoing.entry.bytes <= WHOLE_BYTES:
                    # At once: a stream that is given up leaves what it had, which a record must never be.
                    whole = io.BytesIO()
                    refuse_other(copy_checked(source, whole, report), outgoing)
                    self._files.pipe_file(there, whole.getvalue())
                else:
                    with self._files.open(there, "wb") as target:
                        found = copy_checked(source, target, report)
                    refuse_other(found, outgoing)
            if self._found(outgoing.path, outgoing.entry) != outgoing.entry:
                raise PlaceUnreachableError(f"{self.address}: {outgoing.path} did not arrive as it was sent")

    def _copied(self, outgoing: Outgoing) -> bool:
        with self._told():
            try:
                self._files.cp_file(f"{self._root}/{outgoing.same}", f"{self._root}/{outgoing.path}")
            except (FileNotFoundError, NotImplementedError):
                return False
        return self._found(outgoing.path, outgoing.entry) == outgoing.entry

    def _found(self, path: str, expected: FileEntry) -> FileEntry | None:
        """What stands there, read only where its size is right."""
        there = f"{self._root}/{path}"
        with self._told():
            try:
                if self._files.info(there)["size"] != expected.bytes:
                    return None
                with self._files.open(there, "rb") as source:
                    return copy_checked(source, None, silent)
            except FileNotFoundError:
                return None

    def fetch(self, path: str, entry: FileEntry, part: Path) -> None:
        """Stream to a part, going on at its end."""
        with resume_part(part, entry) as target, self._told():
            try:
                with self._files.open(f"{self._root}/{path}", "rb") as source:
                    source.seek(target.tell())
                    copy_checked(source, target, silent)
            except FileNotFoundError:
                raise PlaceError(
                    f"{self.address}: {path} is missing; push again from the machine that has it"
                ) from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Failures of the file system in our words, without what may be a signature."""
        try:
            yield
        except PermissionError as error:
            raise PlaceError(f"{self.address}: access is refused: {redacted(str(error))}") from error
        except _failures() as error:
            if isinstance(error, FileNotFoundError) and not self._files.exists(self._root.split("/")[0]):
                raise PlaceError(f"{self.address}: there is no {self._root.split('/')[0]}; make it first") from error
            text = redacted(str(error)) or type(error).__name__
            if "credentials" in text.lower():
                raise PlaceError(f"{self.address}: {text}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
            raise PlaceUnreachableError(f"{self.address}: {text}") from error


def _protocols(filesystem: Any) -> tuple[str, ...]:
    names = filesystem.protocol
    return (names,) if isinstance(names, str) else tuple(names)


def _failures() -> tuple[type[BaseException], ...]:
    """What a file system raises when something goes wrong on the way; S3's own errors where its client is loaded."""
    client = sys.modules.get("botocore.exceptions")
    return (OSError, client.BotoCoreError, client.ClientError) if client is not None else (OSError,)
