"""One micro-batch: packed rows laid end to end, with the bounds of the documents inside.

There is no padding and no row dimension: attention, positions and losses know documents only, so a row is
nothing but a way to fill a budget of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from gradus.model.xla import divided

IGNORE = -100  # a target that no loss counts


@dataclass(frozen=True)
class SharedPrefixes:
    """Documents that begin alike and have those tokens computed once: N tokens stand at E places, E > N.

    Places are those of the documents laid end to end. token: (E,) int64, which one stands there; place: (N,) int64,
    where each stands in the document that it is counted to. tokens: (S,) those that stand at several places;
    counts: (S,) at how many; repeated: (counts.sum(),) all those places, token by token.
    """

    token: Tensor
    place: Tensor
    tokens: Tensor
    counts: Tensor
    repeated: Tensor

    def moved(self, move: Callable[[Tensor], Tensor]) -> SharedPrefixes:
        """The same with every tensor put through `move`."""
        return SharedPrefixes(*(move(getattr(self, part.name)) for part in fields(self)))


@dataclass(frozen=True)
class Documents:
    """Where documents begin in N tokens laid end to end.

    bounds: on the host, [0, end of document 0, ..., N], strictly increasing; E for N where prefixes are shared.
    positions: (N,) int64, each token's place in its own document.
    row_length: N is a multiple of it, and documents fill rows of so many tokens in turn, none of them cut; None where
    they are not from rows. shared: None where every document has all of its tokens to itself.
    cache: what attention derives from the bounds, worked out once and used by every layer.
    """

    bounds: list[int]
    positions: Tensor
    row_length: int | None = None
    shared: SharedPrefixes | None = None
    cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of_lengths(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Documents:
        """Documents of these lengths, one after the other."""
        ends = torch.tensor(lengths, dtype=torch.int64).cumsum(0)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
        total = int(ends[-1])
        positions = torch.arange(total) - starts.repeat_interleave(torch.tensor(lengths), output_size=total)
        return cls([0, *ends.tolist()], positions.to(device))

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each document."""
        return [end - start for start, end in zip(self.bounds, self.bounds[1:], strict=False)]

    @cached_property
    def index(self) -> Tensor:
        """(N,) int64, the document that each token belongs to."""
        lengths = torch.tensor(self.lengths)
        index = torch.arange(len(self.lengths)).repeat_interleave(lengths, output_size=self.bounds[-1])
        index = to_device(index, self.positions.device)
        return index if self.shared is None else index.index_select(0, self.shared.place)


@dataclass(frozen=True)
class Batch:
    """tokens, targets: (N,) int64, targets IGNORE where nothing is learned.

    extra: what a loss needs besides, by name. padding: how many of the N, documents of their own, only fill the batch
    up to a usual size; they stand at the end, or each row's at the end of it (`in_rows`). Where documents share
    prefixes N counts what is computed.
    """

    tokens: Tensor
    targets: Tensor
    documents: Documents
    extra: dict[str, Tensor] = field(default_factory=dict)
    padding: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents, padding left out."""
        return self.documents.bounds[-1] - self.padding

    @property
    def num_computed(self) -> int:
        """The same with shared tokens counted once."""
        return self.tokens.shape[0] - self.padding

    @property
    def has_fixed_shapes(self) -> bool:
        """Whether nothing may have a shape that depends on what is in the batch: XLA compiles for every shape anew."""
        return self.tokens.device.type == "xla"

    @cached_property
    def supervised(self) -> Tensor:
        """(M,) int64, the places whose target counts."""
        return (self.targets != IGNORE).nonzero()[:, 0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; bounds stay on the host, which does not wait for a GPU.

        On XLA every row begins at a multiple of the row length (`in_rows`).
        """
        device = torch.device(device)
        if device.type == "xla" and not self.has_fixed_shapes:
            row_length = self.documents.row_length or 0
            return in_rows(self)._moved(lambda tensor: divided(tensor.to(device), row_length))
        return self._moved(partial(to_device, device=device))

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, from where a GPU takes it while the host goes on."""
        return self._moved(Tensor.pin_memory)

    def with_extra(self, extra: dict[str, Tensor]) -> Batch:
        """The same batch with these values besides; what counts is not looked for again, where a GPU would wait."""
        batch = replace(self, extra=extra)
        batch.__dict__["supervised"] = self.supervised
        return batch

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Batch:
        documents = replace(
            self.documents,
            positions=move(self.documents.positions),
            shared=self.documents.shared and self.documents.shared.moved(move),
            cache={},
        )
        extra = {name: move(value) for name, value in self.extra.items()}
        batch = Batch(move(self.tokens), move(self.targets), documents, extra, self.padding)
        if batch.has_fixed_shapes:
            documents.__dict__["index"] = move(self.documents.index)
            return batch
        # Counting supervised tokens makes the host wait where the batch lies on a GPU: do it before.
        batch.__dict__["supervised"] = move(self.supervised)
        return batch


def in_rows(batch: Batch) -> Batch:
    """The same documents, each row of them at its own multiple of the row length and filled up at its end.

    In a batch from rows the next row begins where the last one ends, so that a token's place says nothing of its row.
    Documents are put into rows in order, which takes no more rows than they came in.
    """
    row_length = batch.documents.row_length
    assert row_length is not None, "a batch for XLA is made of whole rows"
    assert not batch.extra, "what a loss needs besides would have to move with the tokens"
    size = batch.tokens.shape[0]
    lengths = batch.documents.lengths[:-1] if batch.padding else batch.documents.lengths
    laid, places, end = [], [], 0
    for length in lengths:
        left = -end % row_length
        if length > left > 0:
            laid.append(left)
            end += left
        places.append(torch.arange(end, end + length))
        laid.append(length)
        end += length
    while end < size:
        laid.append(min(size - end, row_length - end % row_length))
        end += laid[-1]
    place = torch.cat(places)
    tokens = torch.zeros_like(batch.tokens).index_copy_(0, place, batch.tokens[: batch.num_tokens])
    targets = torch.full_like(batch.targets, IGNORE).index_copy_(0, place, batch.targets[: batch.num_tokens])
    found = Documents.of_lengths(laid)
    return Batch(tokens, targets, Documents(found.bounds, found.positions, row_length), {}, batch.padding)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, without waiting for a GPU that is still computing. Meta stands in for one in tests."""
    return tensor.to(device, non_blocking=device.type in ("cuda", "meta"))
