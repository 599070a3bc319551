"""Causal attention inside documents: the one definition, for training and for decoding with a cache.

Tokens of many documents lie end to end; a token sees itself and what stands before it in its own document.
On CUDA with bf16 or fp16 the whole batch is one variable-length call (torch.nn.attention.varlen), on a CPU short
documents are products of tiles (dense.py). Elsewhere documents of like length are laid side by side, filled up at their
end, and go through one fused call per length: a causal token never sees what was filled in behind it, so the result is
that of a loop over single documents.
"""

from __future__ import annotations

import importlib.util
import inspect
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradus.model.batch import Documents, to_device
from gradus.model.config import KEPT_LENGTH
from gradus.model.dense import dense_causal_attention
from gradus.model.layout import document_layout
from gradus.model.mps import for_attention
from gradus.model.sharing import laid_out, of_tokens


def attention(heads: Tensor, num_heads: int, documents: Documents, window: int | None = None) -> Tensor:
    """Causal attention inside each document.

    heads: (H + 2 Hk, N, D), queries (already scaled), then keys, then values, H a multiple of Hk; window: how
    many tokens a token sees, itself included, None for all. Returns (N, H D).
    """
    longest = max(documents.lengths)
    is_full = window is None or window >= longest
    if heads.device.type == "cpu" and longest <= KEPT_LENGTH and is_full:
        return dense_causal_attention(heads, num_heads, documents)
    return of_tokens(_attention_of_places(laid_out(heads, documents), num_heads, documents, window), documents)


def _attention_of_places(heads: Tensor, num_heads: int, documents: Documents, window: int | None) -> Tensor:
    """The same, of documents laid end to end whole: E for N."""
    if _fits_varlen(heads) and has_varlen(heads.device):
        return _attention_varlen(heads, num_heads, documents, window)
    if heads.device.type == "xla":
        return _attention_in_rows(heads, num_heads, documents, window)
    layout = document_layout(documents)
    outs = []
    for group in layout.groups:
        part = heads if group.spread is None else heads.index_select(1, group.spread)
        mask = None if window is None or window >= group.length else _band(group.length, window, heads.device)
        outs.append(_attention_fused(part, num_heads, group.length, mask))
    out = outs[0] if len(outs) == 1 else torch.cat(outs)
    return out if layout.gather is None else out.index_select(0, layout.gather)


def _attention_in_rows(heads: Tensor, num_heads: int, documents: Documents, window: int | None) -> Tensor:
    """Rows of one length with a mask of which tokens are of one document: shapes that no batch changes."""
    length = documents.row_length
    assert length is not None, "a batch for XLA is made of whole rows"
    mask: Tensor | None = documents.cache.get(f"mask {window}")
    if mask is None:
        owner = documents.index.view(-1, length)
        band = _band(length, window or length, heads.device)
        mask = documents.cache[f"mask {window}"] = ((owner[:, :, None] == owner[:, None, :]) & band)[:, None]
    return _attention_fused(heads, num_heads, length, mask)


def _attention_fused(heads: Tensor, num_heads: int, length: int, mask: Tensor | None) -> Tensor:
    """Documents or rows of equal length through torch's fused kernel. heads: (H + 2 Hk, B T, D). Returns (B T, H D).

    mask: (T, T) or (B, 1, T, T) bool, where a token looks; None for all that stand before it.
    """
    _, tokens, width = heads.shape
    # (B, H, T, D) each
    q, k, v = (part.view(len(part), -1, length, width).transpose(0, 1) for part in _parts(heads, num_heads))
    if k.shape[1] != num_heads:
        k, v = (part.repeat_interleave(num_heads // part.shape[1], dim=1) for part in (k, v))
    out = fused_attention(q, k, v, mask, is_causal=mask is None)
    return out.transpose(1, 2).reshape(tokens, num_heads * width)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool = False) -> Tensor:
    """torch's fused kernel, of queries that are scaled already."""
    q, k, v = for_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, scale=1.0)


def _parts(heads: Tensor, num_heads: int) -> tuple[Tensor, ...]:
    """Queries (H, N, D), keys and values (Hk, N, D)."""
    kv_heads = (heads.shape[0] - num_heads) // 2
    return torch.split(heads, [num_heads, kv_heads, kv_heads])


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """(T, T) bool: token i sees j where i - window < j <= i."""
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < window)


