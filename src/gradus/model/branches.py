"""Documents whose end branches: what several endings share is read once, and each ending sees that and itself.

An item is a trunk and its branches, laid end to end as one document; all items may follow one common beginning,
whose keys and values are stored. It is handed to `Transformer.decode` in place of a cache, so the result is that of
reading the beginning, the trunk and one branch as a document of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradus.model.attention import fused_attention
from gradus.model.batch import Documents
from gradus.model.layout import LengthGroup, document_layout


class BranchedDocuments:
    """What `decode` asks for the past of items that branch.

    items: the documents; branch: (N,) int64 on the host, 0 for a token of the trunk and k for one of branch k, a
    trunk before its branches; beginning: keys and values (P, Hk, D) of the common beginning in each layer, or None.
    The model must attend to all tokens alone (`ModelConfig.attends_to_all_alone`).
    """

    def __init__(
        self, items: Documents, branch: Tensor, beginning: Sequence[tuple[Tensor, Tensor]] | None = None
    ) -> None:
        self._layout = document_layout(items)
        # (Hk, P, D)
        self._beginning = [(k.transpose(0, 1), v.transpose(0, 1)) for k, v in beginning or ()]
        self._before = self._beginning[0][0].shape[1] if self._beginning else 0
        device = items.positions.device
        is_plain = not self._beginning and not bool(branch.any())
        self._masks = [None if is_plain else self._mask(group, branch).to(device) for group in self._layout.groups]

    def recent(self, key: str, x: Tensor, reach: int) -> Tensor:
        raise AssertionError("a model that looks back by place reads no branches")

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries: (N, H, D), already scaled; keys, values: (N, Hk, D). Returns (N, H D)."""
        heads, width = queries.shape[1:]
        shared = heads // keys.shape[1]
        outs = []
        for group, mask in zip(self._layout.groups, self._masks, strict=True):
            # (B, H or Hk, T, D)
            q, k, v = (
                (part if group.spread is None else part.index_select(0, group.spread))
                .view(-1, group.length, *part.shape[1:])
                .transpose(1, 2)
                for part in (queries, keys, values)
            )
            if self._beginning:
                k, v = (
                    torch.cat([begin.expand(len(part), -1, -1, -1), part], dim=2)
                    for begin, part in zip(self._beginning[layer], (k, v), strict=True)
                )
            if shared > 1:
                k, v = (part.repeat_interleave(shared, dim=1) for part in (k, v))
            out = fused_attention(q, k, v, mask, is_causal=mask is None)
            outs.append(out.transpose(1, 2).reshape(-1, heads * width))
        out = outs[0] if len(outs) == 1 else torch.cat(outs)
        return out if self._layout.gather is None else out.index_select(0, self._layout.gather)

    def _mask(self, group: LengthGroup, branch: Tensor) -> Tensor:
        """(B, 1, T, P + T) bool, True where a token looks."""
        own = branch if group.spread is None else branch[group.spread.cpu()]
        own = own.view(-1, group.length)  # (B, T)
        keys = own[:, None, :]
        # Places that were filled up repeat a token of the trunk, behind everything: none of the others looks there.
        seen = ((keys == 0) | (keys == own[:, :, None])).tril()
        before = torch.ones(*seen.shape[:2], self._before, dtype=torch.bool)
        return torch.cat([before, seen], dim=2)[:, None]
