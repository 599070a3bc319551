"""Batches for training: the rows of a step, read from token shards and laid end to end.

A batch is a pure function of (store, plan, seed, step): nothing is buffered, so resuming at a step needs the
step's number only, and any number of ranks and any micro-batch size share the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gradus.core.errors import DataError
from gradus.data.order import RowOrder
from gradus.data.pack import PackPlan
from gradus.data.shards import TokenStore
from gradus.model.batch import IGNORE, Batch, Documents

REFERENCE_LOGP = "reference_logp"


class RowLoader:
    """The training batches of packed rows.

    Targets: in a stream the next token of the stream, in conversations the next token where it is trained.
    Errors: DataError where the plan was made for other shards.
    """

    def __init__(
        self,
        store: TokenStore,
        plan: PackPlan,
        *,
        seed: int,
        rows_per_step: int,
        micro_rows: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        check_plan(plan, store.lengths)
        self.store, self.plan = store, plan
        self.order = RowOrder(plan.num_rows, seed, rows_per_step, micro_rows, rank, world)

    def batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step (from 0)."""
        return [batch_of_rows(self.store, self.plan, rows) for rows in self.order.micro_batches(step)]

    @property
    def tokens_per_step(self) -> float:
        """Tokens of a step over all ranks, on average."""
        return self.plan.num_tokens / self.plan.num_rows * self.order.rows_per_step


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
    """Every row once, unshuffled, for evaluation: this rank's share, `micro_rows` rows a batch."""
    check_plan(plan, store.lengths)
    mine = np.arange(rank, plan.num_rows, world)
    for start in range(0, len(mine), micro_rows):
        yield batch_of_rows(store, plan, mine[start : start + micro_rows])


def batch_of_rows(store: TokenStore, plan: PackPlan, rows: NDArray[np.int64]) -> Batch:
    """The pieces of these rows, end to end; each piece is a document of the batch.

    Filled up to whole rows, so that products have few distinct sizes: the CPU library prepares and keeps code for
    each size it meets (measured: 12 MB more memory a step without).
    """
    pieces = _pieces_of_rows(plan, rows)
    batch = _batch(store, plan.document[pieces], plan.offset[pieces], plan.length[pieces])
    return _filled(batch, len(rows) * plan.row_length)


def batch_of_documents(
    store: TokenStore, documents: NDArray[np.int64], extra: dict[str, Tensor] | None = None
) -> Batch:
    """These documents whole, end to end."""
    return _batch(store, documents, np.zeros_like(documents), store.lengths[documents], extra)


def _filled(batch: Batch, size: int) -> Batch:
    """The batch with one more document of padding behind, so that it holds `size` tokens."""
    padding = size - batch.tokens.shape[0]
    if padding <= 0:
        return batch
    positions = torch.cat([batch.documents.positions, torch.arange(padding)])
    return replace(
        batch,
        tokens=F.pad(batch.tokens, (0, padding)),
        targets=F.pad(batch.targets, (0, padding), value=IGNORE),
        documents=Documents([*batch.documents.bounds, size], positions),
        padding=padding,
    )


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
    store: TokenStore,
    document: NDArray[np.int64],
    offset: NDArray[np.int64],
    length: NDArray[np.int64],
    extra: dict[str, Tensor] | None = None,
) -> Batch:
    pieces = store.pieces(document, offset, length)
    targets = np.where(pieces.trained, pieces.targets, IGNORE)
    ends = np.cumsum(length)
    positions = np.arange(int(ends[-1])) - np.repeat(ends - length, length)
    # Not Documents.of_lengths: a few numbers are faster in numpy than in torch's thread pool.
    documents = Documents([0, *ends.tolist()], torch.from_numpy(positions))
    return Batch(torch.from_numpy(pieces.tokens), torch.from_numpy(targets), documents, extra or {})
