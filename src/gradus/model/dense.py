"""Causal attention over documents of any lengths as plain matrix products, for CPUs.

torch's fused CPU kernel multiplies small tiles in bf16 at a third of the speed of large products, and its
backward does so more often. Here the documents are cut into tiles of queries, each against the keys up to its own end,
so that hardly more than the causal half is computed, and all tiles with equally many keys are one product; the
probabilities (not the scores) are kept for the backward pass.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradus.model.batch import Documents, SharedPrefixes
from gradus.model.sharing import summed
from gradus.model.tiles import Tiles, document_tiles


def dense_causal_attention(heads: Tensor, num_heads: int, documents: Documents) -> Tensor:
    """Causal attention inside each document.

    heads: (H + 2 Hk, N, D), queries (already scaled), keys, values. Returns (N, H D).
    """
    tiles = document_tiles(documents, num_heads * heads.shape[2])
    return _DenseCausal.apply(heads, num_heads, tiles, documents.shared)  # type: ignore[no-any-return,no-untyped-call]


class _DenseCausal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, num_heads: int, tiles: Tiles, shared: SharedPrefixes | None) -> Tensor:
        heads = heads.contiguous() if tiles.spread is None else heads.index_select(1, tiles.spread)
        queries, keys, values = _head_tiles(heads, num_heads, tiles)
        out = heads.new_empty(heads.shape[1], num_heads * heads.shape[2])  # (P, H D)
        kept = []
        for level, into in enumerate(_token_tiles(out, queries)):
            scores = torch.bmm(_rows(queries[level]), _prefix(keys, level).mT)
            scores[:, :, level * tiles.length :] += _future(tiles.length, into.shape[3], scores.dtype)
            kept.append(torch.softmax(scores, -1))
            into.copy_(torch.bmm(kept[-1], _prefix(values, level)).view(into.shape))
        ctx.num_heads, ctx.tiles, ctx.shared = num_heads, tiles, shared
        ctx.save_for_backward(heads, *kept)
        return out if tiles.gather is None else out.index_select(0, tiles.gather)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        tiles: Tiles = ctx.tiles
        heads, *kept = ctx.saved_tensors
        queries, keys, values = _head_tiles(heads, ctx.num_heads, tiles)
        if tiles.spread is not None and tiles.filled is not None:
            # What stands at a filled-up place, or at a second one, was a query too, but nobody took its answer.
            grad = grad.index_select(0, tiles.spread).index_fill_(0, tiles.filled, 0)
        grads = _token_tiles(grad.contiguous(), queries)
        out = torch.empty_like(heads)
        d_queries, d_keys, d_values = _head_tiles(out, ctx.num_heads, tiles)
        later: tuple[Tensor, Tensor] | None = None  # gradients of this level's keys and values, from later levels
        for level in reversed(range(len(tiles.counts))):
            rows, d_out, probabilities = _rows(queries[level]), _rows(grads[level]), kept[level]
            d_scores = torch.bmm(d_out, _prefix(values, level).mT)
            d_scores = torch._softmax_backward_data(d_scores, probabilities, -1, d_scores.dtype)
            d_queries[level].copy_(torch.bmm(d_scores, _prefix(keys, level)).view(d_queries[level].shape))
            # (Hk, c, S, D) each, of all keys and values that the level's queries see
            seen = [torch.bmm(d_scores.mT, rows), torch.bmm(probabilities.mT, d_out)]
            d_key, d_value = (part.view(*keys[level].shape[:2], *part.shape[1:]) for part in seen)
            if later is not None:
                d_key[:, : tiles.counts[level + 1]] += later[0]
                d_value[:, : tiles.counts[level + 1]] += later[1]
            before = level * tiles.length
            d_keys[level].copy_(d_key[:, :, before:])
            d_values[level].copy_(d_value[:, :, before:])
            later = d_key[:, :, :before], d_value[:, :, :before]
        if tiles.gather is None:
            return out, None, None, None
        if tiles.repeated is not None:
            return summed(out, tiles.gather, tiles.repeated, ctx.shared), None, None, None
        return out.index_select(1, tiles.gather), None, None, None


def _head_tiles(heads: Tensor, num_heads: int, tiles: Tiles) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Views of heads (H + 2 Hk, P, D) by level: queries (Hk, c, L, R, D), keys and values (Hk, c, L, D).

    c: tiles of the level; L: their length; R: query heads that share a key head.
    """
    kv_heads = (heads.shape[0] - num_heads) // 2
    queries, keys, values = [], [], []
    begin = 0
    for count in tiles.counts:
        level = heads[:, begin : begin + count * tiles.length].view(len(heads), count, tiles.length, -1)
        queries.append(level[:num_heads].view(kv_heads, -1, *level.shape[1:]).permute(0, 2, 3, 1, 4))
        keys.append(level[num_heads : num_heads + kv_heads])
        values.append(level[num_heads + kv_heads :])
        begin += count * tiles.length
    return queries, keys, values


def _token_tiles(tokens: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Views of tokens (P, H D) by level, each shaped as that of `like`, (Hk, c, L, R, D)."""
    views, begin = [], 0
    for level in like:
        kv_heads, count, length, shared, width = level.shape
        rows = tokens[begin : begin + count * length].view(count, length, kv_heads, shared, width)
        views.append(rows.permute(2, 0, 1, 3, 4))
        begin += count * length
    return views


def _rows(tile: Tensor) -> Tensor:
    """(Hk, c, L, R, D) as operands of products (Hk c, L R, D): query heads of a key head side by side at each token."""
    return tile.reshape(-1, tile.shape[2] * tile.shape[3], tile.shape[4])


def _prefix(tiles: list[Tensor], level: int) -> Tensor:
    """Keys or values that a level's queries see, (Hk c, S, D): tiles 0 to `level` of the documents that reach it."""
    count = tiles[level].shape[1]
    return torch.cat([tile[:, :count] for tile in tiles[: level + 1]], dim=2).flatten(0, 1)


@cache
def _future(length: int, shared: int, dtype: torch.dtype) -> Tensor:
    """(L R, L): -inf where a query's key lies in its future, 0 elsewhere."""
    mask = torch.full((length, length), -torch.inf, dtype=dtype).triu_(1)
    return mask if shared == 1 else mask.repeat_interleave(shared, dim=0)
