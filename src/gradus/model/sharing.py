"""Documents of a batch that begin alike: their common prefix goes through the model once.

Conversations open with the same system message and tools, two answers to compare and all samples of a group with the
same prompt. A causal token is the same whatever follows it, so losses and gradients are those of the documents computed
one by one. Layers work on each token once; what looks back, as attention does, lays the documents out whole. Experts
go by the tokens that are computed: what balances them, and which tokens a capacity leaves out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradus.model.batch import IGNORE, Batch, Documents, SharedPrefixes
from gradus.model.mps import run_sums

_LEAST_SHARE = 1 / 16  # of a batch's tokens; fewer are not worth the copies
_SIZES = 32  # batches from rows are filled up to so many sizes


def share_prefixes(batch: Batch, device: torch.device) -> Batch:
    """The same documents, a prefix that several have in common computed once, as far as no target of theirs counts.

    The batch itself where there is little to share, and for XLA, which compiles for every size anew. batch: on the
    host, its padding at the end; device: where it is computed.
    """
    if device.type == "xla" or batch.documents.bounds[-1] == batch.padding:
        return batch
    lengths = np.array(batch.documents.lengths[:-1] if batch.padding else batch.documents.lengths)
    tokens, targets = (part.numpy()[: batch.num_tokens] for part in (batch.tokens, batch.targets))
    silent = _silent(targets, lengths)
    least = _LEAST_SHARE * len(tokens)
    if silent.sum() < least:  # as in pretraining: nothing to compare
        return batch
    owner, saved = _tries(tokens, silent, lengths)
    if saved < least:
        return batch
    is_first = owner == np.arange(len(owner))
    size, padding = len(owner) - saved, 0
    if batch.documents.row_length is not None:
        step = max(1, batch.tokens.shape[0] // _SIZES)
        padding = -size % step
    place = np.concatenate([np.flatnonzero(is_first), np.arange(len(owner), len(owner) + padding)])
    numbers = np.cumsum(is_first) - 1
    token = np.concatenate([numbers[owner], np.arange(size, size + padding)])
    order = np.argsort(token, kind="stable")
    counts = np.bincount(token)
    tokens_shared = np.flatnonzero(counts > 1)
    shared = SharedPrefixes(
        torch.from_numpy(token),
        torch.from_numpy(place),
        torch.from_numpy(tokens_shared),
        torch.from_numpy(counts[tokens_shared]),
        torch.from_numpy(order[np.repeat(counts > 1, counts)]),
    )
    bounds = [*batch.documents.bounds[: len(lengths) + 1], *([len(owner) + padding] if padding else [])]
    return Batch(
        _filled(tokens[is_first], padding, 0),
        _filled(targets[is_first], padding, IGNORE),
        Documents(
            bounds,
            torch.cat([batch.documents.positions[: len(owner)][torch.from_numpy(is_first)], torch.arange(padding)]),
            None,
            shared,
        ),
        batch.extra,
        padding,
    )


def _filled(values: NDArray[np.int64], padding: int, value: int) -> Tensor:
    return torch.from_numpy(np.concatenate([values, np.full(padding, value, dtype=np.int64)]))


def _silent(targets: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(documents,) how many tokens of each come before the first whose target counts."""
    ends = np.cumsum(lengths)
    counted = np.append(np.flatnonzero(targets != IGNORE), len(targets))
    first = counted[np.searchsorted(counted, ends - lengths)]
    silent: NDArray[np.int64] = np.minimum(first, ends) - (ends - lengths)
    return silent


def _tries(
    tokens: NDArray[np.int64], silent: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """For each place the place whose token is computed for it, itself or one of another document; how many are others.

    In lexical order a document has its longest common prefix with the one before it.
    """
    starts = (np.cumsum(lengths) - lengths).tolist()
    opening = [
        tokens[start : start + count].astype(">u4") for start, count in zip(starts, silent.tolist(), strict=True)
    ]
    order = sorted(range(len(opening)), key=lambda index: opening[index].tobytes())
    owner = np.arange(len(tokens))
    saved = 0
    for before, index in pairwise(order):
        longest = min(len(opening[before]), len(opening[index]))
        differs = opening[before][:longest] != opening[index][:longest]
        common = int(differs.argmax()) if differs.any() else longest
        owner[starts[index] : starts[index] + common] = owner[starts[before] : starts[before] + common]
        saved += common
    return owner, saved


def laid_out(x: Tensor, documents: Documents) -> Tensor:
    """x (K, N, D) at every place of the documents, (K, E, D)."""
    if documents.shared is None:
        return x
    return _LaidOut.apply(x, documents.shared)  # type: ignore[no-any-return,no-untyped-call]


def of_tokens(x: Tensor, documents: Documents) -> Tensor:
    """The other way: x (E, d) of every place to that of each token, where it is counted, (N, d)."""
    return x if documents.shared is None else x.index_select(0, documents.shared.place)


def summed(grads: Tensor, place: Tensor, repeated: Tensor, shared: SharedPrefixes) -> Tensor:
    """Gradients of tokens (K, N, D) from those of places (K, P, D).

    place, repeated: as in `SharedPrefixes`, of a layout of any P places. In fp32 and in a fixed order, on a GPU too.
    """
    found = grads.index_select(1, place)
    several = grads.index_select(1, repeated).float()  # (K, places, D)
    sums = run_sums(several, shared.counts)  # (K, S, D)
    return found.index_copy_(1, shared.tokens, sums.to(grads.dtype))


class _LaidOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shared: SharedPrefixes) -> Tensor:
        ctx.shared = shared
        return x.index_select(1, shared.token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return summed(grad, ctx.shared.place, ctx.shared.repeated, ctx.shared), None
