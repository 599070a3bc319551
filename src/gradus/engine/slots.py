"""What a batch (batching.py) needs of who computes: slots, each of which holds the tokens of one stream.

The live slots are always the first ones. Positions of a slot count from the end of the batch's common beginning, which
may be empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

CHUNK_TOKENS = 64
"""Tokens read between two steps of the others, where a stream enters; what was read is found again in such chunks."""


class Slots(Protocol):
    """Slots of one batch. What it gives for tokens that were read, (N, width), `head` makes logits of."""

    limit: int
    """Positions that a slot may come to hold."""

    @property
    def num_bytes(self) -> int:
        """Bytes that keys and values of all slots hold now."""
        ...

    @property
    def most_bytes(self) -> int:
        """Bytes that they may come to."""
        ...

    @property
    def is_grown(self) -> bool:
        """Whether a new batch would hold fewer bytes."""
        ...

    def open(self, slot: int, prompt: Sequence[int], salt: str = "") -> int:
        """Give a free slot to a new stream; how many tokens of its prompt it holds already, never all.

        prompt: without the common beginning. salt: it finds what streams with the same one left.
        """
        ...

    def find(self, slot: int, start: int, ahead: Sequence[int]) -> int:
        """Take over what was read before of the tokens ahead, behind the `start` positions held; how many, never all.

        ahead: the next CHUNK_TOKENS + 1, or all where there are fewer.
        """
        ...

    def prefill(self, first_slot: int, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """Read whole prompts, without the common beginning, into free slots from one on.

        Returns what follows each, (P, width), and how many tokens of each its slot held already.
        """
        ...

    def read(self, slot: int, start: int, tokens: Sequence[int]) -> Tensor:
        """Read tokens behind the `start` positions of a slot; what follows the last, (1, width)."""
        ...

    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Read one token in each of these slots, in rising order, which hold so many positions.

        Returns what follows each, (B, width), and maybe more rows that are nobody's.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of what the others gave, before anything else is read."""
        ...

    def leave(self, slot: int) -> None:
        """The stream of a slot has left."""
        ...

    def move(self, source: int, target: int) -> None:
        """Give slot `target`, whose stream has left, all that slot `source` holds."""
        ...
