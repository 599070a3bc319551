"""Files of fixed-size rows, one a document: read in pieces, or by document number without counting as memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def read_rows(path: Path, dtype: str, width: int, start: int, count: int) -> NDArray[Any]:
    """Rows [start, start + count) as (count, width)."""
    size = np.dtype(dtype).itemsize * width
    return np.fromfile(path, dtype, count * width, offset=start * size).reshape(-1, width)


class RowFiles:
    """Rows of several files, by document number counted from the first new document: old ones are negative."""

    def __init__(
        self, paths: Sequence[Path], dtype: str, width: int, old_starts: Numbers, rows: NDArray[np.uint32]
    ) -> None:
        self._dtype, self._width = np.dtype(dtype), width
        self._old_starts, self._rows = old_starts, rows
        self._maps: list[mmap.mmap | None] = []
        for path in paths:
            # An empty file cannot be mapped, and nobody asks for its rows.
            if path.stat().st_size == 0:
                self._maps.append(None)
                continue
            with path.open("rb") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            _advise(self._maps[-1], "MADV_RANDOM")

    def take(self, numbers: Numbers) -> NDArray[Any]:
        """(numbers, width)."""
        taken = np.empty((len(numbers), self._width), dtype=self._dtype)
        is_new = numbers >= 0
        taken[is_new] = self._file(-1)[self._rows[numbers[is_new]]]
        old = numbers[~is_new] + self._old_starts[-1]
        parts = np.searchsorted(self._old_starts, old, side="right") - 1
        places = np.flatnonzero(~is_new)
        for part in np.unique(parts).tolist():
            chosen = parts == part
            taken[places[chosen]] = self._file(part)[old[chosen] - self._old_starts[part]]
        return taken

    def _file(self, part: int) -> NDArray[Any]:
        mapped = self._maps[part]
        content: bytes | mmap.mmap = b"" if mapped is None else mapped
        return np.frombuffer(content, dtype=self._dtype).reshape(-1, self._width)

    def forget(self) -> None:
        """Let go of the pages read so far, which would otherwise count as this process's memory."""
        for mapped in self._maps:
            _advise(mapped, "MADV_DONTNEED")

    def close(self) -> None:
        for mapped in self._maps:
            if mapped is not None:
                mapped.close()


def _advise(mapped: mmap.mmap | None, advice: str) -> None:
    # Not every system takes advice.
    if mapped is not None and hasattr(mmap, advice):
        mapped.madvise(getattr(mmap, advice))
