"""Documents that hold items of evaluation sets: found by the share of an item's word n-grams that occur in them.

The rule. An item is looked for as its question with the right answer, and as its question alone; words are as
`shingles` defines them, so case, punctuation and white space do not matter. Of each of the two texts:

- With n words or more (n = `ngram`; `math_ngram` for sets of mathematics) its distinct n-grams are looked for.
- With fewer, but at least `min_words`, it is one n-gram of its own length. Shorter ones are not looked for, nor texts
  of fewer than `min_distinct_words` different words (1 + 1 + 1 ...). On 146 MB of clean prose and documentation,
  against every set known here, min_words 8 removed 4 of 11,333 documents (each quotes a speech that MMLU quotes), 7
  removed 11 and 6 removed 28.
- An n-gram that more than `common_items` items of one set share is the set's boilerplate and does not count; a text
  with no other n-gram is not looked for.

An item is in a document when at least `threshold` of the distinct n-grams of either text occur in the document,
wherever they stand. The share is the coverage; of several items found, the one of the highest coverage is named, the
first in the order of the sets among equals. `num_items`, `num_too_short` and `num_common` count what is looked for
and what is not. Equality is of 64-bit hashes.

Word 13-grams are from Brown et al. 2020 (appendix C); 8 for mathematics, whose items are short and of numbers.

Method: one pass hashes the words and the w-grams of a document, w being the least length looked for, and looks each up
in a bitmap of all w-grams of all items. An n-gram of an item shows as n - w + 1 neighbouring hits, so longer n-grams
are hashed only where such a run begins, and looked up in a sorted array. Memory is that of the sets, and of the longest
document.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from gradus.core.errors import DataError
from gradus.core.settings import Settings
from gradus.data.benchmarks import benchmark_names
from gradus.data.decontamination_index import GramTable, ItemIndex, build_index, load_index, save_index
from gradus.data.shingles import Hashes, Offsets, ngram_hashes, word_hashes

# Texts are checked in batches of about so much, which stay in the processor's cache.
_BATCH_CHARACTERS = 1 << 18
_Numbers = NDArray[np.int64]


class DecontaminateSettings(Settings):
    """What is looked for, and what counts as found; see the module for the rule.

    sets: names of evaluation sets and of groups of them, or paths of files. folder: where the sets' files are,
    relative to the roadmap; None takes the environment variable GRADUS_BENCHMARKS. ngram, math_ngram, min_words,
    min_distinct_words: in words. threshold: share of an item's n-grams. common_items: items of one set.
    """

    sets: tuple[str, ...] = Field(min_length=1)
    folder: str | None = None
    ngram: int = Field(default=13, ge=2, le=64)
    math_ngram: int = Field(default=8, ge=2, le=64)
    min_words: int = Field(default=8, ge=2, le=64)
    threshold: float = Field(default=0.5, gt=0, le=1)
    min_distinct_words: int = Field(default=4, ge=1, le=64)
    common_items: int = Field(default=10, ge=1)

    @field_validator("sets")
    @classmethod
    def _known(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        try:
            benchmark_names(sets)
        except DataError as error:
            raise ValueError(str(error)) from error
        return sets


@dataclass(frozen=True, slots=True)
class Contamination:
    """An item found in a document. coverage: the share of the item's n-grams found, at least the threshold."""

    set: str
    item: str
    coverage: float


