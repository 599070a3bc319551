"""Batches for training: the rows of a step, read from token shards and laid end to end.

A batch is a pure function of (store, plan, seed, step): nothing is buffered, so resuming at a step needs the
step's number only, and any number of ranks and any micro-batch size share the same rows. A bookmark is the number of
rows trained on, with the names of the store, plan and seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gradus.core.errors import DataError
from gradus.data.bookmark import Bookmark
from gradus.data.order import RowOrder
from gradus.data.pack import PackPlan
from gradus.data.plans import ShardPlans
from gradus.data.row_mixture import row_mixture
from gradus.data.shards import TokenStore
from gradus.data.spans import Pieces
from gradus.model.batch import IGNORE, Batch, Documents

if TYPE_CHECKING:
    from gradus.data.live import LiveRows

REFERENCE_LOGP = "reference_logp"


class RowLoader:
    """The training batches of packed rows.

    plan: over the whole pool of conversations, or of each shard of a stream. Targets: in a stream the next token of
    the stream, in conversations the next token where it is trained. Errors: DataError where the plan was made for
    other shards.
    """

    def __init__(
        self,
        store: TokenStore,
        plan: PackPlan | ShardPlans,
        *,
        seed: int,
        rows_per_step: int,
        micro_rows: int,
        rank: int = 0,
        world: int = 1,
        weights: Mapping[str, float] | None = None,
        begin: Bookmark | None = None,
    ) -> None:
        """weights: share of the tokens for sources of a stream, whose rows then hold one source each.

        begin: step 0 continues where another run on the same data ended, whatever its rows_per_step was.
        """
        self.store, self.plan = store, plan
        self._seed, self._weights = seed, dict(weights) if weights is not None else None
        generation = 1
        mixture = None
        if isinstance(plan, PackPlan):
            check_plan(plan, store.lengths)
            if weights is not None:
                raise DataError("weights are for token shards; a mixture of conversations has epochs")
        else:
            generation = store.generation
            if plan.store.fingerprint != store.fingerprint:
                raise DataError("the pack plan was made for other token shards; plan the rows again")
            mixture = row_mixture(plan, weights) if weights is not None else None
        if begin is not None:
            begin.require(self.data)
        self.order = RowOrder(
            plan.num_rows,
            seed,
            rows_per_step,
            micro_rows,
            rank,
            world,
            generation=generation,
            mixture=mixture,
            first_row=begin.row if begin else 0,
        )

    def batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step (from 0)."""
        return [batch_of_rows(self.store, self.plan, rows) for rows in self.order.micro_batches(step)]

    @property
    def data(self) -> dict[str, Any]:
        """What the sequence of rows depends on: the parts of a bookmark."""
        found: dict[str, Any] = {
            "shards": self.store.fingerprint,
            "generation": self.store.generation,
            "row_length": self.plan.row_length,
            "rows": self.plan.num_rows,
            "seed": self._seed,
            "weights": self._weights,
        }
        if isinstance(self.plan, ShardPlans):
            found["packing"] = self.plan.packing.identity
        return found

    def bookmark(self, step: int) -> Bookmark:
        """The place before a step."""
        return Bookmark(self.order.place(step), self.data)

    def epochs_before(self, step: int) -> dict[str, float]:
        """How often each source has been seen before a step; without weights all as often."""
        if self.order.mixture is not None:
            return self.order.mixture.epochs_before(self.order.place(step))
        return dict.fromkeys(self.store.sources, self.order.epochs_before(step))


class TextLoader:
    """The training batches of a corpus that is tokenised on the way; a pure function of the step as well."""

    def __init__(
        self,
        rows: LiveRows,
        *,
        rows_per_step: int,
        micro_rows: int,
        rank: int = 0,
        world: int = 1,
        begin: Bookmark | None = None,
    ) -> None:
        """begin: step 0 continues where another run on the same text ended."""
        if begin is not None:
            begin.require(rows.data)
        first = begin.row if begin else 0
        self.rows = rows
        # How many rows there are shows when all are encoded, and the order here is only asked who takes which.
        self._order = RowOrder(1, rows.seed, rows_per_step, micro_rows, rank, world, first_row=first)

    def batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step (from 0)."""
        places = self._order.place(step) + np.arange(self._order.rows_per_step)
        found = []
        for part in self._order.shared(places):
            pieces, lengths = self.rows.read(part)
            found.append(_batch(pieces, lengths, len(part) * self.rows.row_length, row_length=self.rows.row_length))
        return found

    def bookmark(self, step: int) -> Bookmark:
        """The place before a step."""
        return Bookmark(self._order.place(step), self.rows.data)


class PairLoader:
    """The training batches of preference pairs: documents 2i and 2i + 1 of the store are pair i.

    plan: over pairs, `pair_lengths` its lengths; a pair is never divided between micro-batches. Documents
    of a batch are chosen, rejected, chosen, rejected, ... reference_logp: (documents,) in the store's order,
    handed on as `extra["reference_logp"]`, (documents of the batch,) float32.
    """

    def __init__(
        self,
        store: TokenStore,
        plan: PackPlan,
        *,
        seed: int,
        pairs_per_step: int,
        micro_pairs: int,
        reference_logp: ArrayLike | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """plan: `unpacked_plan(pair_lengths(store))`, or packed rows, which then take the place of pairs."""
        check_plan(plan, pair_lengths(store), whole=True)
        self.store, self.plan = store, plan
        self.order = RowOrder(plan.num_rows, seed, pairs_per_step, micro_pairs, rank, world)
        self._reference = None if reference_logp is None else np.asarray(reference_logp, dtype=np.float32)
        if self._reference is not None and self._reference.shape != (store.num_documents,):
            raise DataError(
                f"reference_logp has shape {self._reference.shape}, expected one for each of "
                f"{store.num_documents} documents; compute it again for these pairs"
            )

    def batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step (from 0)."""
        return [self._batch(rows) for rows in self.order.micro_batches(step)]

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        pairs = self.plan.document[_pieces_of_rows(self.plan, rows)]
        documents = np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel()
        extra = {}
        if self._reference is not None:
            extra[REFERENCE_LOGP] = torch.from_numpy(self._reference[documents])
        return batch_of_documents(self.store, documents, extra)


