"""Repeated n-grams of many texts at once, and of one text exactly.

An n-gram can repeat only where the (n-1)-grams at its first and its second word do. For a batch n-grams are counted by
the bucket that their hash falls into: this can only count too many, so no repetition is missed, and a longer n-gram is
looked at only where both shorter ones share their bucket. In real text few places are left at n = 5. Sorting, which
counts exactly, is for the texts that these bounds do not acquit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradus.data.filters.segments import Segments, joined, mixed

# Of buckets to n-grams: about the inverse of the share of single n-grams that meet another in their bucket.
_BUCKETS_EACH = 4


@dataclass(frozen=True)
class Candidates:
    """Where n-grams of a batch that may occur twice in their text begin, in order.

    places, keys, counts: (R,), numbers of words, hashes that are equal where n-gram and text are, and at least how
    often each occurs.
    """

    n: int
    places: NDArray[np.int64]
    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]

    def of(self, start: int, stop: int) -> RepeatedNgrams:
        """Exactly those of the text whose words are start ... stop - 1; positions are in the text."""
        mine = slice(*np.searchsorted(self.places, [start, stop]))
        return RepeatedNgrams(self.n, self.places[mine] - start, self.keys[mine])


def candidates(words: Segments, longest: int) -> Iterator[Candidates]:
    """The candidates for n = 2, 3, ... longest."""
    if len(words.starts) < 2:
        return
    salts = mixed(np.arange(len(words.offsets) - 1, dtype=np.uint64))
    salted = words.hashes + np.repeat(salts, words.counts)
    keys = joined(salted[:-1], salted[1:])
    counts = _bucket_counts(keys)
    counts[words.text_of[1:] != words.text_of[:-1]] = 0
    places = np.flatnonzero(counts > 1)
    keys, counts = keys[places], counts[places]
    for n in range(2, longest + 1):
        yield Candidates(n, places, keys, counts)
        neighbours = np.flatnonzero(places[1:] == places[:-1] + 1)
        keys = joined(keys[neighbours], keys[neighbours + 1])
        counts = _bucket_counts(keys)
        shared = np.flatnonzero(counts > 1)
        places, keys, counts = places[neighbours[shared]], keys[shared], counts[shared]


def largest_ngrams(words: Segments, ends: NDArray[np.int64], found: Candidates) -> NDArray[np.int64]:
    """At least the bytes of each text's most frequent n-gram, with spaces, times its count, (D,).

    ends: (S + 1,) bytes of the words before each word. Where no n-gram repeats, the first one counts, once.
    """
    n = found.n
    largest = np.zeros(len(words.offsets) - 1, dtype=np.int64)
    texts = np.flatnonzero(words.counts >= n)
    first = words.offsets[texts]
    largest[texts] = ends[first + n] - ends[first] + n - 1
    if len(found.places):
        text_of = words.text_of[found.places]
        firsts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(text_of[1:] != text_of[:-1]) + 1])
        values = found.counts * (ends[found.places + n] - ends[found.places] + n - 1)
        texts = text_of[firsts]
        largest[texts] = np.maximum(largest[texts], np.maximum.reduceat(values, firsts))
    return largest


def covered_bytes(words: Segments, ends: NDArray[np.int64], found: Candidates) -> NDArray[np.int64]:
    """At least the bytes that all duplicates of this or a greater length cover in each text, (D,). ends: as above."""
    # All but the first of each n-gram.
    order, ordered = _in_order(found.keys)
    places = np.sort(found.places[order[1:][ordered[1:] == ordered[:-1]]])
    begins = places.copy()
    begins[1:] = np.maximum(places[1:], places[:-1] + found.n)
    summed = np.zeros(len(places) + 1, dtype=np.int64)
    np.cumsum(ends[places + found.n] - ends[begins], out=summed[1:])
    return np.diff(summed[np.searchsorted(places, words.offsets)])


class RepeatedNgrams:
    """The n-grams of one text that occur at least twice.

    n, positions, keys: where such n-grams may begin, increasing, and hashes that tell them apart. Afterwards
    `positions`, where they do, and `groups`, equal where the n-grams are; both (R,).
    """

    def __init__(self, n: int, positions: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        self.n = n
        self.positions, self.groups = _repeated(positions, keys)

    def advance_to(self, n: int) -> None:
        """Look at longer n-grams; n may not fall."""
        if n < self.n:
            raise ValueError(f"n-grams of {n} words are asked for after those of {self.n}")
        while self.n < n:
            self.n += 1
            neighbours = np.flatnonzero(self.positions[1:] == self.positions[:-1] + 1)
            # An n-gram is known by the (n-1)-grams at its first and its second word.
            pairs = self.groups[neighbours] * len(self.positions) + self.groups[neighbours + 1]
            self.positions, self.groups = _repeated(self.positions[neighbours], pairs.view(np.uint64))

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


def _bucket_counts(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """At least how often each key occurs."""
    bits = max(8, (_BUCKETS_EACH * len(keys)).bit_length())
    buckets = (keys >> np.uint64(64 - bits)).view(np.int64)
    counts: NDArray[np.int64] = np.bincount(buckets)[buckets] if len(keys) else buckets
    return counts


def _repeated(positions: NDArray[np.int64], keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of increasing positions, those whose key occurs twice or more, and numbers for their keys."""
    count = len(keys)
    order, ordered = _in_order(keys)
    # A key is repeated where it equals a neighbour; its number is how many different ones stand before it.
    same = np.zeros(count + 1, dtype=bool)
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    repeated = np.flatnonzero(same[1:] | same[:-1])
    groups = np.full(count, -1, dtype=np.int64)
    groups[order[repeated]] = np.cumsum(~same[:-1][repeated]) - 1
    kept = np.flatnonzero(groups >= 0)
    return positions[kept], groups[kept]


def _in_order(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """An order in which equal keys are neighbours, and the keys in it."""
    bits = len(keys).bit_length()
    # Places in the low bits: a plain sort, which is quicker than one that returns places, then gives both.
    low = np.uint64((1 << bits) - 1)
    packed = (mixed(keys) & ~low) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & low).view(np.int64)
    ordered = keys[order]
    collides = (packed[1:] & ~low) == (packed[:-1] & ~low)
    if (collides & (ordered[1:] != ordered[:-1])).any():
        # Different keys that are equal but for the bits given up may lie between equal ones.
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
    return order, ordered
