"""The slots of a batch where our own model computes: a SlotCache, and chunks of what was read for who begins alike.

Of an exact batch's streams only chunks that were read at once are kept: what was sampled was worked out in other
products, and would round what follows differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradus.engine.cache import SlotCache
from gradus.engine.compiled import FixedSteps
from gradus.engine.prefix_cache import PrefixCache, beginning_key, block_key
from gradus.engine.reading import PrefixedFill, SlotReading
from gradus.engine.slots import CHUNK_TOKENS
from gradus.model.batch import Documents
from gradus.model.transformer import Transformer


@dataclass(eq=False)
class _Line:
    """What is known by name of a slot's tokens.

    keys: of its beginning and its whole chunks so far; tail: the tokens behind them, None once they are not to be kept.
    """

    keys: list[bytes] = field(default_factory=list)
    tail: list[int] | None = None

    def next_key(self, ahead: Sequence[int]) -> bytes | None:
        """The name of the whole chunk that is read next; None where there is none, or where it is the last."""
        if self.tail != [] or len(ahead) <= CHUNK_TOKENS:
            return None
        return block_key(self.keys[-1], ahead[:CHUNK_TOKENS])


class ModelSlots:
    """Slots of a Transformer."""

    def __init__(
        self,
        model: Transformer,
        num_slots: int,
        prefix_ids: Sequence[int] = (),
        *,
        row_tile: int | None = None,
        prefixes: PrefixCache | None = None,
    ) -> None:
        """As of DecodeBatch."""
        assert model.config.attends_to_all_alone or not prefix_ids, "this model's prompts cannot share a beginning"
        assert row_tile is None or not model.has_compiled_steps, "compiled steps are not exact"
        self._model = model
        self._device = model.device
        self._row_tile = row_tile
        self._prefixes = None if prefix_ids else prefixes
        self.cache = _slot_cache(model, num_slots, prefix_ids, exact=row_tile is not None)
        self.limit = self.cache.limit
        self._lines = [_Line() for _ in range(num_slots)]
        self._fixed_steps = FixedSteps(model, self.cache) if model.has_compiled_steps else None

    @property
    def num_bytes(self) -> int:
        return self.cache.num_bytes

    @property
    def most_bytes(self) -> int:
        return self.cache.most_bytes

    @property
    def is_grown(self) -> bool:
        return self.cache.is_grown

    def open(self, slot: int, prompt: Sequence[int], salt: str = "") -> int:
        # A slot that was left holds its numbers still: who goes on from them copies nothing.
        kept = set(self._lines[slot].keys) if self._model.config.attends_to_all_alone else set()
        line = self._lines[slot] = _Line() if self._prefixes is None else _Line([beginning_key(salt)], [])
        found = 0
        while (key := line.next_key(prompt[found : found + CHUNK_TOKENS + 1])) in kept and key is not None:
            line.keys.append(key)
            found += CHUNK_TOKENS
        self.cache.enter(slot, found)
        return found

    def find(self, slot: int, start: int, ahead: Sequence[int]) -> int:
        if self._prefixes is None:
            return 0
        line = self._lines[slot]
        key = line.next_key(ahead)
        block = None if key is None else self._prefixes.get(key)
        if key is not None and block is not None:
            self.cache.put_block(slot, start, start + CHUNK_TOKENS, block)
            line.keys.append(key)
        self._prefixes.used(line.keys)
        return 0 if block is None else CHUNK_TOKENS

    def prefill(self, first_slot: int, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        lengths = [len(prompt) for prompt in prompts]
        tokens = torch.tensor([token for prompt in prompts for token in prompt], device=self._device)
        documents = Documents.of_lengths(lengths, self._device)
        self.cache.reserve(max(lengths))
        for slot in range(first_slot, first_slot + len(prompts)):
            self._lines[slot] = _Line()
            self.cache.enter(slot, 0)
        if self.cache.prefix_length:
            positions = documents.positions + self.cache.prefix_length
            hidden = self._model.decode(tokens, positions, PrefixedFill(self.cache, documents, first_slot))
        else:
            hidden, recording = self._model.prefill(tokens, documents)
            for layer, (keys, values) in enumerate(recording.keys_values):
                self.cache.fill(layer, documents, first_slot, keys, values)
            self.cache.fill_recent(first_slot, recording.recent)
        last = torch.tensor(documents.bounds[1:], device=self._device) - 1
        return hidden[last], [0] * len(prompts)

    def read(self, slot: int, start: int, tokens: Sequence[int]) -> Tensor:
        positions = torch.arange(start, start + len(tokens), device=self._device) + self.cache.prefix_length
        reading = SlotReading(self.cache, slot, start, len(tokens))
        hidden = self._model.decode(torch.tensor(tokens, device=self._device), positions, reading)
        self._keep(slot, start + len(tokens), tokens)
        return hidden[-1:]

    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int]) -> Tensor:
        if self._fixed_steps is not None:
            hidden = self._fixed_steps.take(slots, lengths, tokens)
        else:
            filling = [0] * (0 if self._row_tile is None else -len(slots) % self._row_tile)
            positions = torch.tensor([*lengths, *filling], device=self._device) + self.cache.prefix_length
            self.cache.begin_step(slots, lengths)
            hidden = self._model.decode(torch.tensor([*tokens, *filling], device=self._device), positions, self.cache)
        for slot, length, token in zip(slots, lengths, tokens, strict=True):
            self._keep(slot, length + 1, [token])
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        return self._model.head(hidden)

    def leave(self, slot: int) -> None:
        pass  # its numbers stay, for who comes next

    def move(self, source: int, target: int) -> None:
        self.cache.move(source, target)
        self._lines[target], self._lines[source] = self._lines[source], _Line()

    def _keep(self, slot: int, length: int, tokens: Sequence[int]) -> None:
        """Name the last tokens that a slot holds, now `length`; a whole chunk of them is kept for who begins alike."""
        line = self._lines[slot]
        if line.tail is None or self._prefixes is None:
            return
        line.tail += tokens
        if len(line.tail) == CHUNK_TOKENS and (self._row_tile is None or len(tokens) == CHUNK_TOKENS):
            line.keys.append(block_key(line.keys[-1], line.tail))
            line.tail = []
            if line.keys[-1] in self._prefixes:
                self._prefixes.used(line.keys)
            else:
                self._prefixes.put(line.keys, self.cache.block(slot, length - CHUNK_TOKENS, length))
        elif self._row_tile is not None:
            line.tail = None


def _slot_cache(model: Transformer, num_slots: int, prefix_ids: Sequence[int], *, exact: bool) -> SlotCache:
    """Slots for a model, behind a common beginning that is read for it."""
    prefix = None
    if prefix_ids:
        tokens = torch.tensor(prefix_ids, device=model.device)
        prefix = model.prefill(tokens, Documents.of_lengths([len(prefix_ids)], model.device))[1].keys_values
    return SlotCache.of_model(model, num_slots, prefix=prefix, exact=exact)
