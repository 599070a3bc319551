"""Pack plans: which pieces of which documents stand in which row.

Method: best-fit decreasing (Johnson 1973). Pieces are placed longest first, each into the row with the least
free space that still holds it. Rows with equal free space are interchangeable, and best-fit puts equal pieces
into one row until it is full; so all pieces of one length go to all rows of one free space in a single array
operation, and the next free space comes from a bitmap: the number of operations depends on the row length,
not on the pieces. Rows fill exactly as in the one-by-one algorithm; the tests keep that slow version.

Mode "crop" is for comparison: best-fit cropping as in nanochat's loader (Karpathy 2025), which fills every row by
cutting a document short and throws the rest of it away.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradus.core.errors import DataError

Int64 = NDArray[np.int64]
# A kept plan is known by it: change it with any change of what stands in which row.
PLAN_VERSION = 1
PackMode = Literal["fragments", "whole", "tight", "crop"]
# Best-fit decreasing stands where it needs at most this share more rows than any packing must.
TIGHT_FRACTION = 0.001
# Documents that cropping chooses among, as many as nanochat's loader holds.
_CROP_CHOICE = 1000


@dataclass(frozen=True)
class PackPlan:
    """Rows of pieces. Piece i is tokens [offset[i], offset[i] + length[i]) of document[i].

    row_length: the most tokens a row holds. row_starts: (rows + 1,), row r holds pieces
    [row_starts[r], row_starts[r + 1]). document, offset, length: (pieces,).
    """

    row_length: int
    row_starts: Int64
    document: Int64
    offset: Int64
    length: Int64

    @property
    def num_rows(self) -> int:
        return len(self.row_starts) - 1

    @property
    def num_pieces(self) -> int:
        return len(self.document)

    @property
    def num_tokens(self) -> int:
        """Tokens over all rows, each placed token counted once."""
        return int(self.length.sum())

    @property
    def fill_fraction(self) -> float:
        """Tokens over row space; 0 for an empty plan."""
        return self.num_tokens / (self.num_rows * self.row_length) if self.num_rows else 0.0

    @property
    def mean_context(self) -> float:
        """Positions that a token attends to on average, itself included; for FLOPs. 0 for an empty plan."""
        attended = (self.length * (self.length + 1) // 2).sum()
        return float(attended / self.num_tokens) if self.num_pieces else 0.0

    def statistics(self) -> dict[str, int | float]:
        """Counts for an artifact's results."""
        return {
            "rows": self.num_rows,
            "row_length": self.row_length,
            "pieces": self.num_pieces,
            "documents": len(np.unique(self.document)),
            "tokens": self.num_tokens,
            "fill_fraction": self.fill_fraction,
            "mean_context": self.mean_context,
        }


