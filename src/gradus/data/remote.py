"""A remote shard as a file: read once through, read in parts, or downloaded, each resuming at the byte.

Reading in parts (parquet) fetches aligned blocks, each when first needed, and holds a bounded number of them.
Reading once through and downloading check the content's digest where it is known.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import requests

from gradus.core.errors import DataError
from gradus.core.files import fsync_folder, is_disk_full
from gradus.core.quantity import format_bytes
from gradus.data.transfer import Connection, DroppedError, StatusError, body_reader

# Small enough for one a column of a wide table, large enough that waiting for each answer is not what takes long.
BLOCK_BYTES = 1 << 21
_MOST_BLOCKS = 32
_PIECE_BYTES = 1 << 20
# A signed address that a redirect led to may run out of time; the first address then gives another.
_EXPIRED = {400, 401, 403, 404, 410}


@dataclass(frozen=True)
class RemoteShard:
    """A shard at an address. place: for messages; num_bytes, digest: as in ShardTask; connect: opens a connection."""

    url: str
    place: str
    connect: Callable[[], Connection]
    num_bytes: int | None = None
    digest: str = ""

    def __str__(self) -> str:
        return self.place

    @property
    def name(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    def size(self) -> int:
        """Bytes; where they are not known, the server is asked."""
        if self.num_bytes is not None:
            return self.num_bytes
        with _Fetcher(self) as fetcher:
            return fetcher.size()

    def open(self) -> BinaryIO:
        return cast("BinaryIO", io.BufferedReader(_Stream(self), _PIECE_BYTES))

    def random_access(self) -> BinaryIO:
        return cast("BinaryIO", _Blocks(self))


class _Fetcher:
    """Pieces of one shard over one connection; notices when the content changes between two of them."""

    def __init__(self, shard: RemoteShard) -> None:
        self.shard = shard
        self._connection = shard.connect()
        self.patience = self._connection.patience(str(shard))
        self._direct: str | None = None
        self._etag: str | None = None

    def __enter__(self) -> _Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def answer(self, start: int, end: int | None = None) -> requests.Response:
        """The body from byte `start` (to `end`, exclusive), unread; DroppedError where another attempt may help."""
        headers = {}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        try:
            response, at = self._connection.send(self._direct or self.shard.url, headers)
        except StatusError as error:
            if self._direct is None or error.status not in _EXPIRED:
                raise
            self._direct = None
            response, at = self._connection.send(self.shard.url, headers)
        self._direct = at if at != self.shard.url else None
        etag = response.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):
            if self._etag is not None and etag != self._etag:
                response.close()
                raise DataError(f"{self.shard}: the file changed while it was being read; run the same command again")
            self._etag = etag
        return response

    def size(self) -> int:
        while True:
            try:
                with self.answer(0, 1) as response:
                    total = _total_bytes(response)
                    if total is None:
                        raise DataError(f'{self.shard}: the server does not say how large it is; set raw = "delete"')
                    return total
            except StatusError as error:
                if error.status == 416:  # not even one byte
                    return 0
                raise
            except DroppedError as error:
                self.patience.failed(str(error), error.asked_seconds)

    def block(self, start: int, end: int) -> bytes:
        """Bytes [start, end). Errors: DataError where the server sends no parts."""
        while True:
            try:
                with self.answer(start, end) as response:
                    if response.status_code != 206:
                        raise DataError(f'{self.shard}: the server sends whole files only; set raw = "delete"')
                    piece, read = bytearray(), body_reader(response)
                    while len(piece) < end - start and (more := read(end - start - len(piece))):
                        piece += more
                if len(piece) == end - start:
                    self.patience.advanced()
                    return bytes(piece)
                self.patience.failed("the answer was cut short")
            except DroppedError as error:
                self.patience.failed(str(error), error.asked_seconds)

    def pieces(self, start: int) -> Iterator[bytes]:
        """The bytes from `start` to the end, in order, over as many connections as it takes."""
        position, size = start, self.shard.num_bytes
        while size is None or position < size:
            try:
                with self.answer(position) as response:
                    if size is None:
                        size = _total_bytes(response)
                    read = body_reader(response)
                    if position and response.status_code == 200:
                        _pass_over(read, position)
                    while piece := read(_PIECE_BYTES):
                        position += len(piece)
                        self.patience.advanced()
                        yield piece
                if size is None:
                    return
                if position < size:
                    self.patience.failed("the answer was cut short")
            except StatusError as error:
                if error.status == 416 and size is None:
                    return
                raise
            except DroppedError as error:
                self.patience.failed(str(error), error.asked_seconds)
        if size is not None and position > size:
            raise DataError(f"{self.shard}: {position:,} bytes came of a file of {size:,}")


def _pass_over(read: Callable[[int], bytes], count: int) -> None:
    """For a server that ignores ranges: read what is already there."""
    while count:
        piece = read(min(count, _PIECE_BYTES))
        if not piece:
            raise DroppedError("the answer was cut short")
        count -= len(piece)


def _total_bytes(response: requests.Response) -> int | None:
    if response.status_code == 206:
        found = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


class _Stream(io.RawIOBase):
    """A shard read once through, its digest checked at the end."""

    def __init__(self, shard: RemoteShard) -> None:
        self._fetcher = _Fetcher(shard)
        self._pieces = self._fetcher.pieces(0)
        self._check = ContentCheck(shard.digest, shard.num_bytes)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            piece = next(self._pieces, b"")
            if not piece:
                self._check.finish(str(self._fetcher.shard))
                return 0
            self._check.update(piece)
            self._left = memoryview(piece)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            cast("Any", self._pieces).close()
            self._fetcher.__exit__()
        super().close()


class _Blocks(io.RawIOBase):
    """A shard read in parts. Holds at most `_MOST_BLOCKS` blocks, the least recently used one makes room."""

    def __init__(self, shard: RemoteShard) -> None:
        self._fetcher = _Fetcher(shard)
        self._size = shard.num_bytes if shard.num_bytes is not None else self._fetcher.size()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        number, offset = divmod(self._position, BLOCK_BYTES)
        piece = self._block(number)[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def read(self, size: int | None = -1) -> bytes:
        """All the bytes asked for, unlike one readinto."""
        left = self._size - self._position if size is None or size < 0 else min(size, self._size - self._position)
        found = bytearray()
        while left > 0:
            number, offset = divmod(self._position, BLOCK_BYTES)
            piece = self._block(number)[offset : offset + left]
            found += piece
            self._position += len(piece)
            left -= len(piece)
        return bytes(found)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * BLOCK_BYTES
        block = self._fetcher.block(start, min(start + BLOCK_BYTES, self._size))
        self._blocks[number] = block
        if len(self._blocks) > _MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def close(self) -> None:
        if not self.closed:
            self._blocks.clear()
            self._fetcher.__exit__()
        super().close()


class ContentCheck:
    """A digest over passing bytes, held against the one that is known; nothing where none is."""

    def __init__(self, digest: str, num_bytes: int | None) -> None:
        self._wanted = digest
        kind, _, _ = digest.partition(":")
        self._hash: Any = None
        if kind == "sha256":
            self._hash = hashlib.sha256()
        elif kind == "git" and num_bytes is not None:
            # Git names a file by the SHA-1 of its size and content.
            self._hash = hashlib.sha1(b"blob %d\0" % num_bytes, usedforsecurity=False)

    def update(self, piece: bytes) -> None:
        """The next bytes."""
        if self._hash is not None:
            self._hash.update(piece)

    def matches(self) -> bool:
        """Whether everything so far is the content that is known."""
        return self._hash is None or f"{self._wanted.partition(':')[0]}:{self._hash.hexdigest()}" == self._wanted

    def finish(self, where: str) -> None:
        """Errors: DataError where the content is another."""
        if not self.matches():
            raise DataError(f"{where}: the bytes that arrived are not the file's ({self._wanted}); run it again")


# Downloads


def download(shard: RemoteShard, target: Path) -> None:
    """Make `target` the shard's bytes: resumed where an earlier try stopped, checked, then moved into place.

    Of two processes at the same target one downloads and the other waits. Errors: DataError; OSError for a full
    disk, which leaves nothing behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with _only_one(part) as handle:
        if target.exists():
            part.unlink(missing_ok=True)
            return
        try:
            _fill(shard, handle, part)
            handle.flush()
            os.fsync(handle.fileno())
            part.replace(target)
        except OSError as error:
            if is_disk_full(error):
                with contextlib.suppress(FileNotFoundError):
                    part.unlink()
            raise
    fsync_folder(target.parent)