def pair_lengths(store: TokenStore) -> NDArray[np.int64]:
    """(pairs,) tokens of chosen and rejected together. Errors: DataError for an odd number of documents."""
    if store.num_documents % 2:
        raise DataError(f"{store.folder}: {store.num_documents} documents are no pairs of chosen and rejected")
    lengths: NDArray[np.int64] = store.lengths.reshape(-1, 2).sum(axis=1)
    return lengths


def rows_in_order(
    store: TokenStore, plan: PackPlan, micro_rows: int, *, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Every row once, unshuffled, for evaluation: this rank's share, `micro_rows` rows a batch.

    All ranks get as many batches; one that has run out of rows gets the first row with nothing to count.
    """
    check_plan(plan, store.lengths)
    mine = np.arange(rank, plan.num_rows, world)
    most = -(-plan.num_rows // world)
    for start in range(0, most, micro_rows):
        if start < len(mine):
            yield batch_of_rows(store, plan, mine[start : start + micro_rows])
        else:
            idle = batch_of_rows(store, plan, np.zeros(1, dtype=np.int64))
            yield replace(idle, targets=torch.full_like(idle.targets, IGNORE))


def batch_of_rows(store: TokenStore, plan: PackPlan | ShardPlans, rows: NDArray[np.int64]) -> Batch:
    """The pieces of these rows, end to end; each piece is a document of the batch.

    Filled up to whole rows, so that products have few distinct sizes: the CPU library prepares and keeps code for
    each size it meets (measured: 12 MB more memory a step without).
    """
    size = len(rows) * plan.row_length
    if isinstance(plan, ShardPlans):
        spans = plan.spans(rows)
        return _batch(store.read(spans), spans.length, size, row_length=plan.row_length)
    pieces = _pieces_of_rows(plan, rows)
    document, offset, length = plan.document[pieces], plan.offset[pieces], plan.length[pieces]
    return _batch(store.pieces(document, offset, length), length, size, row_length=plan.row_length)


def batch_of_documents(
    store: TokenStore, documents: NDArray[np.int64], extra: dict[str, Tensor] | None = None
) -> Batch:
    """These documents whole, end to end."""
    lengths = store.lengths[documents]
    pieces = store.pieces(documents, np.zeros_like(documents), lengths)
    return _batch(pieces, lengths, int(lengths.sum()), extra)


def check_plan(plan: PackPlan, lengths: NDArray[np.int64], whole: bool = False) -> None:
    """DataError unless every piece lies inside its document (and, if `whole`, is all of it)."""
    if plan.num_rows == 0:
        raise DataError("the pack plan has no rows; there is nothing to train or evaluate on")
    fits = plan.document.max() < len(lengths)
    if fits:
        ends = plan.offset + plan.length
        fits = bool((ends == lengths[plan.document] if whole else ends <= lengths[plan.document]).all())
    if not fits:
        raise DataError("the pack plan was made for other token shards; plan the rows again")


def _pieces_of_rows(plan: PackPlan, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the rows' pieces, in the order of the rows."""
    spans = zip(plan.row_starts[rows].tolist(), plan.row_starts[rows + 1].tolist(), strict=True)
    return np.concatenate([np.arange(start, end) for start, end in spans])


def _batch(
    pieces: Pieces,
    length: NDArray[np.int64],
    size: int,
    extra: dict[str, Tensor] | None = None,
    row_length: int | None = None,
) -> Batch:
    """The pieces as documents of a batch of `size` tokens; what is left over is one more document, of padding."""
    used = len(pieces.tokens)
    padding = size - used
    tokens, targets = np.zeros(size, dtype=np.int64), np.full(size, IGNORE, dtype=np.int64)
    tokens[:used] = pieces.tokens
    np.copyto(targets[:used], pieces.targets, where=pieces.trained if pieces.trained is not None else True)
    lengths = np.append(length, padding) if padding else length
    ends = np.cumsum(lengths)
    # 32 bits until the end: half the memory to go through. Not Documents.of_lengths: a few numbers are faster in
    # numpy than in torch's thread pool.
    positions = np.arange(size, dtype=np.int32)
    positions -= np.repeat((ends - lengths).astype(np.int32), lengths)
    documents = Documents([0, *ends.tolist()], torch.from_numpy(positions.astype(np.int64)), row_length)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), documents, extra or {}, padding)