def pack_plan(
    lengths: ArrayLike,
    row_length: int,
    mode: PackMode = "fragments",
    *,
    documents: ArrayLike | None = None,
) -> PackPlan:
    """Pack documents of these token lengths into rows of at most `row_length` tokens.

    lengths: (documents,). mode: "fragments" cuts a longer document into full rows and a rest, and loses no token;
    "whole" refuses it (the length policy comes before); "tight" does too, and searches for fewer rows where best-fit
    decreasing leaves room (pack_tight.py); "crop" fills rows by cutting documents short and loses their
    ends. documents: which documents to place, repeats allowed, for a mixture; all of them once where absent. The
    plan depends on nothing else: same lengths, same plan.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    chosen = np.arange(len(lengths)) if documents is None else np.asarray(documents, dtype=np.int64)
    if mode == "crop":
        _checked(lengths, chosen, row_length)
        return _cropped(lengths, chosen, row_length)
    document, offset, length = _pieces(lengths, chosen, row_length, mode)
    row = _best_fit_decreasing(length, row_length)
    if mode == "tight":
        row = _tightened(row, length, row_length)
    order = np.argsort(row, kind="stable")
    num_rows = int(row.max()) + 1 if len(row) else 0
    row_starts = np.zeros(num_rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=num_rows), out=row_starts[1:])
    return PackPlan(row_length, row_starts, document[order], offset[order], length[order])


def unpacked_plan(lengths: ArrayLike, *, documents: ArrayLike | None = None) -> PackPlan:
    """One document a row, for steps that count documents (preference pairs) and not tokens."""
    lengths = np.asarray(lengths, dtype=np.int64)
    chosen = np.arange(len(lengths)) if documents is None else np.asarray(documents, dtype=np.int64)
    longest = int(lengths[chosen].max()) if len(chosen) else 0
    document, offset, length = _pieces(lengths, chosen, max(1, longest), "whole")
    return PackPlan(max(1, longest), np.arange(len(document) + 1, dtype=np.int64), document, offset, length)


def _pieces(lengths: Int64, chosen: Int64, row_length: int, mode: str) -> tuple[Int64, Int64, Int64]:
    """(document, offset, length) of each piece; a long document gives full rows and a rest."""
    picked = _checked(lengths, chosen, row_length)
    if mode in ("whole", "tight") and len(picked) and picked.max() > row_length:
        too_long = np.unique(chosen[picked > row_length])
        raise DataError(
            f"{len(too_long)} documents are longer than the row of {row_length} tokens "
            f"(document {too_long[0]} has {lengths[too_long[0]]}); apply a length policy first"
        )
    if mode not in ("whole", "tight", "fragments"):
        raise DataError(f'pack mode must be "fragments", "whole", "tight" or "crop", found "{mode}"')
    num_pieces = -(-picked // row_length)
    document = np.repeat(chosen, num_pieces)
    first = np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
    offset = (np.arange(len(document)) - first) * row_length
    length = np.minimum(np.repeat(picked, num_pieces) - offset, row_length)
    return document, offset, length


def _checked(lengths: Int64, chosen: Int64, row_length: int) -> Int64:
    """The lengths of the chosen documents. Errors: DataError where one cannot be packed."""
    if row_length < 1:
        raise DataError(f"row_length must be at least 1, found {row_length}")
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(lengths)):
        raise DataError(f"documents to place must be within 0..{len(lengths) - 1}")
    picked = lengths[chosen]
    if len(picked) and picked.min() < 1:
        index = int(chosen[np.argmin(picked)])
        raise DataError(f"document {index} has {lengths[index]} tokens; a packed document has at least one")
    return picked


def _cropped(lengths: Int64, chosen: Int64, row_length: int) -> PackPlan:
    """Of the documents at hand the longest that fits; where none does, the shortest, cut to the space that is left."""
    waiting = list(zip(lengths[chosen].tolist(), range(len(chosen)), strict=True))
    ready = sorted(waiting[:_CROP_CHOICE])  # by length, then by arrival
    placed, row_starts, taken = [], [0], len(ready)
    lengths_placed: list[int] = []
    while ready:
        space = row_length
        while space and ready:
            fits = bisect_right(ready, (space, len(chosen)))
            index = bisect_left(ready, (ready[fits - 1][0], -1)) if fits else 0
            length, arrival = ready.pop(index)
            placed.append(arrival)
            lengths_placed.append(min(length, space))
            space -= lengths_placed[-1]
            if taken < len(waiting):
                insort(ready, waiting[taken])
                taken += 1
        row_starts.append(len(placed))
    document = chosen[np.array(placed, dtype=np.int64)]
    length_placed = np.array(lengths_placed, dtype=np.int64)
    return PackPlan(row_length, np.array(row_starts), document, np.zeros_like(document), length_placed)


def _tightened(row: Int64, length: Int64, row_length: int) -> Int64:
    """The rows, or fewer where there are fewer."""
    from gradus.data.pack_tight import MOST_ROW_LENGTH, least_rows, tight_rows

    num_rows = int(row.max()) + 1 if len(row) else 0
    if row_length > MOST_ROW_LENGTH or num_rows <= (1 + TIGHT_FRACTION) * least_rows(length, row_length):
        return row
    other = tight_rows(length, row_length)
    return other if int(other.max()) + 1 < num_rows else row


def _best_fit_decreasing(length: Int64, row_length: int) -> Int64:
    """The row of each piece; rows are numbered in the order in which they are opened."""
    order = np.argsort(-length, kind="stable")
    sizes, first, counts = np.unique(-length[order], return_index=True, return_counts=True)
    row = np.empty(len(length), dtype=np.int64)
    free = _FreeRows()
    num_rows = 0
    for size, start, count in zip((-sizes).tolist(), first.tolist(), counts.tolist(), strict=True):
        placed, end = start, start + count
        while placed < end:
            space = free.least_space(size)
            if space is None:
                space, num_taken = row_length, -(-(end - placed) // (row_length // size))
                rows = np.arange(num_rows, num_rows + num_taken)
                num_rows += num_taken
            else:
                rows = free.take(space, -(-(end - placed) // (space // size)))
            # Best-fit keeps to one row until it is full for this size: `each` pieces, fewer in the last row.
            each = space // size
            num_here = min(end - placed, each * len(rows))
            row[order[placed : placed + num_here]] = np.repeat(rows, each)[:num_here]
            placed += num_here
            in_last = num_here - each * (len(rows) - 1)
            if in_last == each:
                free.put(space - each * size, rows)
            else:
                free.put(space - each * size, rows[:-1])
                free.put(space - in_last * size, rows[-1:])
    return row


class _FreeRows:
    """Rows by free space: a stack of row arrays for each space, and a bitmap of the spaces that hold any."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Int64]] = {}
        self._bitmap = 0

    def least_space(self, size: int) -> int | None:
        """The smallest free space of at least `size` tokens that some row has."""
        fitting = self._bitmap >> size
        return size + (fitting & -fitting).bit_length() - 1 if fitting else None

    def take(self, space: int, most: int) -> Int64:
        """Remove and return rows with this free space, at most `most` and at least one."""
        stack = self._rows[space]
        rows = stack.pop()
        if len(rows) > most:
            stack.append(rows[most:])
            rows = rows[:most]
        if not stack:
            self._bitmap &= ~(1 << space)
        return rows

    def put(self, space: int, rows: Int64) -> None:
        if space and len(rows):
            self._rows.setdefault(space, []).append(rows)
            self._bitmap |= 1 << space
