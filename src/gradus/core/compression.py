"""Bytes behind gzip and zstandard, in bounded memory, with damage noticed where the file ends too early.

What a file may become is bounded too: past the first 256 MiB, 100 times its own bytes. Text becomes three to ten times
as much; a "bomb" of some kilobytes becomes terabytes, which would fill the disk or, as one line, the memory.
GRADUS_MAX_EXPANSION is another number of times, for files that are trusted.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

from gradus.core.errors import ConfigError, DataError
from gradus.core.quantity import format_bytes

COMPRESSION_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What reading damaged or cut compressed bytes raises."""

# A zstandard member or a gzip block may stand for tens of kilobytes a byte: the output is what is bounded.
_BUFFER_BYTES = 1 << 20


MAX_EXPANSION = "GRADUS_MAX_EXPANSION"
_DEFAULT_EXPANSION = 100.0
_FREE_BYTES = 1 << 28


@contextmanager
def decompressed(raw: BinaryIO, name: str) -> Iterator[io.BufferedReader]:
    """The bytes of a file, decompressed where the end of its name says so.

    Reading may raise COMPRESSION_DAMAGE, and DataError where the file becomes more than text does.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".gz":
        counted = _Counted(raw)
        with gzip.GzipFile(fileobj=cast("BinaryIO", counted)) as unzipped:
            yield io.BufferedReader(_Bounded(_GzipStream(unzipped), counted, name), _BUFFER_BYTES)
    elif suffix == ".zst":
        counted = _Counted(raw)
        yield io.BufferedReader(_Bounded(_ZstandardStream(counted), counted, name), _BUFFER_BYTES)
    elif isinstance(raw, io.BufferedReader):
        yield raw
    else:
        yield io.BufferedReader(cast("io.RawIOBase", raw), _BUFFER_BYTES)


def check_expansion(place: object, packed_bytes: int, num_bytes: int) -> None:
    """Refuse what so many packed bytes have become, where no text becomes as much.

    Errors: DataError; ConfigError where GRADUS_MAX_EXPANSION is no positive number.
    """
    if num_bytes <= _FREE_BYTES or num_bytes <= (most := _max_expansion()) * packed_bytes:
        return
    raise DataError(
        f"{place}: {format_bytes(packed_bytes)} of it become over {format_bytes(num_bytes)}, more than {most:g} times "
        f"as much, as no honest text does; if you trust the file, set {MAX_EXPANSION} to a larger number of times"
    )


def _max_expansion() -> float:
    written = os.environ.get(MAX_EXPANSION, "").strip()
    try:
        most = float(written) if written else _DEFAULT_EXPANSION
    except ValueError:
        most = math.nan
    if not most >= 1:
        raise ConfigError(f'{MAX_EXPANSION}: expected a number of times of at least 1, found "{written}"')
    return most


class _Counted:
    """A stream's bytes as decompressors take them, counted."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self.num_bytes += len(piece)
        return piece


class _Bounded(io.RawIOBase):
    """Decompressed bytes, held against what was read for them."""

    def __init__(self, stream: io.RawIOBase, packed: _Counted, name: str) -> None:
        self._stream, self._packed, self._name = stream, packed, name
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._stream.readinto(buffer) or 0
        self._num_bytes += size
        check_expansion(self._name, self._packed.num_bytes, self._num_bytes)
        return size


class _GzipStream(io.RawIOBase):
    """Decompressed gzip in pieces as they come, so that what stands before damage is given."""

    def __init__(self, unzipped: gzip.GzipFile) -> None:
        self._unzipped = unzipped

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._unzipped.read1(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class _ZstandardStream(io.RawIOBase):
    """Decompressed zstandard that, unlike the package's own reader, raises EOFError on a file cut short."""

    # Small, since one byte of input may stand for tens of kilobytes of output.
    _INPUT_BYTES = 4096

    def __init__(self, file: _Counted) -> None:
        self._file = file
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._file.read(self._INPUT_BYTES)
                if not self._input:
                    if self._frame is not None:
                        raise EOFError("the file ends inside a zstandard frame")
                    return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size
