"""A GGUF file as a model of the batch (batching.py): llama.cpp computes, all else is ours.

Each slot is a sequence of one llama.cpp context, so that a step reads one token of every live stream in one call.
A sequence keeps what it held when its stream has left: the next prompt that begins alike goes on from there. Room
grows by doubling as it is needed; a context that nobody uses waits for the next batch with as many slots.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gradus.core.errors import GenerationError
from gradus.engine.llamacpp_library import LlamaCppContext, LlamaCppFile

_AT_ONCE, _AT_ONCE_EXACT = 16, 4
"""Streams that are worth decoding together: all share one store, which each looks through (EXPERIMENTS.md)."""

_FIRST_ROOM = 256
_LEAST_FOUND = 16
"""Tokens of a common beginning below which reading them again is as good."""


@dataclass(frozen=True)
class LlamaCppConfig:
    """What the engine asks of a model's shape. bytes_per_token: of keys and values; max_slots: of one batch.

    num_at_once: how many streams are worth decoding together.
    """

    context: int
    vocab_size: int
    bytes_per_token: int
    num_parameters: int
    max_slots: int
    num_at_once: int
    attends_to_all_alone: bool = True


class LlamaCppModel:
    """A GGUF file that llama.cpp computes, on the processor."""

    def __init__(self, path: Path) -> None:
        """Errors: as of `LlamaCppFile`."""
        self.file = LlamaCppFile(path)
        self.config = LlamaCppConfig(
            context=self.file.trained_context,
            vocab_size=self.file.vocab_size,
            bytes_per_token=self.file.values_per_token * (4 if self.file.is_fp32 else 2),
            num_parameters=self.file.num_parameters,
            max_slots=self.file.max_sequences - 1,  # one is for a common beginning
            num_at_once=_AT_ONCE_EXACT if self.file.is_fp32 else _AT_ONCE,
        )
        self.device = torch.device("cpu")
        self._idle: list[_Sequences] = []  # at most one

    def sequences(self, number: int) -> _Sequences:
        """So many, for one batch; `give_back` them. Errors: GenerationError."""
        if number > self.file.max_sequences:
            raise GenerationError(f"llama.cpp answers at most {self.config.max_slots} at once, found {number} slots")
        if self._idle and self._idle[-1].context.num_sequences == number:
            return self._idle.pop()
        context = LlamaCppContext(self.file, number, _FIRST_ROOM, exact=self.file.is_fp32)
        return _Sequences(context, [[] for _ in range(number)], [""] * number)

    def give_back(self, sequences: _Sequences, *, empty: bool) -> None:
        """Keep sequences for the next batch, with what they hold or empty."""
        if sequences.is_broken:
            return
        if empty:
            for number, tokens in enumerate(sequences.tokens):
                tokens.clear()
                sequences.context.forget(number)
        self._idle[:] = [sequences]


@dataclass(eq=False)
class _Sequences:
    """A context and the tokens that each of its sequences holds, with the salt of whoever left them.

    is_broken: a read failed half way.
    """

    context: LlamaCppContext
    tokens: list[list[int]]
    salts: list[str]
    is_broken: bool = False


class LlamaCppSlots:
    """The slots of one batch: sequences of a context, as SlotCache is rows of a tensor.

    With a common beginning that beginning is a sequence of its own, and positions of slots count from its end.
    """

    def __init__(self, model: LlamaCppModel, num_slots: int, prefix_ids: Sequence[int] = ()) -> None:
        self._model = model
        self._prefix = list(prefix_ids)
        self._held = held = model.sequences(num_slots + bool(self._prefix))
        # Behind a common beginning a sequence's tokens do not tell all that it holds.
        weakref.finalize(self, model.give_back, held, empty=bool(self._prefix))
        self._sequence = list(range(num_slots))  # of each slot
        self._live: set[int] = set()  # sequences of open slots
        self._most_live = num_slots * model.config.context
        self.limit = model.config.context - len(self._prefix)
        # Of the next read: the sequence of each token, and whether what follows it is wanted.
        self._step: tuple[Sequence[int], Sequence[bool]] = ((), ())
        if self._prefix:
            self._live.add(num_slots)
            self._forget(num_slots, 0)
            self._read_into(num_slots, self._prefix, 0, wanted=False)

    @property
    def num_bytes(self) -> int:
        """Bytes that keys and values have room for now."""
        return self._held.context.room * self._model.config.bytes_per_token

    @property
    def is_grown(self) -> bool:
        """Never to be made small again: what sequences hold would be lost."""
        return False

    @property
    def most_bytes(self) -> int:
        """Bytes that they may come to."""
        return self._most_live * self._model.config.bytes_per_token

    def open(self, slot: int, prompt: Sequence[int], salt: str = "", *, go_on: bool = True) -> int:
        """go_on: whether what a sequence kept may be used."""
        found = 0
        if go_on and not self._prefix:
            free = range(slot, len(self._sequence))
            held = [self._usable(self._sequence[place], prompt, salt) for place in free]
            longest = max(held)
            # The emptiest of those that hold as much, so that what others kept stays.
            fitting = [place for place, count in zip(free, held, strict=True) if count == longest]
            chosen = min(fitting, key=lambda place: len(self._held.tokens[self._sequence[place]]))
            self._swap(slot, chosen)
            found = longest if longest >= _LEAST_FOUND else 0
        sequence = self._sequence[slot]
        self._live.add(sequence)
        self._held.salts[sequence] = salt
        self._forget(sequence, found)
        if self._prefix:
            self._held.context.share(len(self._sequence), sequence)
        return found

    def _usable(self, sequence: int, prompt: Sequence[int], salt: str) -> int:
        """How many tokens of a sequence a prompt may go on from."""
        held = self._held.tokens[sequence]
        found = _common(held, prompt)
        # What a window has passed may be gone, and would be seen again after a step back.
        is_seen_again = self._model.file.has_windows and found < len(held)
        return 0 if is_seen_again or self._held.salts[sequence] != salt else found

    def leave(self, slot: int) -> None:
        """The stream of a slot has left; its tokens stay until their room is needed."""
        self._live.discard(self._sequence[slot])

    def move(self, source: int, target: int) -> None:
        """Give slot `target`, whose stream has left, what slot `source` holds."""
        self._swap(source, target)

    def _swap(self, one: int, other: int) -> None:
        names = self._sequence
        names[one], names[other] = names[other], names[one]

    def find(self, slot: int, start: int, ahead: Sequence[int]) -> int:
        return 0  # only what a sequence began with

    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int]) -> Tensor:
        self._step = [self._sequence[slot] for slot in slots], [True] * len(slots)
        return self._read(list(tokens), [len(self._prefix) + length for length in lengths])

    def read(self, slot: int, start: int, tokens: Sequence[int]) -> Tensor:
        return self._read_into(self._sequence[slot], list(tokens), len(self._prefix) + start, wanted=True)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden  # logits already

    def prefill(self, first_slot: int, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """Read whole prompts, without the common beginning, into slots from one on.

        Returns logits (P, V) behind each, and how many tokens of each its slot held already. What a slot kept is used
        where it is the only one: answers to many are to depend on what was asked alone.
        """
        sequences: list[int] = []
        wanted: list[bool] = []
        ids: list[int] = []
        positions: list[int] = []
        held: list[int] = []
        for slot, prompt in enumerate(prompts, start=first_slot):
            found = self.open(slot, prompt, go_on=len(self._sequence) == 1)
            held.append(found)
            unread = prompt[found:]
            ids += unread
            positions += [len(self._prefix) + found + place for place in range(len(unread))]
            sequences += [self._sequence[slot]] * len(unread)
            wanted += [False] * (len(unread) - 1) + [True]
        self._step = sequences, wanted
        return self._read(ids, positions), held

    def _read(self, ids: list[int], positions: list[int]) -> Tensor:
        """Read the tokens that were announced; logits (rows, V)."""
        sequences, wanted = self._step
        self._reserve(len(ids))
        held = self._held
        held.is_broken = True
        logits = held.context.read(ids, positions, sequences, wanted)
        held.is_broken = False
        for sequence, token in zip(sequences, ids, strict=True):
            held.tokens[sequence].append(token)
        return torch.from_numpy(logits)

    def _read_into(self, sequence: int, ids: list[int], start: int, *, wanted: bool) -> Tensor:
        """Read into one sequence; logits (1, V) behind the last, or (0, V)."""
        self._step = [sequence] * len(ids), [False] * (len(ids) - 1) + [wanted]
        return self._read(ids, list(range(start, start + len(ids))))

    def _forget(self, sequence: int, start: int) -> None:
        del self._held.tokens[sequence][start:]
        self._held.context.forget(sequence, start)

    def _reserve(self, count: int) -> None:
        """Make room for so many more tokens: of what streams that left have kept, then by growing."""
        held = self._held
        needed = count + sum(map(len, held.tokens))
        if needed <= held.context.room:
            return
        for sequence in range(held.context.num_sequences):
            if sequence not in self._live:
                needed -= len(held.tokens[sequence])
                self._forget(sequence, 0)
        room = held.context.room
        while room < needed:
            room *= 2
        if room > held.context.room:
            held.is_broken = True
            held.context = held.context.grown(room)
            held.is_broken = False


def _common(held: Sequence[int], prompt: Sequence[int]) -> int:
    """Tokens at the start that both have, short of the prompt's last, which is read for what follows it."""
    most = min(len(held), len(prompt) - 1)
    return next((place for place in range(most) if held[place] != prompt[place]), most)
