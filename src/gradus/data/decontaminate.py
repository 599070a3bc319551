"""Evaluation items in training documents, found by their word n-grams.

The rule. Words are those of `shingles`, so case, punctuation and spacing do not matter. A text of an item is covered
by the share of its distinct n-grams that the document holds. A document is contaminated when it

- covers `coverage` or more of a text of n words or more (n = 13; 8 for mathematics), or
- holds all 8-grams of a shorter text of 8 words or more.

Shorter texts are not looked for, since clean prose holds them by chance: "What is the capital of France?" An item is
looked for by each of its texts (a short question is also joined to its answer, see `benchmarks`); `unchecked` names
the items of which no text is long enough. 13-grams are those of Brown et al. 2020 (GPT-3, appendix C), which removes
at one of them, a sentence quoted by both; coverage is that of Chowdhery et al. 2022 (PaLM, section 8), which asks
for 70 % of the 8-grams. Half is stricter than that, so that a question counts whose numbers or names were changed.

Method: all n-grams of all texts are one sorted array, behind a bitmap that tells most n-grams of a document apart
at one look. Only documents that hold n-grams of some item are looked at closer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gradus.core.fingerprint import digest
from gradus.core.settings import Settings
from gradus.data.benchmarks import BENCHMARK_TEXTS, BenchmarkItem, read_benchmark
from gradus.data.shingles import WORDS_VERSION, Hashes, Offsets, ngram_hashes, word_hashes

DECONTAMINATE_VERSION = 1

# A bitmap with two bits set of this many an n-gram lets about one in 70 through by chance (Bloom 1970).
_BITS_AN_NGRAM = 16
_LEAST_BITS = 16
_MOST_BITS = 31
_ITEM_BATCH = 1 << 12
_LOOKED_UP = 1 << 16  # n-grams at a time


class DecontaminationSettings(Settings):
    """short: words of the n-grams of texts with fewer words than their set's n. coverage: see the module."""

    coverage: float = Field(default=0.5, gt=0, le=1)
    short: int = Field(default=8, ge=1, le=64)


@dataclass(frozen=True)
class EvaluationSet:
    """Items to keep out of training. ngram: n of their texts; 13 for prose, 8 for mathematics."""

    name: str
    items: Iterable[BenchmarkItem]
    ngram: int = 13


@dataclass(frozen=True, slots=True)
class Contamination:
    """The item that a document covers most. coverage: share of its n-grams that the document holds."""

    set: str
    item: str
    coverage: float


def benchmark_sets(names: Iterable[str], folder: Path) -> list[EvaluationSet]:
    """Evaluation sets by the names that `read_benchmark` takes. Errors: DataError where one cannot be read."""
    sets = []
    for name in names:
        items = list(read_benchmark(name, folder))
        sets.append(EvaluationSet(name, items, BENCHMARK_TEXTS[name.partition(":")[0]].ngram))
    return sets


