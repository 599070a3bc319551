"""Conversations so far: keys and values of their blocks, by the tokens up to each block's end.

A block is found by a digest of all tokens from the beginning to its end, so that it is used only where everything it
was worked out from is the same. The digest may begin with a salt, which keeps the blocks of those who share the cache
apart: how soon an answer comes tells nobody what others asked. What was used longest ago goes first once the budget is
spent; a block is never older than those behind it, which are of no use without it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Block:
    """What reading some tokens leaves behind.

    keys_values: (kv heads, tokens, head dim) each, by layer; recent: by key, (reach, d), at the last of the tokens.
    """

    keys_values: Sequence[KeysValues]
    recent: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        parts = [part for pair in self.keys_values for part in pair]
        return sum(part.numel() * part.element_size() for part in (*parts, *self.recent.values()))


def beginning_key(salt: str) -> bytes:
    """The name of the beginning, for those of one salt; "" is a salt too."""
    return hashlib.blake2b(salt.encode(), digest_size=_DIGEST_BYTES).digest()


def block_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a block of these tokens behind the block, or the beginning, that `before` names."""
    return hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=_DIGEST_BYTES, key=before).digest()


class PrefixCache:
    """Blocks within a budget of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()  # used longest ago first

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, key: bytes) -> bool:
        return key in self._blocks

    def get(self, key: bytes) -> Block | None:
        return self._blocks.get(key)

    def put(self, keys: Sequence[bytes], block: Block) -> None:
        """Keep a block, the last of `keys`, which name it and all before it; not where it is larger than the budget."""
        size = block.num_bytes
        if keys[-1] not in self._blocks and size <= self.max_bytes:
            self._blocks[keys[-1]] = block
            self.num_bytes += size
        self.used(keys)
        while self.num_bytes > self.max_bytes:
            _, oldest = self._blocks.popitem(last=False)
            self.num_bytes -= oldest.num_bytes

    def used(self, keys: Sequence[bytes]) -> None:
        """These blocks, one behind the other, were used just now."""
        for key in reversed(keys):
            if key in self._blocks:
                self._blocks.move_to_end(key)
