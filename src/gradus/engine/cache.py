"""Keys and values of the running requests: one slot each, the live slots always the first ones.

A request that leaves hands its slot to the last live one, so that a decode step works on plain views of neighbouring
slots: no gather, no paging. Positions are per row; what lies beyond a row's own length is masked. Slots are filled in
order of length and all rows grow alike, so neighbours stay about equally long: attention runs over chunks of them, each
cut at its own longest. Prompts that begin alike share that beginning, which is stored once for all slots. The length
of a slot grows by doubling up to the model's context; in a layer with a window it is a ring that ends at the window.
What a model reads of the last few tokens besides keys and values (model/past.py) lies beside them, by key.

A slot that is left keeps its numbers, so that who comes next can go on from them. What lies beyond a row's own length
is set to zero shortly before it is looked at: a masked position is multiplied by weight 0, and 0 x NaN would be NaN, of
one request's numbers in another's. So memory that no row reached is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradus.engine.prefix_cache import Block, KeysValues
from gradus.model.attention import attention_cached
from gradus.model.batch import Documents
from gradus.model.prefix import attention_cached_after
from gradus.model.transformer import Transformer

_FIRST_CAPACITY = 64
_CHUNK_ROWS = 32
_WIPED_AT_ONCE = 256
_LENGTH_STEP = 64
"""In an exact cache rows are attended to in whole multiples of this: the bits of a row then go by its own length."""


class SlotCache:
    """Storage for `num_slots` requests behind a common beginning, which may be empty.

    keys, values: by layer, (slots, kv heads, room of the layer, head dim), without the beginning; lengths and positions
    of slots count from its end. A decode step is `begin_step`, then one `attend` per layer from inside the model.
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
        exact: bool = False,
    ) -> None:
        """prefix: keys and values (P, kv heads, head dim) of the common beginning in each layer.

        windows: how many tokens each layer sees, None for all; not together with a prefix. exact: what a row attends to
        is the same arithmetic whoever its neighbours are, in more and smaller pieces.
        """
        self.windows = list(windows or [None] * num_layers)
        assert not prefix or not any(self.windows), "windows do not reach into a common beginning"
        self._exact = exact
        self._recent: dict[str, Tensor] = {}  # (slots, reach, d)
        # (kv heads, P, head dim)
        self.prefix = [(k.transpose(0, 1).contiguous(), v.transpose(0, 1).contiguous()) for k, v in prefix or ()]
        self.prefix_length = self.prefix[0][0].shape[1] if self.prefix else 0
        self.limit = context - self.prefix_length
        self.capacity = min(_FIRST_CAPACITY, self.limit)
        self.num_slots = num_slots
        self._held = [0] * num_slots  # positions of each slot that hold a row's numbers
        self._wiped = [0] * num_slots  # up to where there are zeros behind what the row holds

        def room(window: int | None) -> Tensor:
            return torch.empty((num_slots, num_kv_heads, self.room(window), head_dim), dtype=dtype, device=device)

        self.keys = [room(window) for window in self.windows]
        self.values = [room(window) for window in self.windows]
        self._step = _Step(torch.empty(0, dtype=torch.int64, device=device), {}, None, [], 0)

    @classmethod
    def of_model(
        cls, model: Transformer, num_slots: int, *, prefix: Sequence[KeysValues] | None = None, exact: bool = False
    ) -> SlotCache:
        """Slots of a model's shape, type and device."""
        c = model.config
        return cls(
            num_layers=c.depth,
            num_slots=num_slots,
            num_kv_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            context=c.context,
            dtype=model.compute_dtype,
            device=model.device,
            prefix=prefix,
            windows=c.windows,
            exact=exact,
        )

    @property
    def num_bytes(self) -> int:
        """Bytes that keys and values of all slots hold now."""
        return sum(stored.numel() * stored.element_size() for stored in (*self.keys, *self.values))

    @property
    def most_bytes(self) -> int:
        """Bytes that they hold once a slot is as long as it may get."""
        positions = sum(_room(window, self.limit) for window in self.windows)
        one = self.keys[0][:, :, :1]
        return 2 * positions * one.numel() * one.element_size()

    @property
    def is_grown(self) -> bool:
        """Whether slots are longer than they were at first."""
        return self.capacity > min(_FIRST_CAPACITY, self.limit)

    def room(self, window: int | None) -> int:
        """Positions that a slot holds now in a layer with this window."""
        return _room(window, self.capacity)

    def reserve(self, length: int) -> None:
        """Make room for `length` positions in every slot; what is stored stays."""
        assert length <= self.limit, f"{length} positions do not fit, at most {self.limit} do"
        if length <= self.capacity:
            return
        while self.capacity < length:
            self.capacity = min(2 * self.capacity, self.limit)
        for layer, window in enumerate(self.windows):
            for stored in (self.keys, self.values):
                stored[layer] = self._grown(stored[layer], self.room(window))
        self._wiped = [0] * self.num_slots

    def _grown(self, stored: Tensor, room: int) -> Tensor:
        """What the slots hold, with room for so many positions."""
        if stored.shape[2] == room:
            return stored
        grown = stored.new_empty((*stored.shape[:2], room, stored.shape[3]))
        for slot, held in enumerate(self._held):
            grown[slot, :, :held] = stored[slot, :, :held]
        return grown

    def enter(self, slot: int, kept: int) -> None:
        """A new row takes a slot and goes on from the first `kept` positions that the slot's last row left there."""
        self._held[slot], self._wiped[slot] = kept, 0
        for stored in self._recent.values():
            stored[slot] = 0

    def move(self, source: int, target: int) -> None:
        """Give slot `target`, whose row is gone, all that slot `source` holds."""
        length = self._held[source]
        for stored in (*self.keys, *self.values):
            stored[target, :, :length] = stored[source, :, :length]
        for recent in self._recent.values():
            recent[target] = recent[source]
        self._held[source], self._held[target], self._wiped[target] = 0, length, 0

    def hold(self, slot: int, length: int) -> None:
        """A slot's row comes to hold so many positions."""
        self._held[slot] = max(self._held[slot], length)

    def wipe(self, slot: int, length: int, end: int) -> None:
        """Have zeros in a slot from `length`, the end of what its row holds, to `end`."""
        if max(length, self._wiped[slot]) >= end:
            return
        end = min(-(-end // _WIPED_AT_ONCE) * _WIPED_AT_ONCE, self.capacity)
        for stored in (*self.keys, *self.values):
            stored[slot, :, max(length, self._wiped[slot]) : end] = 0
        self._wiped[slot] = end

    def fill(self, layer: int, documents: Documents, first_slot: int, keys: Tensor, values: Tensor) -> None:
        """Store a prefill, document i in slot first_slot + i. keys, values: (N, kv heads, head dim)."""
        for slot, length in enumerate(documents.lengths, start=first_slot):
            self.hold(slot, length)
        slots, positions = documents.index + first_slot, documents.positions
        room = self.keys[layer].shape[2]
        if max(documents.lengths) > room:  # a ring holds the end of a long document
            lengths = torch.tensor(documents.lengths, device=positions.device)[documents.index]
            kept = (positions >= lengths - room).nonzero()[:, 0]
            slots, positions, keys, values = slots[kept], positions[kept] % room, keys[kept], values[kept]
        self._store(layer, slots, positions, keys, values)

    def _store(self, layer: int, slots: Tensor, places: Tensor, keys: Tensor, values: Tensor) -> None:
        stored = self.keys[layer], self.values[layer]
        for held, new in zip(stored, (keys, values), strict=True):
            held[slots, :, places] = new.to(held.dtype)

    def fill_recent(self, first_slot: int, recent: Mapping[str, Tensor]) -> None:
        """Store the last tokens of a prefill's documents, (documents, reach, d) by key, from a slot on."""
        for key, values in recent.items():
            self.recent_of(key, values)[first_slot : first_slot + len(values)] = values

    def recent(self, key: str, x: Tensor, reach: int) -> Tensor:
        """The last values under a key of the step's slots, (N, reach, d); then x (N, d) is stored behind them."""
        slots = self._step.slots
        stored = self.recent_of(key, x[:, None].expand(-1, reach, -1))
        before = stored[slots]
        stored[slots] = torch.cat([before[:, 1:], x[: len(slots), None]], dim=1)
        return _filled_up(before, len(x))

    def recent_of(self, key: str, like: Tensor) -> Tensor:
        """What is stored under a key, zero at first; like: (rows, reach, d)."""
        if key not in self._recent:
            self._recent[key] = like.new_zeros((self.num_slots, *like.shape[1:]))
        return self._recent[key]

    def begin_step(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Announce one new token for each of these slots, in rising order, which hold so many positions.

        What the model then asks for may have more rows; those behind the slots' are nobody's.
        """
        self.reserve(max(lengths) + 1)
        device = self.keys[0].device
        positions = torch.tensor(lengths, device=device)
        rooms = {window: self.room(window) for window in self.windows}
        places = {window: positions if window is None else positions % room for window, room in rooms.items()}
        # Where all hold as many, in slots one behind the other, plain copies and no masks will do.
        is_even = len(set(lengths)) == 1 and slots[-1] - slots[0] == len(slots) - 1
        masks: dict[int | None, Tensor | None] = {}  # (B, 1, 1, S) for each window
        for window, room in rooms.items():
            if is_even and not self._exact and not self.prefix and (window is None or window > lengths[0]):
                masks[window] = None
                continue
            masks[window] = seen_places(positions, window, room, self._seen(max(lengths)))
        chunks = []
        for rows in self._neighbours(slots, lengths):
            longest = self._seen(max(lengths[rows]))
            cut = {window: None if mask is None else mask[rows, ..., :longest] for window, mask in masks.items()}
            first = slots[rows.start]
            for row in range(rows.start, rows.stop):
                self.hold(slots[row], lengths[row] + 1)
                self.wipe(slots[row], lengths[row] + 1, longest)
            chunks.append(_Chunk(rows, slice(first, first + rows.stop - rows.start), longest, cut))
        even = (slice(slots[0], slots[-1] + 1), lengths[0]) if is_even else None
        self._step = _Step(torch.tensor(slots, device=device), places, even, chunks, len(slots))

    def _seen(self, length: int) -> int:
        """Positions to look at for a row that holds so many and gets one more."""
        if not self._exact:
            return length + 1
        return min(-(-(length + 1) // _LENGTH_STEP) * _LENGTH_STEP, self.capacity)

    def _neighbours(self, slots: Sequence[int], lengths: Sequence[int]) -> list[slice]:
        """Rows whose slots follow one another, in pieces; in an exact cache equally long up to a step."""
        pieces = []
        start = 0
        for row in range(1, len(slots) + 1):
            if (
                row == len(slots)
                or row - start == _CHUNK_ROWS
                or slots[row] != slots[row - 1] + 1
                or (self._exact and self._seen(lengths[row]) != self._seen(lengths[start]))
            ):
                pieces.append(slice(start, row))
                start = row
        return pieces

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Store the step's keys and values (N, Hk, D) and attend with queries (N, H, D). Returns (N, H D)."""
        window, step = self.windows[layer], self._step
        if keys.shape[0] > step.num_rows:
            keys, values = keys[: step.num_rows], values[: step.num_rows]
        room = self.keys[layer].shape[2]
        if step.even is None:
            self._store(layer, step.slots, step.places[window], keys, values)
        else:  # a third of the time
            slots, length = step.even
            self.keys[layer][slots, :, length % room] = keys
            self.values[layer][slots, :, length % room] = values
        outs = []
        for chunk in step.chunks:
            mask, places = chunk.masks[window], slice(min(chunk.longest, room))
            stored = self.keys[layer][chunk.slots, :, places], self.values[layer][chunk.slots, :, places]
            if self.prefix:
                assert mask is not None
                outs.append(attention_cached_after(queries[chunk.rows], *stored, mask, *self.prefix[layer]))
            else:
                outs.append(attention_cached(queries[chunk.rows], *stored, mask, exact=self._exact))
        out = outs[0] if len(outs) == 1 else torch.cat(outs)
        return _filled_up(out, queries.shape[0])

    def block(self, slot: int, start: int, stop: int) -> Block:
        """A copy of the last positions that a slot holds; start is a multiple of `stop - start`, as is a ring."""
        kept = []
        for keys, values in zip(self.keys, self.values, strict=True):
            places = _places(keys.shape[2], start, stop)
            kept.append((keys[slot, :, places].clone(), values[slot, :, places].clone()))
        return Block(kept, {key: stored[slot].clone() for key, stored in self._recent.items()})

    def put_block(self, slot: int, start: int, stop: int, block: Block) -> None:
        """Store such a copy behind the `start` positions that a slot holds."""
        self.reserve(stop)
        self.hold(slot, stop)
        for layer, (keys, values) in enumerate(block.keys_values):
            places = _places(self.keys[layer].shape[2], start, stop)
            self.keys[layer][slot, :, places] = keys
            self.values[layer][slot, :, places] = values
        for key, recent in block.recent.items():
            self.recent_of(key, recent[None])[slot] = recent


@dataclass(frozen=True)
class _Chunk:
    """Rows of a step that are attended to at once.

    longest: places to look at; masks: (rows, 1, 1, S) for each window, None where a row sees all of them.
    """

    rows: slice
    slots: slice
    longest: int
    masks: dict[int | None, Tensor | None]


@dataclass(frozen=True)
class _Step:
    """slots: (B,) int64; places: (B,) int64 where each new token goes, for each window.

    even: slots one behind the other and the one position of all their new tokens, or None.
    """

    slots: Tensor
    places: dict[int | None, Tensor]
    even: tuple[slice, int] | None
    chunks: list[_Chunk]
    num_rows: int


def seen_places(positions: Tensor, window: int | None, room: int, length: int) -> Tensor:
    """What each row sees of the first `length` places of its slot, of which there are `room`: (B, 1, 1, S) bool.

    positions: (B,), of the newest token of each row, which is stored.
    """
    # How long ago what lies at each place was stored; what was never stored seems older than the beginning.
    age = positions[:, None] - torch.arange(min(length, room), device=positions.device)
    seen = age >= 0 if window is None else age % room <= positions.clamp(max=window - 1)[:, None]
    return seen[:, None, None, :]


def _room(window: int | None, capacity: int) -> int:
    """Positions that a slot of so many holds in a layer with this window."""
    return capacity if window is None else min(capacity, -(-window // _LENGTH_STEP) * _LENGTH_STEP)


def _places(room: int, start: int, stop: int) -> slice:
    """Where positions lie in a layer with so much room, of which they fill a whole part."""
    return slice(start % room, start % room + stop - start)


def _filled_up(x: Tensor, rows: int) -> Tensor:
    """x (B, ...) with zeros behind it, (rows, ...)."""
    return x if x.shape[0] == rows else torch.cat([x, x.new_zeros((rows - len(x), *x.shape[1:]))])
