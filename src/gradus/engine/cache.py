"""Keys and values of the running requests: one slot each, the live slots always the first ones.

A request that leaves hands its slot to the last live one, so that a decode step works on plain views of the
first B slots, cut at the longest live length: no gather, no paging. Positions are per row; what lies beyond a
row's own length is masked. The length of a slot grows by doubling up to the model's context.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST_CAPACITY = 128


class SlotCache:
    """Static storage for `num_slots` requests.

    keys, values: (layers, slots, kv heads, capacity, head dim). A decode step is `begin_step`, then one
    `append` per layer from inside the model.
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
    ) -> None:
        self.context = context
        self.capacity = min(_FIRST_CAPACITY, context)
        shape = (num_layers, num_slots, num_kv_heads, self.capacity, head_dim)
        # Zeros, not empty: a masked position is multiplied by weight 0, and 0 x NaN would be NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self._slots = torch.arange(num_slots, device=device)
        self._positions = torch.empty(0, dtype=torch.int64, device=device)
        self._longest = 0
        self._mask = torch.empty(0, dtype=torch.bool, device=device)

    @property
    def num_bytes(self) -> int:
        """Bytes that keys and values hold now."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def reserve(self, length: int) -> None:
        """Make room for `length` positions in every slot; what is stored stays. At most the context."""
        assert length <= self.context, f"{length} positions do not fit in a context of {self.context}"
        if length <= self.capacity:
            return
        capacity = self.capacity
        while capacity < length:
            capacity = min(2 * capacity, self.context)
        self.keys = _grown(self.keys, capacity)
        self.values = _grown(self.values, capacity)
        self.capacity = capacity

    def fill(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store a prefill.

        slots, positions: (N,) int64, where each token goes; keys, values: (N, kv heads, head dim).
        """
        self.keys[layer][slots, :, positions] = keys.to(self.keys.dtype)
        self.values[layer][slots, :, positions] = values.to(self.values.dtype)

    def move(self, source: int, target: int, length: int) -> None:
        """Give slot `target` the first `length` positions of slot `source`."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    def begin_step(self, positions: Tensor, longest: int) -> None:
        """Announce one token for each of the first B slots.

        positions: (B,) int64; longest: the largest of them, plus one.
        """
        self.reserve(longest)
        self._positions = positions
        self._longest = longest
        reach = torch.arange(longest, device=positions.device)
        self._mask = (reach <= positions[:, None])[:, None, None, :]  # (B, 1, 1, L)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Store this step's keys and values and return everything to attend to.

        keys, values: (B, kv heads, head dim). Returns views (B, kv heads, L, head dim) of keys and of values,
        L the longest live length, and the mask (B, 1, 1, L), True where a row may look.
        """
        num_rows = len(self._positions)
        slots = self._slots[:num_rows]
        layer_keys, layer_values = self.keys[layer], self.values[layer]
        layer_keys[slots, :, self._positions] = keys.to(layer_keys.dtype)
        layer_values[slots, :, self._positions] = values.to(layer_values.dtype)
        live = slice(0, num_rows)
        return layer_keys[live, :, : self._longest], layer_values[live, :, : self._longest], self._mask


def _grown(stored: Tensor, capacity: int) -> Tensor:
    """The same contents with room for `capacity` positions."""
    layers, slots, heads, length, width = stored.shape
    grown = stored.new_zeros((layers, slots, heads, capacity, width))
    grown[:, :, :, :length] = stored
    return grown
