"""Prompts read before: keys and values of their blocks, by the tokens up to each block's end.

A block is found by a digest of all tokens from the beginning to its end, so that it is used only where everything it
was worked out from is the same. What was used longest ago goes first once the budget is spent; a block is never older
than those behind it, which are of no use without it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]
Block = list[KeysValues]


def block_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a block of these tokens behind the one that `before` names; b"" names the beginning."""
    return hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=32, key=before).digest()


class PrefixCache:
    """Blocks within a budget of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()  # used longest ago first

    def __len__(self) -> int:
        return len(self._blocks)

    def get(self, key: bytes) -> Block | None:
        return self._blocks.get(key)

    def put(self, keys: Sequence[bytes], block: Block) -> None:
        """Keep a block, the last of `keys`, which name it and all before it; not where it is larger than the budget."""
        size = _num_bytes(block)
        if keys[-1] not in self._blocks and size <= self.max_bytes:
            self._blocks[keys[-1]] = block
            self.num_bytes += size
        self.used(keys)
        while self.num_bytes > self.max_bytes:
            _, oldest = self._blocks.popitem(last=False)
            self.num_bytes -= _num_bytes(oldest)

    def used(self, keys: Sequence[bytes]) -> None:
        """These blocks, one behind the other, were used just now."""
        for key in reversed(keys):
            if key in self._blocks:
                self._blocks.move_to_end(key)


def _num_bytes(block: Block) -> int:
    return sum(part.numel() * part.element_size() for pair in block for part in pair)
