"""Causal attention inside documents: the one definition, for training and for decoding with a cache.

Tokens of many documents lie end to end; a token sees itself and what stands before it in its own document.
On CUDA with bf16 the whole batch is one variable-length call (torch.nn.attention.varlen). Elsewhere documents
of like length are laid side by side, filled up at their end, and go through one fused call per length: a
causal token never sees what was filled in behind it, so the result is that of a loop over single documents.
"""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradus.model.batch import Documents

_STEPS_PER_OCTAVE = 8  # filled-up lengths: at most 1/8 longer than the document, few distinct ones


@dataclass(frozen=True)
class LengthGroup:
    """Documents of one filled-up length, at places [start, start + num_documents x length)."""

    start: int
    num_documents: int
    length: int


@dataclass(frozen=True)
class DocumentLayout:
    """Documents sorted into groups of like length.

    spread: (P,) int64, the token that stands at each of the P laid-out places (a filled-up place repeats its
    document's first token); gather: (N,) int64, the place of each token. Both None where the tokens already
    stand as they should.
    """

    groups: list[LengthGroup]
    spread: Tensor | None
    gather: Tensor | None


def attention(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int | None = None) -> Tensor:
    """Causal attention inside each document, scaled by 1 / sqrt(head dim).

    q: (N, H, D); k, v: (N, Hk, D), H a multiple of Hk; window: how many tokens a token sees, itself included,
    None for all. Returns (N, H, D).
    """
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and has_varlen():
        return _attention_varlen(q, k, v, documents, window)
    layout = document_layout(documents)
    if layout.spread is not None:
        q, k, v = (part.index_select(0, layout.spread) for part in (q, k, v))
    parts = []
    for group in layout.groups:
        rows = slice(group.start, group.start + group.num_documents * group.length)
        shape = (group.num_documents, group.length, -1, q.shape[-1])
        parts.append(_attention_dense(q[rows].view(shape), k[rows].view(shape), v[rows].view(shape), window))
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out if layout.gather is None else out.index_select(0, layout.gather)


def _attention_dense(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Documents of equal length. q: (B, T, H, D); k, v: (B, T, Hk, D). Returns (B T, H, D)."""
    batch, length, heads, width = q.shape
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, H, T, D)
    if k.shape[1] != heads:
        k, v = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (k, v))
    mask = None
    if window is not None and window < length:
        mask = _band(length, window, q.device)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return out.transpose(1, 2).reshape(batch * length, heads, width)


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """(T, T) bool: token i sees j where i - window < j <= i."""
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < window)


def attention_cached(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """One new token per row against everything its row has stored.

    q: (B, H, D); keys, values: (B, Hk, S, D), the new token's own included; mask: (B, 1, 1, S) bool, True
    where a row may look. Returns (B, H, D).
    """
    batch, heads, width = q.shape
    kv_heads = keys.shape[1]
    # Query heads that share a key head become rows of one product: the stored keys are never repeated.
    grouped = q.view(batch, kv_heads, heads // kv_heads, width)
    out = F.scaled_dot_product_attention(grouped, keys.to(q.dtype), values.to(q.dtype), attn_mask=mask)
    return out.reshape(batch, heads, width)


def document_layout(documents: Documents) -> DocumentLayout:
    """The groups for these documents, worked out once per batch."""
    found = documents.cache.get("layout")
    if found is None:
        found = documents.cache["layout"] = _build_layout(documents)
    return found


def _padded_length(length: int) -> int:
    step = max(8, 1 << max(0, length.bit_length() - 1 - (_STEPS_PER_OCTAVE.bit_length() - 1)))
    return -(-length // step) * step


def _build_layout(documents: Documents) -> DocumentLayout:
    lengths = documents.lengths
    device = documents.positions.device
    if len(set(lengths)) == 1:
        return DocumentLayout([LengthGroup(0, len(lengths), lengths[0])], None, None)
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(_padded_length(length), []).append(index)
    groups, spread = [], []
    gather = torch.empty(documents.bounds[-1], dtype=torch.int64)
    place = 0
    for padded in sorted(by_length):
        members = torch.tensor(by_length[padded])
        starts = torch.tensor(documents.bounds)[members]
        sizes = torch.tensor(lengths)[members]
        column = torch.arange(padded)
        inside = column[None, :] < sizes[:, None]  # (B, T)
        tokens = starts[:, None] + torch.where(inside, column[None, :], 0)
        spread.append(tokens.flatten())
        places = place + torch.arange(tokens.numel()).view_as(tokens)
        gather[tokens[inside]] = places[inside]
        groups.append(LengthGroup(place, len(members), padded))
        place += tokens.numel()
    return DocumentLayout(groups, torch.cat(spread).to(device), gather.to(device))


@cache
def has_varlen() -> bool:
    """Whether this torch brings variable-length attention."""
    return importlib.util.find_spec("torch.nn.attention.varlen") is not None


@cache
def _varlen_options() -> frozenset[str]:
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def _attention_varlen(q: Tensor, k: Tensor, v: Tensor, documents: Documents, window: int | None) -> Tensor:
    """One call for all documents. The bounds are on the device once per batch."""
    from torch.nn.attention.varlen import varlen_attn

    bounds = documents.cache.get("bounds")
    if bounds is None:
        bounds = torch.tensor(documents.bounds, dtype=torch.int32).to(q.device, non_blocking=True)
        documents.cache["bounds"] = bounds
    longest = max(documents.lengths)
    options: dict[str, Any] = {}
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in _varlen_options():
            options["enable_gqa"] = True
        else:
            k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
    # (tokens seen to the left, to the right); -1 is torch's word for unlimited.
    seen = (-1 if window is None else window - 1, 0)
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=seen, **options)
    assert isinstance(out, Tensor)
    return out
