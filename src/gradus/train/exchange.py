"""Whole tensors on single processes, and back: what orthogonalising and saving need of parameters held in parts.

Every tensor has an owner. Where parameters are sharded by rows, the rows of all tensors go to their owners in one
message to each, and come back in one. Where every process holds everything, only the way back is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from gradus.model.rows import row_range
from gradus.train.parallel import World


def balanced_owners(costs: Mapping[str, float], sharers: int) -> dict[str, int]:
    """Who owns what: the costliest first, each to the process that has least so far. The same on every process."""
    load = [0.0] * sharers
    owners = {}
    for name, cost in sorted(costs.items(), key=lambda item: (-item[1], item[0])):
        owner = load.index(min(load))
        load[owner] += cost
        owners[name] = owner
    return {name: owners[name] for name in costs}


class Exchange:
    """Tensors of these shapes (names to whole shapes), between the processes that hold them and their owners."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], costs: Mapping[str, float], world: World) -> None:
        self.world = world
        self.shapes = dict(shapes)
        self.owners = balanced_owners(costs, world.sharers)
        self.owned = [name for name in self.shapes if self.owners[name] == world.sharer]

    def to_owner(self, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole of each tensor that this process owns. held: this process's rows of every tensor, one dtype."""
        world = self.world
        if not world.is_sharded:
            return {name: held[name] for name in self.owned}
        sent = [held[name].reshape(-1) for _, name in self._by_owner()]
        counts = [[self._held_elements(name, sharer) for name in self.owned] for sharer in range(world.sharers)]
        arrived = self._swap(torch.cat(sent), self._sent_to_owners(), [sum(part) for part in counts])
        pieces: dict[str, list[Tensor]] = {name: [] for name in self.owned}
        for part, sizes in zip(arrived, counts, strict=True):
            for name, piece in zip(self.owned, part.split(sizes), strict=True):  # type: ignore[no-untyped-call]
                pieces[name].append(piece.view(-1, *self.shapes[name][1:]))
        return {name: torch.cat(parts) for name, parts in pieces.items()}

    def to_holders(self, owned: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        """This process's rows of every tensor, which is all of them where nothing is sharded.

        owned: the whole of each tensor that this process owns. like: a tensor of their dtype and device.
        """
        world = self.world
        if world.size == 1:
            return dict(owned)
        if not world.is_sharded:
            return self._to_all(owned, like)
        sent, counts = [], []
        for sharer in range(world.sharers):
            rows = [owned[n][slice(*row_range(self.shapes[n][0], world.sharers, sharer))] for n in self.owned]
            sent += [part.reshape(-1) for part in rows]
            counts.append(sum(part.numel() for part in rows))
        arrived = self._swap(torch.cat([like.new_empty(0), *sent]), counts, self._sent_to_owners())
        flat = torch.cat(arrived)
        names = [name for _, name in self._by_owner()]
        sizes = [self._held_elements(name, world.sharer) for name in names]
        parts = zip(names, flat.split(sizes), strict=True)  # type: ignore[no-untyped-call]
        return {name: part.view(-1, *self.shapes[name][1:]) for name, part in parts}

    def _to_all(self, owned: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        """All tensors from their owners to everybody, in one message of equal length from each."""
        totals = [0] * self.world.sharers
        for owner, name in self._by_owner():
            totals[owner] += prod(self.shapes[name])
        sent = like.new_zeros(max(totals))
        start = 0
        for name in self.owned:
            size = prod(self.shapes[name])
            sent[start : start + size].view(self.shapes[name]).copy_(owned[name])
            start += size
        arrived = like.new_empty(max(totals) * self.world.sharers)
        dist.all_gather(list(arrived.chunk(self.world.sharers)), sent, group=self.world.sharer_group)
        found, begin = {}, [max(totals) * owner for owner in range(self.world.sharers)]
        for owner, name in self._by_owner():
            size = prod(self.shapes[name])
            found[name] = arrived[begin[owner] : begin[owner] + size].view(self.shapes[name])
            begin[owner] += size
        return found

    def _swap(self, sent: Tensor, counts: list[int], expected: list[int]) -> list[Tensor]:
        """One message to each sharer, `counts` elements of `sent` in turn; what arrives, by sender."""
        arrived = sent.new_empty(sum(expected))
        dist.all_to_all_single(arrived, sent, expected, counts, group=self.world.sharer_group)
        return list(arrived.split(expected))  # type: ignore[no-untyped-call]

    def _by_owner(self) -> list[tuple[int, str]]:
        return [(s, name) for s in range(self.world.sharers) for name in self.shapes if self.owners[name] == s]

    def _held_elements(self, name: str, sharer: int) -> int:
        start, stop = row_range(self.shapes[name][0], self.world.sharers, sharer)
        return (stop - start) * prod(self.shapes[name][1:])

    def _sent_to_owners(self) -> list[int]:
        """Elements that this process holds of each owner's tensors."""
        counts = [0] * self.world.sharers
        for owner, name in self._by_owner():
            counts[owner] += self._held_elements(name, self.world.sharer)
        return counts
