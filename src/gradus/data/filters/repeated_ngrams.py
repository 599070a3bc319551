"""Which n-grams of one text occur more than once, for n = 1, 2, 3, ... in turn, exactly.

An n-gram can repeat only where the (n-1)-grams at its first and its second word do. So all words are grouped
once, for n = 2, and every longer n looks at the few places that are left: real text has a third of its words in
repeated 2-grams, and a fiftieth in repeated 5-grams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RepeatedNgrams:
    """The repeated n-grams of one text, from n = 2 upwards.

    ids: (W,) word numbers below num_words. After `advance_to(n)`: `positions`, in text order, where n-grams that
    occur at least twice begin, and `groups`, equal where the n-grams are; both (R,).
    """

    def __init__(self, ids: NDArray[np.int64], num_words: int) -> None:
        self.n = 2
        pairs = ids[:-1] * num_words + ids[1:]
        self.positions, self.groups = _repeated(np.arange(len(pairs)), pairs)

    def advance_to(self, n: int) -> None:
        """Look at longer n-grams; n may not fall."""
        if n < self.n:
            raise ValueError(f"n-grams of {n} words are asked for after those of {self.n}")
        while self.n < n:
            self.n += 1
            neighbours = np.flatnonzero(np.diff(self.positions) == 1)
            num_groups = int(self.groups.max()) + 1 if len(self.groups) else 0
            # An n-gram is known by the (n-1)-grams at its first and its second word.
            pairs = self.groups[neighbours] * num_groups + self.groups[neighbours + 1]
            self.positions, self.groups = _repeated(self.positions[neighbours], pairs)

    def most_frequent(self) -> tuple[int, int]:
        """(first position, count) of the most frequent n-gram, the earliest where several are; (0, 1) if none repeats.

        Counts overlapping occurrences.
        """
        if not len(self.positions):
            return 0, 1
        counts = np.bincount(self.groups)
        most = int(counts.max())
        return int(self.positions[np.argmax(counts[self.groups] == most)]), most

    def duplicate_positions(self) -> list[int]:
        """Where n-grams stand that were met before, from left to right and without overlap.

        An n-gram inside a duplicate is neither counted nor remembered as met.
        """
        met: set[int] = set()
        found: list[int] = []
        free = 0
        for position, group in zip(self.positions.tolist(), self.groups.tolist(), strict=True):
            if position < free:
                continue
            if group in met:
                found.append(position)
                free = position + self.n
            else:
                met.add(group)
        return found


def _repeated(positions: NDArray[np.int64], keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of increasing positions, those whose key occurs twice or more, and numbers for their keys."""
    count = len(keys)
    if not count:
        return positions, keys
    bits = count.bit_length()
    if int(keys.max()) < 1 << (63 - bits):
        # Places in the low bits: a plain sort, which is quicker than one that returns places, then gives both.
        mixed = np.sort((keys << bits) | np.arange(count))
        places, ordered = mixed & ((1 << bits) - 1), mixed >> bits
    else:
        places = np.argsort(keys, kind="stable")
        ordered = keys[places]
    # A key is repeated where it equals a neighbour; its number is how many different ones stand before it.
    same = np.zeros(count + 1, dtype=bool)
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    repeated = np.flatnonzero(same[1:] | same[:-1])
    if not len(repeated):
        return positions[:0], keys[:0]
    numbers = np.cumsum(~same[:-1][repeated]) - 1
    groups = np.full(count, -1, dtype=np.int64)
    groups[places[repeated]] = numbers
    kept = np.flatnonzero(groups >= 0)
    return positions[kept], groups[kept]
