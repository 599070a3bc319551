"""Tighter packing of whole documents where best-fit decreasing leaves room, and the fewest rows that any packing needs.

Method: each row begins with the longest document that is left and is filled by the combination of lengths that comes
nearest to its end, with the fewest documents among those as good to within a token (minimum bin slack, Gupta and Ho
1999, here over counts of lengths: all rows of one combination at once). Sums that lengths can make are bits of an
integer, one for each number of documents, so that the work depends on the row length and not on the documents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
# Sums are found again whenever a length runs out, which takes too long for longer rows; those are full without it.
MOST_ROW_LENGTH = 1024
_MOST_DOCUMENTS = 48
_SLACK_TOKENS = 1
_FEW = 4  # of a length, below which sums are found again, since they do not know how many there are


def least_rows(lengths: Int64, row_length: int) -> int:
    """Rows that any packing needs: the bound L2 of Martello and Toth (1990), over all its parameters."""
    if not len(lengths):
        return 0
    counts = np.bincount(lengths, minlength=row_length + 1)
    number, size = np.cumsum(counts), np.cumsum(counts * np.arange(row_length + 1))
    half = row_length // 2
    k = np.arange(half + 1)
    top = row_length - k
    alone = number[-1] - number[top]
    large = number[top] - number[half]
    room = large * row_length - (size[top] - size[half])
    small = size[half] - np.where(k > 0, size[np.maximum(k - 1, 0)], 0)
    bounds = alone + large + np.maximum(0, -(-(small - room) // row_length))
    return int(max(bounds.max(), -(-size[-1] // row_length)))


def tight_rows(lengths: Int64, row_length: int) -> Int64:
    """The row of each document; every length is within 1..row_length, and row_length at most MOST_ROW_LENGTH."""
    order = np.argsort(-lengths, kind="stable")
    sizes, first, numbers = np.unique(-lengths[order], return_index=True, return_counts=True)
    place = dict(zip((-sizes).tolist(), first.tolist(), strict=True))
    left = dict(zip((-sizes).tolist(), numbers.tolist(), strict=True))
    row = np.empty(len(lengths), dtype=np.int64)
    num_rows, sums = 0, _sums(left, row_length)
    for longest in sorted(left, reverse=True):
        while left[longest]:
            taken = _combination(longest, row_length - longest, left, sums)
            times = min(left[size] // count for size, count in taken.items())
            for size, count in taken.items():
                rows = np.repeat(np.arange(num_rows, num_rows + times), count)
                row[order[place[size] : place[size] + len(rows)]] = rows
                place[size] += len(rows)
                left[size] -= len(rows)
            num_rows += times
            if any(left[size] < _FEW for size in taken):
                sums = _sums(left, row_length)
    return row


def _sums(left: dict[int, int], row_length: int) -> list[int]:
    """Bit s of entry n: whether n documents can have s tokens together, each length as often as need be."""
    within = (1 << (row_length + 1)) - 1
    sizes = [size for size, count in left.items() if count]
    found = [1]
    for _ in range(_MOST_DOCUMENTS):
        longer = 0
        for size in sizes:
            longer |= found[-1] << size
        longer &= within
        if not longer:
            break
        found.append(longer)
    return found


def _combination(longest: int, space: int, left: dict[int, int], sums: list[int]) -> dict[int, int]:
    """How many documents of each length stand in a row that begins with this one; no more than are left."""
    within = (1 << (space + 1)) - 1
    reached = [(bits & within).bit_length() - 1 for bits in sums]  # the largest sum that fits, -1 for none
    best = max(reached)
    number = next(n for n, total in enumerate(reached) if total >= best - _SLACK_TOKENS)
    taken, total = {longest: 1}, reached[number]
    for after in range(number - 1, -1, -1):
        size = _longest_left(min(total, longest), left, taken, sums[after], total)
        if not size:
            break
        taken[size] = taken.get(size, 0) + 1
        total -= size
    used = sum(size * count for size, count in taken.items()) - longest
    # A length ran short on the way: what is left of the space takes the longest document that fits.
    if used < best - _SLACK_TOKENS and (size := _longest_left(space - used, left, taken)):
        taken[size] = taken.get(size, 0) + 1
    return taken


def _longest_left(
    most: int, left: dict[int, int], taken: dict[int, int], rest: int | None = None, total: int = 0
) -> int:
    """The longest length up to `most` of which a document is left, after which the rest can be reached; else 0."""
    for size in range(most, 0, -1):
        if left.get(size, 0) > taken.get(size, 0) and (rest is None or rest >> (total - size) & 1):
            return size
    return 0