class Decontaminator:
    """Checks texts against the items of evaluation sets; built from the sets' files, or loaded as saved."""

    def __init__(self, settings: DecontaminateSettings, roadmap_dir: Path = Path()) -> None:
        """Read the sets and build the index. Errors: DataError, ConfigError of a set given by path."""
        self.settings = settings
        self._index = build_index(
            settings.sets,
            settings.folder,
            roadmap_dir,
            ngram=settings.ngram,
            math_ngram=settings.math_ngram,
            min_words=settings.min_words,
            min_distinct_words=settings.min_distinct_words,
            common_items=settings.common_items,
        )

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides the answers: items' hashes and names, threshold, versions; not of the folder."""
        return self._index.fingerprint(self.settings.threshold)

    @property
    def num_items(self) -> int:
        """Items that are looked for."""
        return len(np.unique(self._index.entry_items))

    @property
    def num_too_short(self) -> int:
        """Items that are not, since they have too few words."""
        return self._index.num_too_short

    @property
    def num_common(self) -> int:
        """Items that are not, since nothing in them is their own."""
        return self._index.num_common

    def save(self, path: Path) -> None:
        """Write settings and index as one .npz file, whole or not at all."""
        save_index(path, self._index, self.settings.model_dump_json())

    @classmethod
    def load(cls, path: Path) -> Decontaminator:
        """What `save` wrote; the sets' files are not read again. Errors: DataError."""
        index, settings = load_index(path)
        loaded = cls.__new__(cls)
        loaded.settings = DecontaminateSettings.model_validate_json(settings)
        loaded._index = index
        return loaded

    def check(self, texts: Sequence[str]) -> list[Contamination | None]:
        """For each text the item in it that is covered most, or None."""
        found: list[Contamination | None] = []
        for batch in _batches(texts):
            found += self._check_batch(batch)
        return found

    def found_items(self, texts: Sequence[str]) -> dict[tuple[str, str], float]:
        """Every item that is in one of the texts, as (set, item), with its highest coverage."""
        found: dict[tuple[str, str], float] = {}
        for batch in _batches(texts):
            _, entries, coverages = self._covered(batch)
            for entry, coverage in zip(entries.tolist(), coverages.tolist(), strict=True):
                item = self._index.item(int(self._index.entry_items[entry]))
                found[item] = max(coverage, found.get(item, 0.0))
        return found

    def _check_batch(self, texts: list[str]) -> list[Contamination | None]:
        index = self._index
        answers: list[Contamination | None] = [None] * len(texts)
        owner, entry, coverage = self._covered(texts)
        # The best of each document comes last.
        for one in np.lexsort((-entry, coverage, owner)).tolist():
            name, item = index.item(int(index.entry_items[entry[one]]))
            answers[owner[one]] = Contamination(name, item, float(coverage[one]))
        return answers

    def _covered(self, texts: list[str]) -> tuple[_Numbers, _Numbers, NDArray[np.float64]]:
        """(text, entry of the index, coverage) of every entry that is covered enough."""
        index = self._index
        words, offsets = word_hashes(texts)
        hits = _hits(index, words, offsets)
        owners: list[_Numbers] = [np.zeros(0, dtype=np.int64)]
        entries: list[_Numbers] = [np.zeros(0, dtype=np.int64)]
        coverages: list[NDArray[np.float64]] = [np.zeros(0)]
        for table in index.tables:
            chosen = hits.begin(table.n - index.anchor + 1)
            if not len(chosen.places):
                continue
            grams = chosen.grams if table.n == index.anchor else _grams_at(words, chosen.places, table.n)
            owner, entry, count = _found_entries(table, grams, chosen.documents)
            coverage = count / index.entry_grams[entry]
            enough = coverage >= self.settings.threshold
            owners.append(owner[enough])
            entries.append(entry[enough])
            coverages.append(coverage[enough])
        return np.concatenate(owners), np.concatenate(entries), np.concatenate(coverages)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        # Items are in this form too.
        batch.append(text if text.isascii() else unicodedata.normalize("NFC", text))
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class _Hits:
    """Where a w-gram of some item may stand: document, number of the word, its hash, hits in a row from there on."""

    documents: _Numbers
    places: _Numbers
    grams: Hashes
    runs: _Numbers

    def begin(self, num_hits: int) -> _Hits:
        """The hits that so many, itself among them, follow without a gap."""
        if num_hits == 1:
            return self
        chosen = np.flatnonzero(self.runs >= num_hits)
        return _Hits(self.documents[chosen], self.places[chosen], self.grams[chosen], self.runs[chosen])


def _hits(index: ItemIndex, words: Hashes, offsets: Offsets) -> _Hits:
    grams, gram_offsets = ngram_hashes(words, offsets, index.anchor)
    hits = index.possible(grams)
    documents = np.searchsorted(gram_offsets, hits, side="right") - 1
    places = hits - gram_offsets[documents] + offsets[documents]
    # Between two documents the number of the word leaps.
    ends = np.append(np.flatnonzero(np.diff(places) != 1), len(hits) - 1)
    lengths = np.diff(ends, prepend=-1)
    runs = np.repeat(ends, lengths) - np.arange(len(hits)) + 1
    return _Hits(documents, places, grams[hits], runs)


def _grams_at(words: Hashes, places: _Numbers, n: int) -> Hashes:
    """The n-grams that begin at some places."""
    runs = words[places[:, None] + np.arange(n)]  # (places, n)
    return ngram_hashes(runs.ravel(), np.arange(len(places) + 1) * n, n)[0]


def _found_entries(table: GramTable, grams: Hashes, documents: _Numbers) -> tuple[_Numbers, _Numbers, _Numbers]:
    """(document, entry, distinct n-grams of the entry in the document) of n-grams in documents."""
    keys = np.minimum(np.searchsorted(table.grams, grams), len(table.grams) - 1)
    known = table.grams[keys] == grams
    pairs = np.unique(documents[known] * len(table.grams) + keys[known])
    owners, keys = np.divmod(pairs, len(table.grams))
    starts = table.starts[keys]
    counts = table.starts[keys + 1] - starts
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    entries = table.entries[np.repeat(starts, counts) + within].astype(np.int64)
    distinct, found = np.unique(np.repeat(owners, counts) << 32 | entries, return_counts=True)
    return distinct >> 32, distinct & 0xFFFFFFFF, found
