"""Reading many stretches of token arrays at once: the tokens end to end, each with the token that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
# Shorter spans of one array are gathered by index in one operation, others copied one by one (measured: equal at 300).
_SHORT_SPAN = 300


@dataclass(frozen=True, slots=True)
class Spans:
    """Where pieces stand: tokens [start, start + length) of a shard. Arrays are (pieces,)."""

    shard: Int64
    start: Int64
    length: Int64

    @property
    def ends(self) -> Int64:
        """(pieces,) the token after each."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Pieces:
    """Parts of documents as training sees them, end to end; arrays are (tokens,), ids in the type they are stored in.

    targets: the token after each token; trained: whether that target counts, None where all do.
    """

    tokens: NDArray[Any]
    targets: NDArray[Any]
    trained: NDArray[np.bool_] | None


def read_stream(tokens: Mapping[int, NDArray[Any]], spans: Spans) -> Pieces:
    """Spans of streams, by number of their shard; the target of a span's last token is the token behind it."""
    found = _gather(tokens, spans)
    targets = np.empty_like(found)
    targets[:-1] = found[1:]
    targets[np.cumsum(spans.length) - 1] = _at(tokens, spans.shard, spans.ends)
    return Pieces(found, targets, None)


def read_masked(
    tokens: Mapping[int, NDArray[Any]],
    mask: Mapping[int, NDArray[np.uint8]],
    spans: Spans,
    is_last: NDArray[np.bool_],
) -> Pieces:
    """Spans of documents with a mask; the last token of a document has no target. is_last: (pieces,) ends with it."""
    found = _gather(tokens, spans)
    last = np.cumsum(spans.length) - 1
    # Where there is no token behind, the last one stands for it, and is not trained.
    following = np.where(is_last, spans.ends - 1, spans.ends)
    targets = np.empty_like(found)
    targets[:-1] = found[1:]
    targets[last] = _at(tokens, spans.shard, following)
    trained = np.empty(found.shape, dtype=bool)
    trained[:-1] = _gather(mask, spans)[1:]
    trained[last] = (_at(mask, spans.shard, following) != 0) & ~is_last
    return Pieces(found, targets, trained)


def _gather(values: Mapping[int, NDArray[Any]], spans: Spans) -> NDArray[Any]:
    """The values of all spans, end to end."""
    if len(values) == 1 and spans.length.sum() < _SHORT_SPAN * len(spans.length):
        before = np.cumsum(spans.length) - spans.length
        index = np.repeat(spans.start - before, spans.length)
        index += np.arange(len(index))
        found: NDArray[Any] = next(iter(values.values())).take(index)
        return found
    places = zip(spans.shard.tolist(), spans.start.tolist(), spans.ends.tolist(), strict=True)
    return np.concatenate([values[number][start:end] for number, start, end in places])


def _at(values: Mapping[int, NDArray[Any]], shard: Int64, index: Int64) -> NDArray[Any]:
    """The value at one index of each span's shard."""
    if len(values) == 1:
        one: NDArray[Any] = next(iter(values.values()))[index]
        return one
    found = np.empty(len(index), dtype=next(iter(values.values())).dtype)
    for number, array in values.items():
        here = shard == number
        found[here] = array[index[here]]
    return found
