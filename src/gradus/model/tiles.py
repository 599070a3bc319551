"""Documents of many lengths cut into tiles of one length, so that causal attention is a few large products.

Tile i of a document has the tokens i L to (i + 1) L - 1 and attends to the tiles 0 to i. Documents come longest
first, so those that reach level i are the first ones of those that reach level i - 1, and all their tiles of a level go
together. The last tile of a document is filled up; under a causal mask no token sees what follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradus.model.batch import Documents
from gradus.model.config import QUERY_TILE

TILE_LENGTHS = (16, 32, 64, QUERY_TILE)
# Fitted on 2,048 tokens of documents of 16 to 512 in bf16 (EXPERIMENTS.md): a level costs as much as so many pairs of
# tokens times channels; a tile of 12 tokens would take twice the time for a pair that a long one takes.
_LEVEL_COST = 3_000_000
_TILE_COST = 12


@dataclass(frozen=True)
class Tiles:
    """All tiles of a batch, level by level.

    length: tokens of a tile; counts: tiles of each level, not increasing. spread: (tiles x length,) int64, the token at
    each place, a filled-up place repeating its document's last token; gather: (N,) int64, the place of each token;
    filled: the places that are no token's. Those three are None where the batch is one level as it stands.
    repeated: the places of tokens that documents share, in the order of `SharedPrefixes.repeated`.
    """

    length: int
    counts: list[int]
    spread: Tensor | None
    gather: Tensor | None
    filled: Tensor | None
    repeated: Tensor | None = None


def document_tiles(documents: Documents, query_width: int) -> Tiles:
    """The tiles of these documents on the host, worked out once per batch.

    query_width: channels of all query heads; the wider, the less it matters how many products there are.
    """
    found: Tiles | None = documents.cache.get("tiles")
    if found is None:
        found = documents.cache["tiles"] = _build(documents, _best_length(documents.lengths, query_width))
    return found


def _best_length(lengths: list[int], query_width: int) -> int:
    return min(TILE_LENGTHS, key=lambda length: _cost(lengths, length, query_width))


def _cost(lengths: list[int], tile: int, query_width: int) -> float:
    """What attention costs with tiles of this length, in pairs of tokens."""
    pairs = 0
    for length in lengths:
        levels = -(-length // tile)
        pairs += levels * (levels + 1) // 2 * tile * tile
    return pairs * (1 + _TILE_COST / tile) + -(-max(lengths) // tile) * _LEVEL_COST / query_width


def _build(documents: Documents, tile: int) -> Tiles:
    shared = documents.shared
    if shared is None and all(length == tile for length in documents.lengths):
        return Tiles(tile, [len(documents.lengths)], None, None, None)
    lengths, order = torch.sort(torch.tensor(documents.lengths), descending=True, stable=True)
    starts = torch.tensor(documents.bounds[:-1])[order]
    counts, tokens, inside = [], [], []
    for begin in range(0, int(lengths[0]), tile):
        count = int((lengths > begin).sum())
        column = torch.arange(begin, begin + tile)
        counts.append(count)
        tokens.append((starts[:count, None] + torch.minimum(column, lengths[:count, None] - 1)).flatten())
        inside.append((column < lengths[:count, None]).flatten())
    spread, is_token = torch.cat(tokens), torch.cat(inside)
    gather = torch.empty(documents.bounds[-1], dtype=torch.int64)
    gather[spread[is_token]] = is_token.nonzero()[:, 0]
    if shared is None:
        return Tiles(tile, counts, spread, gather, (~is_token).nonzero()[:, 0])
    place = gather[shared.place]
    filled = torch.ones_like(is_token).index_fill_(0, place, False).nonzero()[:, 0]
    return Tiles(tile, counts, shared.token[spread], place, filled, gather[shared.repeated])
