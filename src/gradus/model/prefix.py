"""Attention of documents that begin alike: their common beginning is stored and read once.

What follows the beginning attends to it and, causally, to its own document. Both parts share one softmax, so the
result is that of attending to the whole document.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradus.model.attention import fused_attention
from gradus.model.batch import Documents
from gradus.model.layout import document_layout


def attention_after(
    q: Tensor, k: Tensor, v: Tensor, documents: Documents, prefix_keys: Tensor, prefix_values: Tensor
) -> Tensor:
    """What follows the common beginning, many documents at once.

    q: (N, H, D), already scaled; k, v: (N, Hk, D); documents: of these N tokens, without the beginning;
    prefix_keys, prefix_values: (Hk, P, D). Returns (N, H D).
    """
    layout = document_layout(documents)
    heads, width = q.shape[1:]
    shared = heads // k.shape[1]
    outs = []
    for group in layout.groups:
        # (B, H or Hk, T, D)
        q_part, k_part, v_part = (
            (part if group.spread is None else part.index_select(0, group.spread))
            .view(-1, group.length, *part.shape[1:])
            .transpose(1, 2)
            for part in (q, k, v)
        )
        keys, values = (
            torch.cat([prefix.expand(len(part), -1, -1, -1), part], dim=2)
            for prefix, part in ((prefix_keys, k_part), (prefix_values, v_part))
        )
        if shared > 1:
            keys, values = (part.repeat_interleave(shared, dim=1) for part in (keys, values))
        mask = torch.ones(group.length, keys.shape[2], dtype=torch.bool, device=q.device)
        mask = mask.tril(prefix_keys.shape[1])
        out = fused_attention(q_part, keys, values, mask)
        outs.append(out.transpose(1, 2).reshape(-1, heads * width))
    out = outs[0] if len(outs) == 1 else torch.cat(outs)
    return out if layout.gather is None else out.index_select(0, layout.gather)


def attention_cached_after(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, prefix_keys: Tensor, prefix_values: Tensor
) -> Tensor:
    """One new token per row against the common beginning and everything its row has stored behind it.

    q: (B, H, D), already scaled; keys, values: (B, Hk, S, D); mask: (B, 1, 1, S) bool, True where a row may
    look; prefix_keys, prefix_values: (Hk, P, D). Returns (B, H D).
    """
    batch, heads, width = q.shape
    kv_heads, length = prefix_keys.shape[:2]
    shared = heads // kv_heads
    grouped = q.reshape(batch, kv_heads, shared, width)
    # All rows' queries of a head are one product with the beginning.
    together = grouped.transpose(0, 1).reshape(kv_heads, batch * shared, width)
    before = torch.bmm(together, prefix_keys.transpose(1, 2))  # (Hk, B G, P)
    before = before.view(kv_heads, batch, shared, length).transpose(0, 1)
    own = torch.matmul(grouped, keys.transpose(2, 3)).masked_fill_(~mask, -torch.inf)  # (B, Hk, G, S)
    weights = torch.softmax(torch.cat([before, own], dim=-1), dim=-1)
    before, own = torch.split(weights, [length, keys.shape[2]], dim=-1)
    together = before.transpose(0, 1).reshape(kv_heads, batch * shared, length)
    out = torch.bmm(together, prefix_values).view(kv_heads, batch, shared, width).transpose(0, 1)
    return (out + torch.matmul(own, values)).reshape(batch, heads * width)
