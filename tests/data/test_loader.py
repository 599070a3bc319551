"""Batches: a pure function of the step, the same rows on any ranks, every row once an epoch."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.data.document import Document, document_id
from gradus.data.loader import PairLoader, RowLoader, pair_lengths, rows_in_order
from gradus.data.order import RowOrder
from gradus.data.pack import pack_plan, unpacked_plan
from gradus.data.shard_writer import TokenWriter
from gradus.data.shards import TokenStore
from gradus.data.tokenise import write_token_shards
from gradus.model.batch import IGNORE, Batch
from gradus.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def stream(tmp_path: Path, tokenizer: Tokenizer) -> TokenStore:
    """60 documents of 1 to 40 words in several shards."""
    texts = [" ".join(f"w{i}x{j}" for j in range(1 + i * 7 % 40)) for i in range(60)]
    documents = [Document(t, document_id(t)) for t in texts]
    write_token_shards(documents, tokenizer, tmp_path, split="train", shard_tokens=2000, batch_bytes=500)
    return TokenStore(tmp_path, "train")


@pytest.fixture
def chats(tmp_path: Path, tokenizer: Tokenizer) -> TokenStore:
    """Six documents; number i holds tokens 10 i, 10 i + 1, ..., trained from the third on."""
    writer = TokenWriter(tmp_path, "chats", "documents", tokenizer)
    for i in range(6):
        ids = np.arange(10 * i, 10 * i + 3 + i, dtype=np.int32)
        writer.add([ids], ["s"], [0], [np.arange(len(ids)) >= 2])
    writer.close()
    return TokenStore(tmp_path, "chats")


ranks = st.tuples(st.integers(1, 5), st.integers(1, 7))


@given(st.integers(1, 50), st.integers(5, 20), st.integers(0, 30), st.integers(0, 9), ranks)
def test_the_ranks_of_a_step_share_its_rows_whatever_their_number(
    num_rows: int, rows_per_step: int, step: int, seed: int, shape: tuple[int, int]
) -> None:
    world, micro_rows = shape
    expected = RowOrder(num_rows, seed, rows_per_step, rows_per_step).micro_batches(step)[0]
    shared: list[int] = []
    for rank in range(world):
        parts = RowOrder(num_rows, seed, rows_per_step, micro_rows, rank, world).micro_batches(step)
        assert all(1 <= len(part) <= micro_rows for part in parts)
        shared += [row for part in parts for row in part.tolist()]
    assert sorted(shared) == sorted(expected.tolist())


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 3))
def test_every_row_comes_once_an_epoch_and_a_step_may_span_epochs(
    num_rows: int, rows_per_step: int, epochs: int
) -> None:
    order = RowOrder(num_rows, 5, rows_per_step, 4)
    steps = order.steps_for_epochs(epochs)
    assert order.epochs_before(steps) >= epochs > order.epochs_before(steps - 1)
    rows = np.concatenate([order.step_rows(s) for s in range(steps)])
    for epoch in range(epochs):
        assert sorted(rows[epoch * num_rows : (epoch + 1) * num_rows].tolist()) == list(range(num_rows))


def test_epochs_and_seeds_have_their_own_order() -> None:
    first = RowOrder(30, 1, 30, 30)
    assert first.step_rows(0).tolist() != first.step_rows(1).tolist()
    assert first.step_rows(0).tolist() != RowOrder(30, 2, 30, 30).step_rows(0).tolist()


def test_orders_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="3 rows a step cannot be shared by 4 processes"):
        RowOrder(10, 0, 3, 1, 0, 4)
    with pytest.raises(DataError, match="there are no rows"):
        RowOrder(0, 0, 3, 1)
    with pytest.raises(DataError, match="rows_per_step and micro_rows must be at least 1, found 3 and 0"):
        RowOrder(5, 0, 3, 0)


def test_a_batch_depends_on_seed_and_step_only(stream: TokenStore) -> None:
    plan = pack_plan(stream.lengths, 64)
    loaders = [RowLoader(stream, plan, seed=3, rows_per_step=8, micro_rows=4) for _ in range(2)]
    for step in range(5):
        loaders[0].batches(step)
    one, other = loaders[0].batches(2), loaders[1].batches(2)
    assert len(one) == 2
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.targets, b.targets)
        assert a.documents.bounds == b.documents.bounds


def test_an_epoch_of_batches_holds_every_stream_token_and_target_once(stream: TokenStore) -> None:
    plan = pack_plan(stream.lengths, 64)
    loader = RowLoader(stream, plan, seed=3, rows_per_step=1, micro_rows=1)
    seen = np.zeros(stream.vocab_size, dtype=np.int64)
    targets = np.zeros(stream.vocab_size, dtype=np.int64)
    for step in range(plan.num_rows):
        [batch] = loader.batches(step)
        assert batch.num_tokens <= 64
        seen += np.bincount(batch.tokens[: batch.num_tokens].numpy(), minlength=stream.vocab_size)
        targets += np.bincount(batch.targets[: batch.num_tokens].numpy(), minlength=stream.vocab_size)
    everything = np.concatenate([stream.ids(i) for i in range(stream.num_documents)])
    expected = np.bincount(everything, minlength=stream.vocab_size)
    assert (seen == expected).all()
    # Each document's separator is the target of the one before: the first gives way to the closing one.
    assert (targets == expected).all()
    assert loader.tokens_per_step == pytest.approx(stream.num_tokens / plan.num_rows)


def test_pieces_are_the_documents_of_a_batch_with_positions_from_zero(stream: TokenStore) -> None:
    plan = pack_plan(stream.lengths, 64)
    [batch] = RowLoader(stream, plan, seed=0, rows_per_step=6, micro_rows=6).batches(0)
    bounds = batch.documents.bounds
    assert bounds[0] == 0
    assert (bounds[-1], bounds[-2]) == (6 * 64, batch.num_tokens)
    assert batch.targets[batch.num_tokens :].tolist() == [IGNORE] * batch.padding
    for start, end in pairwise(bounds[:-1]):
        assert batch.documents.positions[start:end].tolist() == list(range(end - start))
        inside = slice(start, end - 1)
        assert torch.equal(batch.targets[inside], batch.tokens[start + 1 : end])
    assert (batch.tokens.dtype, batch.targets.dtype) == (torch.int64, torch.int64)


def test_ranks_and_micro_batches_train_on_the_same_tokens(stream: TokenStore) -> None:
    plan = pack_plan(stream.lengths, 64)

    def pieces(batches: list[Batch]) -> list[tuple[int, ...]]:
        found = []
        for batch in batches:
            bounds = batch.documents.bounds
            for a, b in pairwise(bounds):
                found.append((*batch.tokens[a:b].tolist(), *batch.targets[a:b].tolist()))
        return found

    alone = pieces(RowLoader(stream, plan, seed=1, rows_per_step=7, micro_rows=7).batches(4))
    for world, micro_rows in ((2, 2), (3, 1), (7, 3)):
        shared = []
        for rank in range(world):
            loader = RowLoader(stream, plan, seed=1, rows_per_step=7, micro_rows=micro_rows, rank=rank, world=world)
            shared += pieces(loader.batches(4))
        assert sorted(shared) == sorted(alone)


def test_conversations_are_trained_where_masked_and_their_last_token_never(chats: TokenStore) -> None:
    plan = pack_plan(chats.lengths, 12, "whole", documents=[0, 3])
    [batch] = RowLoader(chats, plan, seed=0, rows_per_step=1, micro_rows=1).batches(0)
    assert batch.tokens.tolist() == [0, 1, 2, 30, 31, 32, 33, 34, 35, 0, 0, 0]
    assert batch.targets.tolist() == [IGNORE, 2, IGNORE, IGNORE, 32, 33, 34, 35, *[IGNORE] * 4]
    assert batch.documents.bounds == [0, 3, 9, 12]
    assert (batch.num_tokens, batch.padding) == (9, 3)


def test_pairs_stay_together_with_their_reference(chats: TokenStore) -> None:
    reference = np.arange(6, dtype=np.float32) * -1.5
    plan = unpacked_plan(pair_lengths(chats))
    loader = PairLoader(chats, plan, seed=0, pairs_per_step=3, micro_pairs=2, reference_logp=reference)
    batches = loader.batches(0)
    assert [len(b.documents.bounds) - 1 for b in batches] == [4, 2]
    seen = []
    for batch in batches:
        starts = batch.documents.bounds[:-1]
        documents = [int(batch.tokens[s]) // 10 for s in starts]
        assert all(c + 1 == r and c % 2 == 0 for c, r in zip(documents[::2], documents[1::2], strict=True))
        assert batch.extra["reference_logp"].tolist() == [-1.5 * d for d in documents]
        seen += documents
    assert sorted(seen) == list(range(6))


def test_packed_pairs_stay_together_too(chats: TokenStore) -> None:
    plan = pack_plan(pair_lengths(chats), 30, "whole")
    [batch] = PairLoader(chats, plan, seed=0, pairs_per_step=1, micro_pairs=1).batches(0)
    documents = [int(batch.tokens[s]) // 10 for s in batch.documents.bounds[:-1]]
    assert sorted(documents) == documents
    assert len(documents) >= 4
    assert batch.extra == {}


def test_evaluation_reads_every_row_once_in_order(stream: TokenStore) -> None:
    plan = pack_plan(stream.lengths, 64)
    batches = list(rows_in_order(stream, plan, 4))
    assert sum(b.num_tokens for b in batches) == stream.num_tokens
    shared = [sum(b.num_tokens for b in rows_in_order(stream, plan, 4, rank=r, world=2)) for r in (0, 1)]
    assert sum(shared) == stream.num_tokens


def test_a_plan_of_other_shards_is_refused(stream: TokenStore, chats: TokenStore) -> None:
    with pytest.raises(DataError, match="the pack plan was made for other token shards"):
        RowLoader(chats, pack_plan(stream.lengths, 64), seed=0, rows_per_step=1, micro_rows=1)
    with pytest.raises(DataError, match="the pack plan was made for other token shards"):
        PairLoader(chats, pack_plan(chats.lengths, 64), seed=0, pairs_per_step=1, micro_pairs=1)
    with pytest.raises(DataError, match="the pack plan has no rows"):
        RowLoader(chats, pack_plan([], 64), seed=0, rows_per_step=1, micro_rows=1)
    plan = unpacked_plan(pair_lengths(chats))
    with pytest.raises(DataError, match=r"reference_logp has shape \(3,\), expected one for each of 6"):
        PairLoader(chats, plan, seed=0, pairs_per_step=1, micro_pairs=1, reference_logp=[0.0] * 3)
