"""Which texts of a batch may repeat themselves too much: upper bounds that acquit nearly all texts, and quickly.

N-grams are counted by the bucket that their hash falls into, over the whole batch at once, and a longer n-gram is
looked at only where the shorter ones at its first and second word share their bucket with another. A bucket can
only count too many, so no repetition is missed. Sorting, which counts exactly, is left for what remains.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gradus.data.filters.segments import Segments, joined, mixed, sampled_hashes

# Of buckets to n-grams: the share of single n-grams that fall into one bucket with another is about the inverse.
_BUCKETS_EACH = 4
_BREAK = 2  # bytes between lines that lie in different paragraphs: two line feeds


def may_repeat_lines(
    lines: Segments, sizes: NDArray[np.int64], most_share: float | None, most_characters: float | None
) -> NDArray[np.bool_]:
    """Whether a text's duplicate lines or paragraphs may break a limit, (D,), white space at its ends aside.

    sizes: (D,) characters; most_share: of lines or paragraphs; most_characters: of the characters.
    """
    num_texts = len(sizes)
    # Every line of a duplicate paragraph is a duplicate line, and equal lines look the same in a sample.
    keys = sampled_hashes(lines) + mixed(lines.text_of.astype(np.uint64))
    later = _later(np.arange(len(keys)), keys)
    num_later = np.bincount(lines.text_of[later], minlength=num_texts)
    bytes_later = np.bincount(lines.text_of[later], weights=lines.num_bytes[later], minlength=num_texts)
    suspect = np.zeros(num_texts, dtype=bool)
    if most_share is not None:
        same_text = lines.text_of[1:] == lines.text_of[:-1]
        breaks = np.flatnonzero((lines.starts[1:] - lines.ends[:-1] >= _BREAK) & same_text)
        num_paragraphs = np.bincount(lines.text_of[breaks], minlength=num_texts) + 1
        suspect |= num_later >= most_share * np.minimum(num_paragraphs, lines.counts)
    if most_characters is not None:
        # A paragraph has line feeds besides its lines.
        suspect |= bytes_later + num_later >= most_characters * sizes
    return suspect & (num_later > 0)


def may_repeat_ngrams(
    words: Segments, sizes: NDArray[np.int64], top: Mapping[int, float], duplicate: Mapping[int, float]
) -> NDArray[np.bool_]:
    """Whether a text's n-grams may break a limit, (D,). sizes: (D,) characters; top, duplicate: limits by n >= 2."""
    suspect = np.zeros(len(sizes), dtype=bool)
    first_duplicate = min(duplicate, default=0)
    least_duplicate = min(duplicate.values(), default=0.0)
    ends = np.zeros(len(words.starts) + 1, dtype=np.int64)  # of each word, in bytes without white space
    np.cumsum(words.num_bytes, out=ends[1:])
    places, keys = _pairs(words)
    for n in range(2, max([first_duplicate, *top], default=1) + 1):
        if n in top:
            # Where nothing repeats, the first n-gram is the most frequent one.
            first = words.offsets[:-1][words.counts >= n]
            suspect |= _most(ends, words, first, np.ones_like(first), n) >= top[n] * sizes
        if not len(places):
            continue
        counts = _bucket_counts(keys)
        if n in top:
            suspect |= _most(ends, words, places, counts, n) >= top[n] * sizes
        kept = np.flatnonzero(counts > 1)
        places, keys = places[kept], keys[kept]
        if n == first_duplicate:
            suspect |= _covered(ends, words, _later(places, keys), n) >= least_duplicate * sizes
        neighbours = np.flatnonzero(places[1:] == places[:-1] + 1)
        places, keys = places[neighbours], joined(keys[neighbours], keys[neighbours + 1])
    return suspect


def _pairs(words: Segments) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where two words of one text begin, and keys that are equal where the words and the text are."""
    places = np.flatnonzero(words.text_of[1:] == words.text_of[:-1])
    salts = mixed(np.arange(len(words.offsets), dtype=np.uint64))
    return places, joined(words.hashes[places] + salts[words.text_of[places]], words.hashes[places + 1])


def _bucket_counts(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """At least how often each key occurs."""
    bits = max(8, (_BUCKETS_EACH * len(keys)).bit_length())
    buckets = (keys >> np.uint64(64 - bits)).astype(np.int64)
    counts: NDArray[np.int64] = np.bincount(buckets)[buckets]
    return counts


def _later(places: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The places, in order, whose key has occurred before."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return np.sort(places[order[1:][ordered[1:] == ordered[:-1]]])


def _most(
    ends: NDArray[np.int64], words: Segments, places: NDArray[np.int64], counts: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """The largest bytes, with spaces, times count of the n-grams at some places of each text, (D,); 0 without any."""
    most = np.zeros(len(words.offsets) - 1, dtype=np.int64)
    if len(places):
        texts = words.text_of[places]
        firsts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(texts[1:] != texts[:-1]) + 1])
        values = counts * (ends[places + n] - ends[places] + n - 1)
        most[texts[firsts]] = np.maximum.reduceat(values, firsts)
    return most


def _covered(ends: NDArray[np.int64], words: Segments, places: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """The bytes of each text's words that the n-grams at these places cover, each once, (D,)."""
    begins = places.copy()
    begins[1:] = np.maximum(places[1:], places[:-1] + n)
    covered = ends[places + n] - ends[begins]
    totals = np.bincount(words.text_of[places], weights=covered, minlength=len(words.offsets) - 1)
    return totals.astype(np.float64)
