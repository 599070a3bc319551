"""Causal attention over documents of equal length as plain matrix products, for CPUs.

torch's fused CPU kernel multiplies small tiles in bf16 at a third of the speed of large products, and its
backward does so more often. Here queries go in blocks, each against the keys up to its own end, so that hardly
more than the causal half is computed; the probabilities (not the scores) are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradus.model.config import QUERY_BLOCK
from gradus.model.layout import DocumentLayout


def dense_causal_attention(heads: Tensor, num_heads: int, layout: DocumentLayout) -> Tensor:
    """Causal attention inside each document.

    heads: (H + 2 Hk, N, D), queries (already scaled), keys, values. Returns (N, H D).
    """
    return _DenseCausal.apply(heads, num_heads, layout)  # type: ignore[no-any-return,no-untyped-call]


class _DenseCausal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, num_heads: int, layout: DocumentLayout) -> Tensor:
        ctx.num_heads, ctx.layout = num_heads, layout
        outs, saved = [], []
        for group in layout.groups:
            part = heads.contiguous() if group.spread is None else heads.index_select(1, group.spread)
            out, kept = _forward(part, num_heads, group.length)
            outs.append(out)
            saved += [part, *kept]
        ctx.save_for_backward(*saved)
        out = outs[0] if len(outs) == 1 else torch.cat(outs)
        return out if layout.gather is None else out.index_select(0, layout.gather)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        saved = list(ctx.saved_tensors)
        parts = []
        for group in ctx.layout.groups:
            part = saved.pop(0)
            kept = [saved.pop(0) for _ in _blocks(group.length)]
            part_grad = grad
            if group.spread is not None and group.filled is not None:
                # What stands at a filled-up place was a query too, but nobody took its answer.
                part_grad = grad.index_select(0, group.spread).index_fill_(0, group.filled, 0)
            parts.append(_backward(part_grad, part, kept, ctx.num_heads, group.length))
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return out if ctx.layout.gather is None else out.index_select(1, ctx.layout.gather), None, None


def _blocks(length: int) -> list[tuple[int, int]]:
    # Half a block more is better done at once.
    step = QUERY_BLOCK if length > QUERY_BLOCK * 3 // 2 else length
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def _forward(heads: Tensor, num_heads: int, length: int) -> tuple[Tensor, list[Tensor]]:
    """Documents of equal length. heads: (H + 2 Hk, B T, D). Returns (B T, H D) and the blocks' probabilities.

    Query heads that share a key head stand side by side at each position: row t R + r of a product.
    """
    q, k, v = _split(heads, num_heads, length)
    shared = q.shape[1] // length  # R
    out = torch.empty_like(q)
    kept = []
    for start, stop in _blocks(length):
        rows = slice(start * shared, stop * shared)
        # The product copies what is not contiguous; transposed, that is slow.
        scores = torch.bmm(q[:, rows], k[:, :stop].contiguous().mT)
        scores[:, :, start:] += _future(stop - start, shared, scores.dtype)
        kept.append(torch.softmax(scores, -1))
        out[:, rows] = torch.bmm(kept[-1], v[:, :stop])
    tokens, width = heads.shape[1:]
    by_head = out.view(-1, tokens, shared, width)  # (Hk, B T, R, D)
    return by_head.transpose(0, 1).reshape(tokens, num_heads * width), kept


def _backward(grad: Tensor, heads: Tensor, kept: list[Tensor], num_heads: int, length: int) -> Tensor:
    """Gradient of `_forward` with respect to heads. grad: (B T, H D)."""
    q, k, v = _split(heads, num_heads, length)
    tokens, width = heads.shape[1:]
    shared = q.shape[1] // length
    kv_heads = num_heads // shared
    grad = grad.view(tokens, kv_heads, shared, width).transpose(0, 1).reshape(q.shape)
    out = torch.empty_like(heads)
    _, dk, dv = _split(out, num_heads, length)
    dq = torch.empty_like(q)
    for (start, stop), probabilities in reversed(list(zip(_blocks(length), kept, strict=True))):
        rows = slice(start * shared, stop * shared)
        d_scores = torch.bmm(grad[:, rows], v[:, :stop].contiguous().mT)
        d_scores = torch._softmax_backward_data(d_scores, probabilities, -1, d_scores.dtype)
        dq[:, rows] = torch.bmm(d_scores, k[:, :stop])
        if stop == length:  # the last block reaches every key, so it writes and the others add
            torch.bmm(d_scores.mT, q[:, rows], out=dk)
            torch.bmm(probabilities.mT, grad[:, rows], out=dv)
        else:
            dk[:, :stop].baddbmm_(d_scores.mT, q[:, rows])
            dv[:, :stop].baddbmm_(probabilities.mT, grad[:, rows])
    turned = dq.view(kv_heads, tokens, shared, width).transpose(1, 2)  # (Hk, R, B T, D)
    out[:num_heads] = turned.reshape(num_heads, tokens, width)
    return out


def _split(heads: Tensor, num_heads: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (Hk B, T R, D), a copy where R > 1, and views of keys and values (Hk B, T, D)."""
    all_heads, tokens, width = heads.shape
    kv_heads = (all_heads - num_heads) // 2
    shared = num_heads // kv_heads
    q = heads[:num_heads].view(kv_heads, shared, tokens, width).transpose(1, 2)
    k, v = heads[num_heads : num_heads + kv_heads], heads[num_heads + kv_heads :]
    return q.reshape(-1, length * shared, width), k.view(-1, length, width), v.view(-1, length, width)


def _future(length: int, shared: int, dtype: torch.dtype) -> Tensor:
    """(T R, T): -inf where a query's key lies in its future, 0 elsewhere."""
    mask = torch.full((length, length), -torch.inf, dtype=dtype).triu_(1)
    return mask if shared == 1 else mask.repeat_interleave(shared, dim=0)
