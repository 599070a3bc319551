"""Perplexity by position: how well a model tells text, the deeper it stands in a long document.

A model that uses its context gets better with depth; one that never saw positions so large gets worse there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.data.loader import rows_in_order
from gradus.data.pack import PackPlan
from gradus.data.shards import TokenStore
from gradus.model.transformer import Transformer
from gradus.train.losses import token_logp

_FIRST_EDGE = 64


@dataclass(frozen=True)
class PositionLoss:
    """nats: (length,) negative log-likelihood of the token behind each position, summed over `documents`."""

    nats: NDArray[np.float64]
    documents: int

    @property
    def edges(self) -> list[int]:
        """0, 64, 128, 256, ... and the length."""
        length = len(self.nats)
        inner = [_FIRST_EDGE << k for k in range(length.bit_length()) if _FIRST_EDGE << k < length]
        return [0, *inner, length]

    def perplexity(self, begin: int = 0, end: int | None = None) -> float:
        """exp of the mean loss at positions in [begin, end)."""
        return math.exp(float(self.nats[begin:end].mean()) / self.documents)

    def curve(self) -> list[float]:
        """Perplexity between each two edges."""
        edges = self.edges
        return [round(self.perplexity(a, b), 4) for a, b in pairwise(edges)]

    def measure(self, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """Perplexity as a gate reads it; n counts tokens."""
        return {"value": self.perplexity(begin, end), "n": self.documents * len(self.nats[begin:end])}


def measured_documents(store: TokenStore, length: int, max_tokens: int) -> NDArray[np.int64]:
    """Documents of at least `length` tokens, evenly spaced, as many as make about `max_tokens` of their beginnings.

    Errors: DataError where no document is long enough.
    """
    long_enough = np.flatnonzero(store.lengths >= length)
    if not len(long_enough):
        longest = int(store.lengths.max(initial=0))
        raise DataError(
            f"{store.folder}: no {store.split} document has {length:,} tokens, the longest has {longest:,}; hold back "
            "more documents (validation_fraction of the corpus), or extend to a shorter context"
        )
    number = min(len(long_enough), max(1, max_tokens // length))
    return long_enough[np.linspace(0, len(long_enough) - 1, number).round().astype(np.int64)]


@torch.no_grad()
def loss_by_position(
    model: Transformer,
    store: TokenStore,
    length: int,
    *,
    max_tokens: int,
    tokens_per_batch: int = 8192,
    measured: Callable[[int], None] = lambda tokens: None,
) -> PositionLoss:
    """Over the first `length` tokens of each of the `measured_documents`.

    measured: is told of so many tokens more, after each batch. Errors: DataError where no document is long enough.
    """
    chosen = measured_documents(store, length, max_tokens)
    number = len(chosen)
    plan = PackPlan(
        row_length=length,
        row_starts=np.arange(number + 1, dtype=np.int64),
        document=chosen,
        offset=np.zeros(number, dtype=np.int64),
        length=np.full(number, length, dtype=np.int64),
    )
    nats = np.zeros(length)
    for batch in rows_in_order(store, plan, max(1, tokens_per_batch // length)):
        logp = token_logp(model, batch.to(model.device))
        nats -= logp.cpu().double().view(-1, length).sum(0).numpy()
        measured(batch.num_tokens)
    return PositionLoss(nats, number)