class Decontaminator:
    """Checks documents against evaluation sets; holds about 16 bytes for each of their n-grams."""

    def __init__(self, sets: Iterable[EvaluationSet], settings: DecontaminationSettings | None = None) -> None:
        self.settings = settings or DecontaminationSettings()
        self.num_items: dict[str, int] = {}  # by set
        self.unchecked: dict[str, list[str]] = {}  # ids, by set
        self._items: list[tuple[str, str]] = []  # (set, id), by text
        least: list[float] = []  # the coverage that contaminates, by text
        builders: dict[int, _NgramIndexBuilder] = {}
        known: set[bytes] = set()
        content = hashlib.sha256()
        for one in sets:
            checked = dict[str, bool]()
            for items in _batches(one.items):
                texts = [(item.id, text) for item in items for text in item.texts]
                checked |= {item.id: checked.get(item.id, False) for item in items}
                words, offsets = word_hashes([text for _, text in texts])
                for (identity, _), start, stop in zip(texts, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
                    n, needed = self._rule(stop - start, one.ngram)
                    if n is None:
                        continue
                    checked[identity] = True
                    own = words[start:stop]
                    content.update(f"{one.name}\0{identity}\0{n}\0".encode("utf-8", "replace") + own.tobytes())
                    key = hashlib.blake2b(own.tobytes() + bytes([n]), digest_size=16).digest()
                    if key not in known:
                        known.add(key)
                        builders.setdefault(n, _NgramIndexBuilder(n)).add(own, len(least))
                        self._items.append((one.name, identity))
                        least.append(needed)
            self.num_items[one.name] = len(checked)
            self.unchecked[one.name] = [identity for identity, is_checked in checked.items() if not is_checked]
        self._least = np.array(least)
        self._indices = [builders[n].finish(len(least)) for n in sorted(builders)]
        self.num_texts = len(least)
        self.fingerprint = digest(
            {
                "decontaminate": DECONTAMINATE_VERSION,
                "words": WORDS_VERSION,
                "settings": self.settings,
                "texts": content.hexdigest(),
            }
        )

    def check(self, texts: Sequence[str]) -> list[Contamination | None]:
        """For each document the item it covers most, the first of equals; None where it is clean."""
        words, offsets = word_hashes(texts)
        covered = [index.coverage(*ngram_hashes(words, offsets, index.n)) for index in self._indices]
        found: list[Contamination | None] = [None] * len(texts)
        if not covered:
            return found
        documents, numbers, coverage = (np.concatenate(parts) for parts in zip(*covered, strict=True))
        enough = coverage >= self._least[numbers]
        documents, numbers, coverage = documents[enough], numbers[enough], coverage[enough]
        # Backwards, so that the first and most covered is written last.
        for place in np.lexsort((numbers, -coverage, documents))[::-1].tolist():
            name, identity = self._items[int(numbers[place])]
            found[int(documents[place])] = Contamination(name, identity, float(coverage[place]))
        return found

    def _rule(self, num_words: int, ngram: int) -> tuple[int | None, float]:
        """(n, the coverage that contaminates) for a text of a set; None where the text is too short."""
        if num_words >= ngram:
            return ngram, self.settings.coverage
        return (self.settings.short if num_words >= self.settings.short else None), 1.0


def _batches(items: Iterable[BenchmarkItem]) -> Iterator[list[BenchmarkItem]]:
    items = iter(items)
    while batch := list(islice(items, _ITEM_BATCH)):
        yield batch


class _NgramIndexBuilder:
    """Collects texts of one n."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._words: list[Hashes] = []
        self._numbers: list[int] = []

    def add(self, words: Hashes, number: int) -> None:
        self._words.append(words)
        self._numbers.append(number)

    def finish(self, num_texts: int) -> _NgramIndex:
        offsets = np.cumsum([0, *map(len, self._words)])
        ngrams, bounds = ngram_hashes(np.concatenate(self._words), offsets, self._n)
        owners = np.repeat(np.array(self._numbers, dtype=np.int64), np.diff(bounds))
        order = np.lexsort((owners, ngrams))
        ngrams, owners = ngrams[order], owners[order]
        distinct = np.append(True, (ngrams[1:] != ngrams[:-1]) | (owners[1:] != owners[:-1]))
        return _NgramIndex(self._n, ngrams[distinct], owners[distinct], num_texts)


class _NgramIndex:
    """The n-grams of texts, each with the texts that hold it."""

    def __init__(self, n: int, ngrams: Hashes, owners: NDArray[np.int64], num_texts: int) -> None:
        """ngrams: sorted; owners: the text of each, a pair occurring once."""
        self.n = n
        self._num_texts = num_texts
        self._num_ngrams = np.bincount(owners, minlength=num_texts)  # by text
        first = np.flatnonzero(np.append(True, ngrams[1:] != ngrams[:-1]))
        self._ngrams = ngrams[first]
        self._starts = np.append(first, len(ngrams))
        self._owners = owners.astype(np.int32)
        bits = int(np.clip(np.ceil(np.log2(_BITS_AN_NGRAM * len(self._ngrams))), _LEAST_BITS, _MOST_BITS))
        self._bits = np.uint64(bits)
        self._bitmap = np.zeros(1 << (bits - 3), dtype=np.uint8)
        for slots in (self._slots(self._ngrams), self._slots(self._ngrams << self._bits)):
            np.bitwise_or.at(self._bitmap, (slots >> np.uint64(3)).astype(np.int64), _bit_of(slots))

    def coverage(self, ngrams: Hashes, offsets: Offsets) -> tuple[Offsets, Offsets, NDArray[np.float64]]:
        """(document, text, share of the text's n-grams in the document) for every pair that shares one."""
        places = [
            start + self._may_hold(ngrams[start : start + _LOOKED_UP]) for start in range(0, len(ngrams), _LOOKED_UP)
        ]
        place = np.concatenate([np.empty(0, dtype=np.int64), *places])
        at = np.minimum(np.searchsorted(self._ngrams, ngrams[place]), len(self._ngrams) - 1)
        met = self._ngrams[at] == ngrams[place]
        document = np.searchsorted(offsets, place[met], side="right") - 1
        # An n-gram counts once a document.
        pairs = np.unique(document * len(self._ngrams) + at[met])
        document, at = np.divmod(pairs, len(self._ngrams))
        counts = self._starts[at + 1] - self._starts[at]
        begins = np.cumsum(counts) - counts
        owned = np.arange(int(counts.sum())) + np.repeat(self._starts[at] - begins, counts)
        shared, count = np.unique(
            np.repeat(document, counts) * self._num_texts + self._owners[owned], return_counts=True
        )
        document, text = np.divmod(shared, self._num_texts)
        return document, text, count / self._num_ngrams[text]

    def _may_hold(self, ngrams: Hashes) -> Offsets:
        first = np.flatnonzero(self._is_set(self._slots(ngrams)))
        second = np.flatnonzero(self._is_set(self._slots(ngrams[first] << self._bits)))
        return np.take(first, second)

    def _slots(self, hashes: Hashes) -> Hashes:
        """The bit that a hash means by its upper bits."""
        return hashes >> (np.uint64(64) - self._bits)

    def _is_set(self, slots: Hashes) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self._bitmap[(slots >> np.uint64(3)).view(np.int64)] & _bit_of(slots)
        return found


def _bit_of(slots: Hashes) -> NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (slots & np.uint64(7)).astype(np.uint8))
