"""A word n-gram model in hashed tables: trained on reference text, it says how surprising other text is.

Interpolated Witten-Bell smoothing (Witten and Bell 1991; Chen and Goodman 1999, section 2.6) over counts kept by
hash, so that memory is set by `table_bits` and never by the text. Words are lower case with every digit a 0, as in
CCNet (Wenzek et al. 2020, section 3.2), and symbols stand apart. Ours departs in that n-grams of equal hash share a
count, and that the number of an n-gram's continuations is that of its occurrences.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gradus.core.errors import DataError
from gradus.core.files import write_atomic
from gradus.core.settings import Settings
from gradus.data.filters.batch import TextBatch
from gradus.data.filters.filter import batches
from gradus.data.filters.segments import Segments, joined
from gradus.data.holdout import holdout_position

_FORMAT = "gradus ngram model 1"
_LARGEST = np.iinfo(np.uint32).max
# What a word may be that was never seen: the uniform share at the end of all smoothing.
_POSSIBLE_WORDS = 1 << 20
_PERCENTILES = 1001
_LEAST_CALIBRATION = 20
_CALIBRATION_CHARACTERS = 1 << 16
_PENDING_CHARACTERS = 1 << 18
_NORMAL_BYTES = bytes(range(256)).lower().translate(bytes.maketrans(b"0123456789", b"0000000000"))


class NgramSettings(Settings):
    """How a model is trained. order: words of the longest n-gram. table_bits: 2^bits counts a table.

    calibration_fraction: share of the reference texts that is held back to learn which perplexities are usual, and
    max_calibration_texts, how many at most.
    """

    order: int = Field(default=3, ge=1, le=6)
    table_bits: int = Field(default=22, ge=8, le=30)
    calibration_fraction: float = Field(default=0.1, gt=0, lt=1)
    max_calibration_texts: int = Field(default=2000, ge=20)


class NgramModel:
    """Counts of n-grams by hash, and the perplexities of calibration texts.

    counts: (order, 2^bits) uint32, of n-grams of 1, 2, ... words. continuations: (order - 1, 2^bits) uint32, how many
    different words follow n-grams of 1, 2, ... words. num_words, num_different: of the training text.
    percentiles: (1001,) perplexities that 0, 0.1, ... 100 % of the calibration texts do not exceed.
    """

    def __init__(
        self,
        settings: NgramSettings,
        counts: NDArray[np.uint32] | None = None,
        continuations: NDArray[np.uint32] | None = None,
    ) -> None:
        """Errors: ValueError for tables of another shape or type."""
        self.settings = settings
        self.counts = _table(counts, (settings.order, 1 << settings.table_bits))
        self.continuations = _table(continuations, (settings.order - 1, 1 << settings.table_bits))
        self.num_words = 0
        self.num_different = 0
        self.percentiles = np.zeros(0)

    def learn(self, texts: Sequence[str]) -> None:
        """Count the n-grams of more text."""
        for batch in batches(texts):
            self._learn(batch)

    def perplexities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """e to the mean surprise of each text's words in nats, (D,); infinite for a text without words."""
        found = [self.perplexities_of(batch) for batch in batches(texts)]
        return np.concatenate([np.zeros(0), *found])

    def calibrate(self, texts: Iterable[str]) -> None:
        """Learn which perplexities are usual, from texts that the model was not trained on.

        Errors: DataError for fewer than 20 texts with words.
        """
        values = np.concatenate([np.zeros(0), *(self.perplexities([text]) for text in texts)])
        values = values[np.isfinite(values)]
        if len(values) < _LEAST_CALIBRATION:
            raise DataError(
                f"percentiles need at least {_LEAST_CALIBRATION} calibration texts, found {len(values)}; "
                "give more reference texts or a larger calibration_fraction"
            )
        self.percentiles = np.percentile(values, np.linspace(0, 100, _PERCENTILES))

    def perplexity_at(self, percentile: float) -> float:
        """The perplexity that this percentage of the calibration texts do not exceed."""
        return float(np.interp(percentile, np.linspace(0, 100, _PERCENTILES), self.percentiles))

    def _keys(self, batch: TextBatch) -> tuple[list[NDArray[np.uint64]], NDArray[np.int64], NDArray[np.int64]]:
        """For n = 1, 2, ... the hash of the n-gram that ends at each word, (W,); its text; its place in the text.

        Where the n-gram would begin before the text, its hash means nothing.
        """
        words = _normalised(batch.words("symbols_apart").segments)
        keys = [words.hashes]
        for _ in range(1, self.settings.order):
            longer = np.zeros_like(words.hashes)
            longer[1:] = joined(keys[-1][:-1], words.hashes[1:])
            keys.append(longer)
        return keys, words.text_of, np.arange(len(words.text_of)) - words.offsets[words.text_of]

    def _buckets(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (keys >> np.uint64(64 - self.settings.table_bits)).astype(np.int64)

    def _learn(self, batch: TextBatch) -> None:
        keys, _, places = self._keys(batch)
        self.num_words += len(places)
        for n in range(1, self.settings.order + 1):
            buckets = self._buckets(keys[n - 1])
            ends = np.flatnonzero(places >= n - 1)
            met, first, times = np.unique(buckets[ends], return_index=True, return_counts=True)
            is_new = self.counts[n - 1, met] == 0
            self.counts[n - 1, met] = np.minimum(self.counts[n - 1, met] + times, _LARGEST)
            if n == 1:
                self.num_different += int(is_new.sum())
            else:
                contexts = self._buckets(keys[n - 2])[ends[first[is_new]] - 1]
                np.add.at(self.continuations[n - 2], contexts, 1)

    def perplexities_of(self, batch: TextBatch) -> NDArray[np.float64]:
        """`perplexities` of one batch."""
        keys, text_of, places = self._keys(batch)
        counts = self.counts[0, self._buckets(keys[0])]
        total = self.num_words + self.num_different
        shares = (counts + self.num_different / _POSSIBLE_WORDS) / max(total, 1)
        for n in range(2, self.settings.order + 1):
            contexts = np.zeros(len(places), dtype=np.int64)
            contexts[1:] = self._buckets(keys[n - 2])[:-1]
            times = self.counts[n - 2, contexts].astype(np.float64)
            different = self.continuations[n - 2, contexts].astype(np.float64)
            known = np.flatnonzero((places >= n - 1) & (different > 0))
            # A bucket shared with another n-gram may count more than its context.
            counts = np.minimum(self.counts[n - 1, self._buckets(keys[n - 1])], times)
            # Chen and Goodman, equation 16: c(h w) + N1+(h) p(w | h') over c(h) + N1+(h)
            new = (counts[known] + different[known] * shares[known]) / (times[known] + different[known])
            shares[known] = new
        num_texts = len(batch.texts)
        num_words = np.bincount(text_of, minlength=num_texts)
        surprise = np.bincount(text_of, weights=-np.log(shares), minlength=num_texts)
        found = np.full(num_texts, math.inf)
        np.divide(surprise, num_words, out=found, where=num_words > 0)
        perplexities: NDArray[np.float64] = np.exp(found)
        return perplexities

    # Files

    def save(self, path: Path) -> None:
        """Write the model as safetensors; the same model gives the same bytes."""
        from safetensors.numpy import save

        facts = {
            "format": _FORMAT,
            "settings": self.settings.model_dump(mode="json"),
            "num_words": self.num_words,
            "num_different": self.num_different,
        }
        arrays: dict[str, NDArray[Any]] = {
            "counts": self.counts,
            "continuations": self.continuations,
            "percentiles": self.percentiles,
        }
        write_atomic(path, save(arrays, metadata={"gradus": json.dumps(facts, sort_keys=True)}))


def _table(given: NDArray[np.uint32] | None, shape: tuple[int, int]) -> NDArray[np.uint32]:
    if given is None:
        return np.zeros(shape, dtype=np.uint32)
    if given.shape != shape or given.dtype != np.uint32:
        raise ValueError(f"expected {shape} uint32, found {given.shape} {given.dtype}")
    return given


def load_ngram_model(path: Path) -> NgramModel:
    """Read a model that `save` wrote. Errors: DataError where there is none or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {}).get("gradus", "{}"))
            if facts.get("format") != _FORMAT:
                raise DataError(f"{path}: no n-gram model of this version; train it again")
            settings = NgramSettings(**facts["settings"])
            model = NgramModel(settings, file.get_tensor("counts"), file.get_tensor("continuations"))
            model.percentiles = file.get_tensor("percentiles")
            model.num_words, model.num_different = int(facts["num_words"]), int(facts["num_different"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such n-gram model") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged n-gram model ({error})") from error
    return model


def train_ngram_model(texts: Iterable[str], settings: NgramSettings | None = None) -> NgramModel:
    """A model of the reference texts, calibrated on some of them that it was not trained on.

    Which ones depends on their hashes only. Texts are read once, in bounded memory. Errors: DataError where fewer
    than 20 could be held back.
    """
    model = NgramModel(settings or NgramSettings())
    held: list[tuple[float, str]] = []  # a heap, the largest position first
    pending: list[str] = []
    size = 0
    for text in texts:
        learned = text
        position = holdout_position(text)
        if position < model.settings.calibration_fraction:
            entry = (-position, text[:_CALIBRATION_CHARACTERS])
            if len(held) < model.settings.max_calibration_texts:
                heapq.heappush(held, entry)
                continue
            learned = heapq.heappushpop(held, entry)[1]
        pending.append(learned)
        size += len(learned)
        if size >= _PENDING_CHARACTERS:
            model.learn(pending)
            pending, size = [], 0
    model.learn(pending)
    model.calibrate([text for _, text in sorted(held)])
    return model


def _normalised(words: Segments) -> Segments:
    """The words with ASCII letters in lower case and every ASCII digit a 0."""
    return Segments(words.raw.translate(_NORMAL_BYTES), words.starts, words.ends, words.offsets)
