"""Files of fixed-size rows, one a document: read in pieces, or row by row from several files by document number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError

Numbers = NDArray[np.int64]


def read_rows(path: Path, dtype: str, width: int, start: int, count: int) -> NDArray[Any]:
    """Rows [start, start + count) as (count, width)."""
    size = np.dtype(dtype).itemsize * width
    return np.fromfile(path, dtype, count * width, offset=start * size).reshape(-1, width)


class RowFiles:
    """Rows of several files by document number, counted from the first new document: old ones are negative.

    paths: files of old documents, the first of each numbered by `old_starts`, and last that of the new ones, whose
    rows by number are `rows`. Rows are read one by one: a memory map would be as fast, but the pages around each row
    count as this process's memory.
    """

    def __init__(
        self, paths: Sequence[Path], dtype: str, width: int, old_starts: Numbers, rows: NDArray[np.uint32]
    ) -> None:
        self._dtype, self._width = np.dtype(dtype), width
        self._old_starts, self._rows = old_starts, rows
        self._paths = paths
        self._files = [path.open("rb", buffering=0) for path in paths]

    def take(self, numbers: Numbers) -> NDArray[Any]:
        """(numbers, width)."""
        taken = np.empty((len(numbers), self._width), dtype=self._dtype)
        new = np.flatnonzero(numbers >= 0)
        taken[new] = self._read(len(self._files) - 1, self._rows[numbers[new]].astype(np.int64))
        places = np.flatnonzero(numbers < 0)
        old = numbers[places] + self._old_starts[-1]
        parts = np.searchsorted(self._old_starts, old, side="right") - 1
        for part in np.unique(parts).tolist():
            chosen = parts == part
            taken[places[chosen]] = self._read(part, old[chosen] - self._old_starts[part])
        return taken

    def _read(self, part: int, rows: Numbers) -> NDArray[Any]:
        """Each row once, in the order of the file."""
        distinct, where = np.unique(rows, return_inverse=True)
        size = self._dtype.itemsize * self._width
        file = self._files[part]
        content = b"".join([file.read(size) for row in distinct.tolist() if file.seek(row * size) >= 0])
        if len(content) < size * len(distinct):
            raise DataError(f"{self._paths[part]}: cut short while it was being read; write it again")
        found: NDArray[Any] = np.frombuffer(content, dtype=self._dtype).reshape(-1, self._width)[where]
        return found

    def close(self) -> None:
        for file in self._files:
            file.close()