def _fill(shard: RemoteShard, handle: BinaryIO, part: Path) -> None:
    """Append what is missing to the part; a part that turns out to be wrong is begun again, once."""
    for attempt in (1, 2):
        check = ContentCheck(shard.digest, shard.num_bytes)
        position = _kept(shard, handle, check) if attempt == 1 else 0
        handle.truncate(position)
        handle.seek(position)
        _refuse_where_full(shard, part.parent, position)
        with _Fetcher(shard) as fetcher:
            for piece in fetcher.pieces(position):
                _write(handle, piece)
                check.update(piece)
        if check.matches():
            return
        if attempt == 2 or position == 0:
            handle.truncate(0)
            part.unlink(missing_ok=True)
            check.finish(str(shard))


def _kept(shard: RemoteShard, handle: BinaryIO, check: ContentCheck) -> int:
    """How many bytes of an earlier try count: those that the digest will judge at the end."""
    size = handle.seek(0, io.SEEK_END)
    if not shard.digest or shard.num_bytes is None or size > shard.num_bytes:
        return 0
    handle.seek(0)
    while piece := handle.read(_PIECE_BYTES):
        check.update(piece)
    return size


def _write(handle: BinaryIO, piece: bytes) -> None:
    handle.write(piece)


def _refuse_where_full(shard: RemoteShard, folder: Path, have: int) -> None:
    if shard.num_bytes is None:
        return
    need, free = shard.num_bytes - have, shutil.disk_usage(folder).free
    if need > free:
        message = f"{shard} needs {format_bytes(need)} more and {format_bytes(free)} are free"
        raise OSError(errno.ENOSPC, message, str(folder))


@contextmanager
def _only_one(part: Path) -> Iterator[BinaryIO]:
    """The part file, held by this process alone."""
    while True:
        handle = open(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b")  # noqa: SIM115
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            # Another process may have finished, and moved the file away, while this one waited.
            current = part.stat().st_ino == os.fstat(handle.fileno()).st_ino
        except FileNotFoundError:
            current = False
        if current:
            break
        handle.close()
    try:
        yield cast("BinaryIO", handle)
    finally:
        # What a full disk did not take cannot be flushed either.
        with contextlib.suppress(OSError):
            handle.close()
