"""Bytes behind gzip and zstandard, in bounded memory, with damage noticed where the file ends too early."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

COMPRESSION_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What reading damaged or cut compressed bytes raises."""

# A zstandard member or a gzip block may stand for tens of kilobytes a byte: the output is what is bounded.
_BUFFER_BYTES = 1 << 20


@contextmanager
def decompressed(raw: BinaryIO, name: str) -> Iterator[io.BufferedReader]:
    """The bytes of a file, decompressed where the end of its name says so; reading may raise COMPRESSION_DAMAGE."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=raw) as unzipped:
            yield io.BufferedReader(_GzipStream(unzipped), _BUFFER_BYTES)
    elif suffix == ".zst":
        yield io.BufferedReader(_ZstandardStream(raw), _BUFFER_BYTES)
    elif isinstance(raw, io.BufferedReader):
        yield raw
    else:
        yield io.BufferedReader(cast("io.RawIOBase", raw), _BUFFER_BYTES)


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

    def __init__(self, file: BinaryIO) -> None:
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
