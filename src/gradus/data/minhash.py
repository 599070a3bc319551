"""MinHash signatures of many texts at once, and the band keys by which near-duplicates are found.

A text is the set of its word n-grams (shingles; words as `shingles` defines them). The share of places in which
two signatures agree estimates the Jaccard similarity J of the two sets without bias, with variance at most about
J(1 - J) / places. Two texts meet as candidates when all rows of one band agree, which happens with probability
1 - (1 - J^rows)^bands: .92 at J = .8 and .13 at J = .5 for 14 bands of 8 (Leskovec, Rajaraman, Ullman, Mining of
Massive Datasets, ch. 3; 14 x 8 as FineWeb, Penedo et al. 2024).

Method: fast similarity sketching (Dahlgaard, Knudsen, Thorup 2017, algorithm 1) instead of one hash function a
place. In round i every shingle falls into one place by its hash of that round and each place keeps the least
value; a place that an earlier round has filled stays. Rounds go on until every place is filled, so a text of n
shingles costs about max(n, p ln p) steps for p places, not n p, and short texts keep independent places. After p
rounds a further one looks at one place only, which ends it.

A text of fewer words than an n-gram has no shingles: its signature is zero, it has no band keys, and it is never a
near-duplicate (exact duplicates are another matter).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gradus.core.fingerprint import digest
from gradus.core.settings import Settings
from gradus.data.shingles import WORDS_VERSION, Hashes, Offsets, ngram_hashes, word_hashes

MINHASH_VERSION = 1
Signatures = NDArray[np.uint16]

# Texts in the inner loop at a time, so that their places stay in cache, and shingles of a long text.
_CHUNK_TEXTS = 1024
_CHUNK_SHINGLES = 1 << 16
_EMPTY = np.uint64((1 << 64) - 1)
_GOLDEN = 0x9E3779B97F4A7C15
_MODULUS = 1 << 64


class MinHashSettings(Settings):
    """What a signature is made of, and when two texts count as near-duplicates.

    ngram: words in a shingle. bands, rows: a signature has bands x rows places; more bands of fewer rows find more
    of the similar pairs and more candidates to check. threshold: the estimated Jaccard similarity from which a pair
    counts. leaders: texts of one bucket (equal in a band) that the others of the bucket are compared with.
    seed: of the hash functions.
    """

    ngram: int = Field(default=5, ge=1, le=64)
    bands: int = Field(default=14, ge=1, le=256)
    rows: int = Field(default=8, ge=1, le=64)
    threshold: float = Field(default=0.72, gt=0, le=1)
    leaders: int = Field(default=8, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def places(self) -> int:
        return self.bands * self.rows

    @property
    def sketch_fingerprint(self) -> str:
        """Of all that decides signatures and band keys; the threshold and the leaders come later."""
        made_of = [self.ngram, self.bands, self.rows, self.seed]
        return digest({"minhash": MINHASH_VERSION, "words": WORDS_VERSION, "settings": made_of})


def signatures(texts: Sequence[str], settings: MinHashSettings) -> Signatures:
    """uint16 (texts, places); zero for a text without shingles."""
    words, offsets = word_hashes(texts)
    return shingle_signatures(*ngram_hashes(words, offsets, settings.ngram), settings)


def shingle_signatures(shingles: Hashes, offsets: Offsets, settings: MinHashSettings) -> Signatures:
    """Signatures from 64-bit hashes of shingles, those of text i at [o[i], o[i + 1]); repeats change nothing."""
    made = np.zeros((len(offsets) - 1, settings.places), dtype=np.uint16)
    filled = np.flatnonzero(np.diff(offsets))
    for first in range(0, len(filled), _CHUNK_TEXTS):
        rows = filled[first : first + _CHUNK_TEXTS]
        # Texts without shingles take no room between these.
        begin, end = int(offsets[rows[0]]), int(offsets[rows[-1] + 1])
        least = _least_values(shingles[begin:end], np.diff(offsets)[rows], settings)
        made[rows] = (_spread(least) >> np.uint64(48)).astype(np.uint16)
    return made


def band_keys(signed: Signatures, settings: MinHashSettings) -> Hashes:
    """uint64 (texts, bands): equal where all rows of a band are; meaningless for a text without shingles."""
    columns = signed.reshape(-1, settings.bands, settings.rows)
    keys = np.full(columns.shape[:2], 0, dtype=np.uint64)
    keys += np.arange(settings.bands, dtype=np.uint64)
    for row in range(settings.rows):
        keys *= np.uint64(_GOLDEN)
        keys += columns[:, :, row]
    return _spread(keys)


def similarities(one: Signatures, other: Signatures) -> NDArray[np.float32]:
    """The estimated Jaccard similarity of each pair of rows."""
    estimates: NDArray[np.float32] = np.mean(one == other, axis=1, dtype=np.float32)
    return estimates


def _least_values(shingles: Hashes, counts: NDArray[np.int64], settings: MinHashSettings) -> Hashes:
    """(texts, places): the round, above the least value of that round, of each place."""
    places = settings.places
    round_bits = np.uint64((2 * places).bit_length())
    factors = _factors(settings.seed, places)
    table = np.full((len(counts), places), _EMPTY, dtype=np.uint64)
    least = table.reshape(-1)
    rows = np.arange(len(counts))  # texts with empty places
    owners = np.repeat(rows * places, counts)
    for turn in range(2 * places):
        for start in range(0, len(shingles), _CHUNK_SHINGLES):
            part = slice(start, start + _CHUNK_SHINGLES)
            values = shingles[part] * np.uint64(factors[turn])
            place = values >> np.uint64(64 - 16)
            place *= np.uint64(places)
            place >>= np.uint64(16)
            where = place.view(np.int64) if turn < places else np.full(len(values), turn - places)
            where += owners[part]
            values >>= round_bits
            if turn:
                values |= np.uint64(turn << (64 - int(round_bits)))
            np.minimum.at(least, where, values)
        is_open = (table if len(rows) == len(table) else table[rows]).max(axis=1) == _EMPTY
        if not is_open.any():
            break
        # Dropping the others costs as much as a round of theirs.
        if np.count_nonzero(is_open) < 0.7 * len(rows):
            still = np.repeat(is_open, counts)
            rows, counts, shingles, owners = rows[is_open], counts[is_open], shingles[still], owners[still]
    return table


def _spread(values: Hashes) -> Hashes:
    spread = values ^ (values >> np.uint64(32))
    spread *= np.uint64(_GOLDEN)
    spread ^= spread >> np.uint64(29)
    spread *= np.uint64(_GOLDEN)
    return spread


@lru_cache(maxsize=8)
def _factors(seed: int, places: int) -> tuple[int, ...]:
    """An odd multiplier a round, from splitmix64 (Steele, Lea, Flood 2014)."""
    factors = []
    for turn in range(1, 2 * places + 1):
        state = (seed * 0xD1342543DE82EF95 + turn * _GOLDEN) % _MODULUS
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % _MODULUS
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % _MODULUS
        factors.append((state ^ (state >> 31)) | 1)
    return tuple(factors)
