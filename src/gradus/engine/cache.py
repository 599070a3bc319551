"""Keys and values of the running requests: one slot each, the live slots always the first ones.

A request that leaves hands its slot to the last live one, so that a decode step works on plain views of the
first B slots: no gather, no paging. Positions are per row; what lies beyond a row's own length is masked.
Slots are filled in order of length and all rows grow alike, so neighbours stay about equally long: attention
runs over chunks of them, each cut at its own longest. Prompts that begin alike share that beginning, which is
stored once for all slots. The length of a slot grows by doubling up to the model's context. What a model reads of
the last few tokens besides keys and values (model/past.py) lies beside them, by key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradus.model.attention import attention_cached
from gradus.model.batch import Documents
from gradus.model.prefix import attention_after, attention_cached_after

_FIRST_CAPACITY = 64
_CHUNK_ROWS = 32

KeysValues = tuple[Tensor, Tensor]


class SlotCache:
    """Storage for `num_slots` requests behind a common beginning, which may be empty.

    keys, values: (layers, slots, kv heads, capacity, head dim), without the beginning; lengths and positions
    of slots count from its end. A decode step is `begin_step`, then one `attend` per layer from inside the
    model.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_slots: int,
        num_kv_heads: int,
        head_dim: int,
        context: int,
        dtype: torch.dtype,
        device: torch.device,
        prefix: Sequence[KeysValues] | None = None,
        windows: Sequence[int | None] | None = None,
    ) -> None:
        """prefix: keys and values (P, kv heads, head dim) of the common beginning in each layer.

        windows: how many tokens each layer sees, None for all; not together with a prefix.
        """
        self._windows = list(windows or [None] * num_layers)
        assert not prefix or not any(self._windows), "windows do not reach into a common beginning"
        self._recent: dict[str, Tensor] = {}  # (slots, reach, d)
        # (kv heads, P, head dim)
        self._prefix = [(k.transpose(0, 1).contiguous(), v.transpose(0, 1).contiguous()) for k, v in prefix or ()]
        self.prefix_length = self._prefix[0][0].shape[1] if self._prefix else 0
        self.limit = context - self.prefix_length
        self.capacity = min(_FIRST_CAPACITY, self.limit)
        shape = (num_layers, num_slots, num_kv_heads, self.capacity, head_dim)
        # Zeros, not empty: a masked position is multiplied by weight 0, and 0 x NaN would be NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self._slots = torch.arange(num_slots, device=device)
        self._positions = self._slots[:0]
        # rows, longest, and the mask for each window, None where a row sees all that is stored
        self._chunks: list[tuple[slice, int, dict[int | None, Tensor | None]]] = []
        self._place: int | None = None  # of this step's tokens, where it is the same in all rows

    @property
    def num_bytes(self) -> int:
        """Bytes that keys and values of all slots hold now."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def reserve(self, length: int) -> None:
        """Make room for `length` positions in every slot; what is stored stays."""
        assert length <= self.limit, f"{length} positions do not fit, at most {self.limit} do"
        if length <= self.capacity:
            return
        capacity = self.capacity
        while capacity < length:
            capacity = min(2 * capacity, self.limit)
        self.keys = _grown(self.keys, capacity)
        self.values = _grown(self.values, capacity)
        self.capacity = capacity

    def move(self, source: int, target: int, length: int) -> None:
        """Give slot `target` the first `length` positions of slot `source`."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
        for stored in self._recent.values():
            stored[target] = stored[source]

    def fill(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store a prefill.

        slots, positions: (N,) int64, where each token goes; keys, values: (N, kv heads, head dim).
        """
        self.keys[layer][slots, :, positions] = keys.to(self.keys.dtype)
        self.values[layer][slots, :, positions] = values.to(self.values.dtype)

    def fill_recent(self, first_slot: int, recent: Mapping[str, Tensor]) -> None:
        """Store the last tokens of a prefill's documents, (documents, reach, d) by key, from a slot on."""
        for key, values in recent.items():
            self._recent_of(key, values)[first_slot : first_slot + len(values)] = values

    def recent(self, key: str, x: Tensor, reach: int) -> Tensor:
        """The last values under a key of the first B slots, (B, reach, d); then x (B, d) is stored behind them."""
        stored = self._recent_of(key, x[:, None].expand(-1, reach, -1))[: len(x)]
        before = stored.clone()
        stored[:] = torch.cat([before[:, 1:], x[:, None]], dim=1)
        return before

    def _recent_of(self, key: str, like: Tensor) -> Tensor:
        """What is stored under a key, zero at first; like: (rows, reach, d)."""
        if key not in self._recent:
            self._recent[key] = like.new_zeros((len(self._slots), *like.shape[1:]))
        return self._recent[key]

    def begin_step(self, lengths: Sequence[int]) -> None:
        """Announce one new token for each of the first B slots, which hold so many positions."""
        self.reserve(max(lengths) + 1)
        self._positions = torch.tensor(lengths, device=self.keys.device)
        self._place = lengths[0] if min(lengths) == max(lengths) else None
        reach = torch.arange(max(lengths) + 1, device=self.keys.device)
        masks: dict[int | None, Tensor | None] = {}  # (B, 1, 1, S) for each window
        for window in set(self._windows):
            if self._place is not None and not self._prefix and (window is None or window > self._place):
                masks[window] = None
                continue
            distance = self._positions[:, None] - reach
            seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            masks[window] = seen[:, None, None, :]
        self._chunks = []
        for start in range(0, len(lengths), _CHUNK_ROWS):
            rows = slice(start, min(start + _CHUNK_ROWS, len(lengths)))
            longest = max(lengths[rows]) + 1
            cut = {window: None if mask is None else mask[rows, ..., :longest] for window, mask in masks.items()}
            self._chunks.append((rows, longest, cut))

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store this step's keys and values (B, Hk, D) and attend with queries (B, H, D). Returns (B, H D)."""
        if self._place is None:
            self.fill(layer, self._slots[: len(self._positions)], self._positions, keys, values)
        else:  # a plain copy takes a third of the time
            self.keys[layer, : len(keys), :, self._place] = keys
            self.values[layer, : len(keys), :, self._place] = values
        outs = []
        for rows, longest, masks in self._chunks:
            mask = masks[self._windows[layer]]
            stored = self.keys[layer, rows, :, :longest], self.values[layer, rows, :, :longest]
            if self._prefix:
                assert mask is not None
                outs.append(attention_cached_after(queries[rows], *stored, mask, *self._prefix[layer]))
            else:
                outs.append(attention_cached(queries[rows], *stored, mask))
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def filling(self, documents: Documents, first_slot: int) -> PrefixedFill:
        """What the model's decode needs to prefill these documents behind the beginning, from a slot on."""
        return PrefixedFill(self, self._prefix, documents, first_slot)


class PrefixedFill:
    """A prefill behind the common beginning: document i goes to slot first_slot + i."""

    def __init__(self, cache: SlotCache, prefix: Sequence[KeysValues], documents: Documents, first_slot: int) -> None:
        self._cache, self._prefix, self._documents = cache, prefix, documents
        self._slots = documents.index + first_slot

    def recent(self, key: str, x: Tensor, reach: int) -> Tensor:
        raise AssertionError("a model that looks back by place shares no beginnings")

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries: (N, H, D); keys, values: (N, Hk, D) of all documents' tokens. Returns (N, H D)."""
        self._cache.fill(layer, self._slots, self._documents.positions, keys, values)
        return attention_after(queries, keys, values, self._documents, *self._prefix[layer])


def _grown(stored: Tensor, capacity: int) -> Tensor:
    """The same contents with room for `capacity` positions."""
    layers, slots, heads, length, width = stored.shape
    grown = stored.new_zeros((layers, slots, heads, capacity, width))
    grown[:, :, :, :length] = stored
    return grown
