"""Tokens read into slots by the chunk, or whole prompts behind a common beginning: what the model asks meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradus.engine.cache import SlotCache
from gradus.engine.prefix_cache import KeysValues
from gradus.model.attention import attention_continued, continued_mask
from gradus.model.batch import Documents
from gradus.model.prefix import attention_after


class PrefixedFill:
    """A prefill behind the common beginning: document i goes to slot first_slot + i."""

    def __init__(self, cache: SlotCache, documents: Documents, first_slot: int) -> None:
        self._cache, self._documents, self._first_slot = cache, documents, first_slot

    def recent(self, key: str, x: Tensor, reach: int) -> Tensor:
        raise AssertionError("a model that looks back by place shares no beginnings")

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries: (N, H, D); keys, values: (N, Hk, D) of all documents' tokens. Returns (N, H D)."""
        self._cache.fill(layer, self._documents, self._first_slot, keys, values)
        return attention_after(queries, keys, values, self._documents, *self._cache.prefix[layer])


class SlotReading:
    """`count` new tokens of one slot, behind the `start` that it holds."""

    def __init__(self, cache: SlotCache, slot: int, start: int, count: int) -> None:
        cache.reserve(start + count)
        cache.hold(slot, start + count)
        self._cache = cache
        self._slot, self._start, self._count = slot, start, count
        self._masks: dict[int | None, Tensor] = {}

    def recent(self, key: str, x: Tensor, reach: int) -> Tensor:
        stored = self._cache.recent_of(key, x[:1, None].expand(-1, reach, -1))
        line = torch.cat([stored[self._slot], x])  # (reach + N, d)
        stored[self._slot] = line[-reach:]
        return line[:-1].unfold(0, reach, 1).transpose(1, 2)

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries: (N, H, D); keys, values: (N, Hk, D). Returns (N, H D)."""
        window = self._cache.windows[layer]
        stored = self._cache.keys[layer][self._slot], self._cache.values[layer][self._slot]  # (Hk, room, D)
        new = [part.transpose(0, 1).to(stored[0].dtype) for part in (keys, values)]  # (Hk, N, D)
        whole = self._whole(stored, new) if window is None else self._ring(stored, new, window)
        if prefix := self._cache.prefix:
            whole = [torch.cat([first, part], dim=1) for first, part in zip(prefix[layer], whole, strict=True)]
        if window not in self._masks:
            seen = self._seen(window, whole[0].shape[1], queries.device)
            self._masks[window] = continued_mask(seen, queries.shape[1] // keys.shape[1], queries.dtype)
        return attention_continued(queries, whole[0], whole[1], self._masks[window])

    def _whole(self, stored: KeysValues, new: Sequence[Tensor]) -> list[Tensor]:
        """Store the new tokens and give all that the slot holds, (Hk, S, D) each."""
        stop = self._start + self._count
        for part, added in zip(stored, new, strict=True):
            part[:, self._start : stop] = added
        return [part[:, :stop] for part in stored]

    def _ring(self, stored: KeysValues, new: Sequence[Tensor], window: int) -> list[Tensor]:
        """As `_whole`, of what the new tokens see: looked up before it is stored over."""
        room, device = stored[0].shape[1], stored[0].device
        before = torch.arange(max(0, self._start - window + 1), self._start, device=device) % room
        seen = [torch.cat([part[:, before], added], dim=1) for part, added in zip(stored, new, strict=True)]
        kept = min(self._count, room)
        places = torch.arange(self._start + self._count - kept, self._start + self._count, device=device) % room
        for part, added in zip(stored, new, strict=True):
            part[:, places] = added[:, self._count - kept :]
        return seen

    def _seen(self, window: int | None, length: int, device: torch.device) -> Tensor:
        """(N, S) bool: the new tokens are the last of S, all that lie before them within the window are seen."""
        places = torch.arange(length, device=device)
        age = places[length - self._count :, None] - places
        return age >= 0 if window is None else (age >= 0) & (age < window)
