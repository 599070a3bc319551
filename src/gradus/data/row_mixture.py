"""Rows of several sources by weight: which source and which of its rows comes at each place of an endless sequence.

Places come in blocks of fixed size. In a block each source has a fixed number of places, by its weight in tokens and
the tokens of its rows, spread evenly; so what stands at a place is known without what came before, and after any
number of places each source has had its share to within one row. A source's rows come epoch by epoch, each epoch a
permutation of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradus.core.errors import DataError, did_you_mean
from gradus.data.mixture import MixtureShare, mixture_warnings
from gradus.data.permutation import permuted
from gradus.data.plans import ShardPlans
from gradus.data.spans import Int64

# A share of the rows is kept to within half of one in so many.
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class SourceRows:
    """The rows of one source: [first[i], first[i] + count[i]) for each i. num_tokens: of all of them."""

    name: str
    first: Int64
    count: Int64
    num_tokens: int

    @property
    def num_rows(self) -> int:
        return int(self.count.sum())

    def row(self, index: Int64) -> Int64:
        """The number in the whole set of each of the source's rows."""
        ends = np.cumsum(self.count)
        part = np.searchsorted(ends, index, side="right")
        rows: Int64 = self.first[part] + index - (ends - self.count)[part]
        return rows


class RowMixture:
    """Rows of sources by their share of the tokens."""

    def __init__(self, sources: Sequence[SourceRows], weights: Mapping[str, float]) -> None:
        """weights: a positive number each, shares after division by their sum; a source without one is left out.

        Errors: DataError for a weight of no source or not above zero.
        """
        names = [source.name for source in sources]
        for name, weight in weights.items():
            if name not in names:
                hint = did_you_mean(name, names)
                raise DataError(f'weights: no rows of source "{name}" (there are rows of {", ".join(names)}){hint}')
            if not weight > 0:
                raise DataError(f'weights: "{name}" has {weight}; give a number above 0, or leave the source out')
        self.sources = [source for source in sources if source.name in weights]
        if not 0 < len(self.sources) <= BLOCK_ROWS // 4:
            raise DataError(f"weights: {len(self.sources)} sources have one; expected 1 to {BLOCK_ROWS // 4}")
        total = sum(weights.values())
        self.token_fractions = [weights[source.name] / total for source in self.sources]
        self.quota = self._quota()

    def _quota(self) -> Int64:
        """(sources,) rows of each in a block, by largest remainder, at least one."""
        per_row = [source.num_tokens / source.num_rows for source in self.sources]
        wanted = np.array([share / size for share, size in zip(self.token_fractions, per_row, strict=True)])
        exact = wanted / wanted.sum() * BLOCK_ROWS
        quota: Int64 = np.maximum(np.floor(exact).astype(np.int64), 1)
        spare = BLOCK_ROWS - int(quota.sum())
        order = np.argsort(-(exact - np.floor(exact)), kind="stable")
        if spare > 0:
            quota[order[:spare]] += 1
        else:
            quota[int(np.argmax(quota))] += spare
        return quota

    @cached_property
    def _pattern(self) -> tuple[Int64, Int64]:
        """(block,) the source of each place of a block, and how many places that source has had before in it."""
        source = np.repeat(np.arange(len(self.quota)), self.quota)
        rank = np.concatenate([np.arange(count) for count in self.quota])
        # The i-th of n places of a source would stand at (i + 1/2) / n of the block.
        order = np.lexsort((source, (rank + 0.5) / self.quota[source]))
        return source[order], rank[order]

    def rows(self, place: Int64, seed: int, generation: int) -> Int64:
        """The row of the set at each place. place: any, from 0."""
        sources, ranks = self._pattern
        block, within = np.divmod(place, BLOCK_ROWS)
        source: Int64 = sources[within]
        index = block * self.quota[source] + ranks[within]
        found = np.empty_like(place)
        for number in np.unique(source).tolist():
            here = source == number
            found[here] = self._rows_of(self.sources[number], index[here], seed, generation)
        return found

    @staticmethod
    def _rows_of(source: SourceRows, index: Int64, seed: int, generation: int) -> Int64:
        epochs, positions = np.divmod(index, source.num_rows)
        inside = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            inside[here] = permuted(
                positions[here], source.num_rows, "mixed rows", source.name, seed, epoch, generation
            )
        return source.row(inside)

    def rows_before(self, place: int) -> Int64:
        """(sources,) how many rows of each stand before a place."""
        blocks, within = divmod(place, BLOCK_ROWS)
        before: Int64 = blocks * self.quota + np.bincount(self._pattern[0][:within], minlength=len(self.quota))
        return before

    def epochs_before(self, place: int) -> dict[str, float]:
        """How often each source has been seen before a place."""
        counts = self.rows_before(place).tolist()
        return {source.name: count / source.num_rows for source, count in zip(self.sources, counts, strict=True)}

    def shares(self, place: int) -> list[MixtureShare]:
        """What each source has come to before a place, repeats counted."""
        counts = self.rows_before(place).tolist()
        tokens = [
            round(count * source.num_tokens / source.num_rows)
            for source, count in zip(self.sources, counts, strict=True)
        ]
        total = max(1, sum(tokens))
        return [
            MixtureShare(source.name, source.num_rows, count, count / source.num_rows, size, size / total)
            for source, count, size in zip(self.sources, counts, tokens, strict=True)
        ]

    def warnings(self, place: int) -> list[str]:
        """A line for each source that will have been repeated so often that it may do harm."""
        return mixture_warnings(self.shares(place))


def row_mixture(plans: ShardPlans, weights: Mapping[str, float]) -> RowMixture:
    """The mixture of a set's sources; plans: by source."""
    if not plans.packing.by_source:
        raise DataError("a mixture by weight needs rows of one source each: pack by source")
    tokens = {name: counts["tokens"] for name, counts in plans.store.counts["by_source"].items()}
    sources = []
    for name in plans.store.sources:
        spans = plans.rows_of_source(name)
        if len(spans.length):
            sources.append(SourceRows(name, spans.start, spans.length, tokens[name]))
    return RowMixture(sources, weights)
