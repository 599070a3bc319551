"""Sorting more numbers than fit in memory: sorted runs in a file, merged a block at a time.

Values are uint64. A merged block holds all values of its groups (equal in the bits above `shift`), so whoever reads
it never sees half a group. Each run gets the same share of the memory; a block ends where the first run's share
does (k-way merging, Knuth 1998, TAOCP 3, 5.4.1, by blocks instead of single values). A group larger than its share
is read whole, so memory is bounded by the budget and the largest group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError

Values = NDArray[np.uint64]
Change = Callable[[Values], Values]
_VALUE_BYTES = 8


@dataclass(frozen=True)
class Run:
    """Sorted little-endian uint64 values in a file: `count` of them from number `start` on.

    change: applied to values as they are read; it may change the bits below a reader's shift only, and need not
    keep their order.
    """

    path: Path
    start: int
    count: int
    change: Change | None = None


class RunWriter:
    """Takes values in any order and appends them to one file as sorted runs of `run_values`."""

    def __init__(self, path: Path, run_values: int) -> None:
        self._path = path
        self._run_values = run_values
        self._pending: list[Values] = []
        self._num_pending = 0
        self.counts: list[int] = []
        path.write_bytes(b"")

    def add(self, values: Values) -> None:
        for start in range(0, len(values), self._run_values):
            part = values[start : start + self._run_values]
            if self._num_pending + len(part) > self._run_values:
                self.flush()
            self._pending.append(part)
            self._num_pending += len(part)

    def flush(self) -> None:
        if self._num_pending:
            with self._path.open("ab") as file:
                np.sort(np.concatenate(self._pending)).astype("<u8", copy=False).tofile(file)
            self.counts.append(self._num_pending)
            self._pending, self._num_pending = [], 0

    def runs(self) -> list[Run]:
        """What was added, as runs to merge."""
        self.flush()
        return runs_of(self._path, self.counts)


def runs_of(path: Path, counts: Sequence[int], change: Change | None = None) -> list[Run]:
    """Runs that stand end to end in one file."""
    starts = np.cumsum([0, *counts]).tolist()
    return [Run(path, start, count, change) for start, count in zip(starts, counts, strict=False)]


def merged_blocks(runs: Sequence[Run], memory_bytes: int, shift: int = 0) -> Iterator[Values]:
    """All values of the runs, sorted, in blocks that end between groups; a group is equal in the bits from `shift`."""
    least_share = share = max(1, memory_bytes // (_VALUE_BYTES * max(1, len(runs))))
    readers = [_Reader(run, shift) for run in runs if run.count]
    while readers:
        for reader in readers:
            reader.fill(share)
        # No run knows more about the groups from this one on than what it has read.
        unread = [reader.last_group for reader in readers if not reader.is_read]
        parts = [reader.take(min(unread) if unread else None) for reader in readers]
        if not any(len(part) for part in parts):
            share *= 2  # one group fills all that was read
            continue
        share = least_share
        readers = [reader for reader in readers if not reader.is_empty]
        block = np.concatenate(parts)
        block.sort(kind="stable")  # by merging, which what is sorted in pieces takes well
        yield block


class _Reader:
    """One run, read forward."""

    def __init__(self, run: Run, shift: int) -> None:
        self._run = run
        self._shift = np.uint64(shift)
        self._next = 0
        self._held: Values = np.empty(0, dtype=np.uint64)

    @property
    def is_read(self) -> bool:
        return self._next == self._run.count

    @property
    def is_empty(self) -> bool:
        return self.is_read and not len(self._held)

    @property
    def last_group(self) -> int:
        return int(self._held[-1] >> self._shift)

    def fill(self, share: int) -> None:
        size = min(share - len(self._held), self._run.count - self._next)
        if size <= 0:
            return
        read = np.fromfile(self._run.path, "<u8", size, offset=_VALUE_BYTES * (self._run.start + self._next))
        if len(read) < size:
            raise DataError(f"{self._run.path}: cut short while it was being read; write it again")
        self._next += size
        if self._run.change is not None:
            read = self._run.change(read)
        self._held = np.concatenate([self._held, read]) if len(self._held) else read

    def take(self, group: int | None) -> Values:
        """The held values of groups before `group`, all without one."""
        cut = len(self._held)
        if group is not None:
            cut = int(np.searchsorted(self._held >> self._shift, np.uint64(group)))
        taken, self._held = self._held[:cut], self._held[cut:]
        return taken
