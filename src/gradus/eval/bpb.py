"""Bits per byte: what a model needs to tell a text, whatever its tokenizer.

nats of all counted targets / (ln 2 x their bytes). A target counts where it stands for bytes: control tokens
stand for none and are left out of both sums. A uniform model over V tokens gives log2(V) x tokens / bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradus.core.errors import DataError
from gradus.core.statistics import bootstrap_ratio
from gradus.data.loader import batch_of_rows, rows_in_order
from gradus.data.pack import pack_plan
from gradus.data.shards import TokenStore
from gradus.eval.journal import Journal, SharedWork
from gradus.model.batch import IGNORE, Batch
from gradus.model.transformer import Transformer
from gradus.model.xla import send_work
from gradus.train.losses import next_token_loss, token_logp
from gradus.train.parallel import World

MOST_ITEMS = 5000  # documents whose bits a measure lists, for paired tests


@dataclass(frozen=True)
class BitsPerByte:
    """Sums over counted targets."""

    nats: float = 0.0
    num_bytes: int = 0
    num_tokens: int = 0

    def __add__(self, other: BitsPerByte) -> BitsPerByte:
        return BitsPerByte(self.nats + other.nats, self.num_bytes + other.num_bytes, self.num_tokens + other.num_tokens)

    @property
    def value(self) -> float:
        """Bits per byte. Errors: DataError where nothing was counted."""
        if not self.num_bytes:
            raise DataError("bits per byte: there is no text to measure on; the validation side is empty")
        return self.nats / (math.log(2) * self.num_bytes)

    def measure(self) -> dict[str, float | int]:
        """What a gate reads and the report shows; n counts tokens."""
        return {
            "value": self.value,
            "n": self.num_tokens,
            "bytes": self.num_bytes,
            "nats_per_token": self.nats / self.num_tokens,
        }


@torch.no_grad()
def bits_per_byte(model: Transformer, batches: Iterable[Batch], token_bytes: NDArray[np.int64]) -> BitsPerByte:
    """Over the targets of these batches.

    token_bytes: (V,), the bytes that each token stands for, 0 for control tokens.
    """
    device = model.device
    bytes_of = torch.from_numpy(np.ascontiguousarray(token_bytes)).to(device)
    total = BitsPerByte()
    for batch in batches:
        counted, sizes = _counted(batch.to(device), bytes_of)
        nats, count, _ = next_token_loss(model, counted)
        num_bytes = sizes.sum()
        send_work(device)
        total += BitsPerByte(float(nats), int(num_bytes), int(count))
    return total


@dataclass(frozen=True)
class DocumentBits:
    """Of each document of a source, in order of their numbers in the store: nats, bytes and counted tokens."""

    documents: tuple[int, ...]
    nats: tuple[float, ...]
    num_bytes: tuple[int, ...]
    num_tokens: tuple[int, ...]

    def __add__(self, other: DocumentBits) -> DocumentBits:
        return DocumentBits(
            self.documents + other.documents,
            self.nats + other.nats,
            self.num_bytes + other.num_bytes,
            self.num_tokens + other.num_tokens,
        )

    def measure(self) -> dict[str, Any]:
        """As that of BitsPerByte, with the interval and standard error of a bootstrap over documents; one has neither.

        items: by document what its nats are in bits, scaled so that their mean is the value; left out above MOST_ITEMS.
        """
        whole = BitsPerByte(math.fsum(self.nats), sum(self.num_bytes), sum(self.num_tokens))
        bits = [nats / math.log(2) for nats in self.nats]
        found: dict[str, Any] = {**whole.measure(), "documents": len(bits), "lower_is_better": True}
        if len(bits) > 1:
            low, high, error = bootstrap_ratio(bits, self.num_bytes)
            found |= {"lower": low, "upper": high, "standard_error": error}
        if len(bits) <= MOST_ITEMS:
            scale = len(bits) / whole.num_bytes
            found["items"] = {str(d): value * scale for d, value in zip(self.documents, bits, strict=True)}
        return found


@torch.no_grad()
def bits_by_document(
    model: Transformer,
    store: TokenStore,
    token_bytes: NDArray[np.int64],
    tokens_per_batch: int = 8192,
    *,
    journal: Journal | None = None,
    world: World | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, DocumentBits]:
    """Every document of a side of a token store by itself, by source; a document without counted bytes is left out.

    A document longer than the model's context is cut into pieces of it, as in `bits_per_byte_by_source`. world:
    processes that share the batches; each returns the whole, to the last bit that of one. on_progress: called with
    (batches done, batches in all).
    """
    _check_tokens(store, token_bytes)
    bytes_of = torch.from_numpy(np.ascontiguousarray(token_bytes)).to(model.device)
    plan = pack_plan(store.lengths, model.config.context)
    rows_per_batch = max(1, tokens_per_batch // plan.row_length)
    work = SharedWork(-(-plan.num_rows // rows_per_batch), journal, world, on_progress)
    for number in work.todo:
        rows = np.arange(number * rows_per_batch, min((number + 1) * rows_per_batch, plan.num_rows))
        num_pieces = int(plan.row_starts[rows[-1] + 1] - plan.row_starts[rows[0]])
        batch = batch_of_rows(store, plan, rows).to(model.device)
        work.keep({number: _bits_by_piece(model, batch, num_pieces, bytes_of).tolist()})
    sums = torch.zeros(3, len(store.lengths), dtype=torch.float64)  # nats, bytes, tokens
    pieces = [torch.tensor(part, dtype=torch.float64) for part in work.everything()]
    if pieces:
        sums.index_add_(1, torch.from_numpy(plan.document.astype(np.int64)), torch.cat(pieces, dim=1))
    found = {}
    for index, name in enumerate(store.sources):
        chosen = np.flatnonzero((store.source_index == index) & (sums[1].numpy() > 0))
        if len(chosen):
            nats, sizes, tokens = sums[:, torch.from_numpy(chosen)].tolist()
            found[name] = DocumentBits(
                tuple(chosen.tolist()), tuple(nats), tuple(map(int, sizes)), tuple(map(int, tokens))
            )
    return found


def _bits_by_piece(model: Transformer, batch: Batch, num_pieces: int, bytes_of: Tensor) -> Tensor:
    """Of each document of a batch, which may be a piece of one, nats, bytes and counted tokens: (3, pieces) fp64."""
    counted, sizes = _counted(batch, bytes_of)
    places = counted.supervised
    piece = counted.documents.index[places].cpu()
    sums = torch.zeros(3, num_pieces, dtype=torch.float64)
    sums[0].index_add_(0, piece, -token_logp(model, counted).cpu().double())
    sums[1].index_add_(0, piece, sizes[places].cpu().double())
    sums[2].index_add_(0, piece, torch.ones(len(piece), dtype=torch.float64))
    return sums


def _counted(batch: Batch, bytes_of: Tensor) -> tuple[Batch, Tensor]:
    """The batch with targets that stand for no bytes left out, and the bytes (N,) of its targets."""
    sizes = bytes_of[batch.targets.clamp(min=0)].masked_fill(batch.targets == IGNORE, 0)
    return replace(batch, targets=batch.targets.masked_fill(sizes == 0, IGNORE)), sizes


def _check_tokens(store: TokenStore, token_bytes: NDArray[np.int64]) -> None:
    if len(token_bytes) != store.vocab_size:
        raise DataError(
            f"{store.folder}: the shards have {store.vocab_size:,} ids and the tokenizer "
            f"{len(token_bytes):,}; use the tokenizer that wrote them"
        )


def bits_per_byte_by_source(
    model: Transformer,
    store: TokenStore,
    token_bytes: NDArray[np.int64],
    *,
    row_length: int | None = None,
    tokens_per_batch: int = 8192,
    max_tokens: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> dict[str, BitsPerByte]:
    """Over a side of a token store, by source, sources in the store's order; their sum is the whole.

    row_length: documents are cut in pieces of it, the model's context if None. max_tokens: measure about so
    many, on documents evenly spaced over each source; None measures all. on_progress: called with (tokens
    done, tokens to do). world: processes that share the work; each returns the whole.
    """
    _check_tokens(store, token_bytes)
    row_length = row_length or model.config.context
    world = world or World()
    rows_per_batch = max(1, tokens_per_batch // row_length)
    share = 1.0 if max_tokens is None else min(1.0, max_tokens / max(1, store.num_tokens))
    plans = {}
    for index, name in enumerate(store.sources):
        documents = np.flatnonzero(store.source_index == index)
        if len(documents):
            places = np.linspace(0, len(documents) - 1, math.ceil(share * len(documents))).round()
            plans[name] = pack_plan(store.lengths, row_length, documents=documents[places.astype(np.int64)])
    expected, done = sum(plan.num_tokens for plan in plans.values()), 0
    found = dict.fromkeys(plans, BitsPerByte())
    for name, plan in plans.items():
        for batch in rows_in_order(store, plan, rows_per_batch, rank=world.rank, world=world.size):
            found[name] += bits_per_byte(model, [batch], token_bytes)
            done += batch.num_tokens
            if on_progress is not None:
                on_progress(done, expected)
    sums = torch.tensor([[f.nats, f.num_bytes, f.num_tokens] for f in found.values()], dtype=torch.float64)
    world.sum_([sums])
    parts = [BitsPerByte(nats, int(num_bytes), int(tokens)) for nats, num_bytes, tokens in sums.tolist()]
    return dict(zip(found, parts, strict=True))