def attention_cached(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, exact: bool = False) -> Tensor:
    """One new token per row against everything its row has stored.

    q: (B, H, D), already scaled; keys, values: (B, Hk, S, D), the new token's own included; mask: (B, 1, 1, S)
    bool, True where a row may look, None where all may look everywhere; exact: a row's bits do not depend on B.
    Returns (B, H D).
    """
    batch, heads, width = q.shape
    kv_heads = keys.shape[1]
    shared = heads // kv_heads
    # Query heads that share a key head become rows of one product: the stored keys are never repeated.
    grouped = q.reshape(batch, kv_heads, shared, width)
    if exact:
        # Products with 1, 3, 5, 6 or 7 rows differ by the thread that works them out (torch 2.13, MKL); powers of two
        # from 2 on do not.
        grouped = F.pad(grouped, (0, 0, 0, max(2, 1 << (shared - 1).bit_length()) - shared))
    if keys.dtype != q.dtype:
        keys, values = keys.to(q.dtype), values.to(q.dtype)
    out = fused_attention(grouped, keys, values, mask)
    return out[:, :, :shared].reshape(batch, heads * width)


def attention_continued(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """New tokens of one row against what it has stored, their own keys included.

    q: (N, H, D), already scaled; keys, values: (Hk, S, D); mask: of `continued_mask`. Returns (N, H D).
    """
    tokens, heads, width = q.shape
    kv_heads = keys.shape[0]
    shared = heads // kv_heads
    # (1, Hk, R N, D): as in `attention_cached`, the tokens of one head after those of another.
    rows = q.view(tokens, kv_heads, shared, width).permute(1, 2, 0, 3).reshape(1, kv_heads, shared * tokens, width)
    out = fused_attention(rows, keys[None].to(q.dtype), values[None].to(q.dtype), mask)
    return out.view(kv_heads, shared, tokens, width).permute(2, 0, 1, 3).reshape(tokens, heads * width)


def continued_mask(seen: Tensor, shared: int, dtype: torch.dtype) -> Tensor:
    """What `attention_continued` adds to scores of so many query heads a key head, (R N, S): once for all layers.

    seen: (N, S) bool, True where a token looks.
    """
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf).repeat(shared, 1)


def _fits_varlen(heads: Tensor) -> bool:
    """Whether heads (H + 2 Hk, N, D) are what variable-length attention takes, backward pass included.

    Its backward pass wants D a multiple of 8, and not every GPU has it for more than 192 channels.
    """
    width = heads.shape[2]
    return heads.is_cuda and heads.dtype in (torch.bfloat16, torch.float16) and width % 8 == 0 and width <= 192


@cache
def has_varlen(device: torch.device) -> bool:
    """Whether this torch and GPU have variable-length attention: FlashAttention needs compute capability 8.0."""
    is_there = importlib.util.find_spec("torch.nn.attention.varlen") is not None
    is_built = torch.backends.cuda.is_flash_attention_available()
    return is_there and is_built and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _varlen_options() -> frozenset[str]:
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def _attention_varlen(heads: Tensor, num_heads: int, documents: Documents, window: int | None) -> Tensor:
    """One call for all documents. The bounds are on the device once per batch."""
    from torch.nn.attention.varlen import varlen_attn

    bounds = documents.cache.get("bounds")
    if bounds is None:
        bounds = to_device(torch.tensor(documents.bounds, dtype=torch.int32), heads.device)
        documents.cache["bounds"] = bounds
    longest = max(documents.lengths)
    q, k, v = (part.transpose(0, 1) for part in _parts(heads, num_heads))  # (N, H, D)
    options: dict[str, Any] = {}
    if k.shape[1] != num_heads:
        if "enable_gqa" in _varlen_options():
            options["enable_gqa"] = True
        else:
            k, v = (part.repeat_interleave(num_heads // part.shape[1], dim=1) for part in (k, v))
    # (tokens seen to the left, to the right); -1 is torch's word for unlimited.
    seen = (-1 if window is None else window - 1, 0)
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=seen, scale=1.0, **options)
    assert isinstance(out, Tensor)
    return out.flatten(1)
