"""Batches: a pure function of the step, the same rows on any ranks, every row once an epoch."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.data.bookmark import read_bookmark
from gradus.data.document import Document, document_id
from gradus.data.loader import PairLoader, RowLoader, pair_lengths, rows_in_order
from gradus.data.order import RowOrder
from gradus.data.pack import pack_plan, unpacked_plan
from gradus.data.plans import Packing, ShardPlans
from gradus.data.shards import TokenStore
from gradus.data.token_writer import TokenWriter
from gradus.data.tokenise import write_token_shards
from gradus.model.batch import IGNORE, Batch
from gradus.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def stream(tmp_path: Path, tokenizer: Tokenizer) -> TokenStore:
    """60 documents of 1 to 40 words in several shards."""
    texts = [" ".join(f"w{i}x{j}" for j in range(1 + i * 7 % 40)) for i in range(60)]
    documents = [Document(t, document_id(t), source=("even", "odd")[i % 2]) for i, t in enumerate(texts)]
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


def test_in_evaluation_a_rank_without_rows_keeps_step_and_counts_nothing(stream: TokenStore) -> None:
    plan = pack_plan(stream.lengths, 64)
    world = plan.num_rows - 1  # the first rank has two rows, the others one
    shares = [list(rows_in_order(stream, plan, 1, rank=rank, world=world)) for rank in range(world)]
    assert {len(batches) for batches in shares} == {2}
    counted = sum(int((batch.targets >= 0).sum()) for batches in shares for batch in batches)
    assert counted == sum(int((batch.targets >= 0).sum()) for batch in rows_in_order(stream, plan, 4))
    assert all(int((batches[1].targets >= 0).sum()) == 0 for batches in shares[1:])


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


def shard_loader(store: TokenStore, **options) -> RowLoader:
    shape = {"seed": 3, "rows_per_step": 8, "micro_rows": 8} | options
    return RowLoader(store, ShardPlans(store, Packing(64, by_source="weights" in options)), **shape)


def rows_of(batches: list[Batch]) -> list[tuple[int, ...]]:
    """Tokens, targets and positions of every piece, in order."""
    found = []
    for batch in batches:
        for a, b in pairwise(batch.documents.bounds if not batch.padding else batch.documents.bounds[:-1]):
            positions = batch.documents.positions[a:b].tolist()
            assert positions == list(range(b - a))
            found.append((*batch.tokens[a:b].tolist(), -1, *batch.targets[a:b].tolist()))
    return found


@pytest.mark.parametrize("weights", [None, {"even": 0.7, "odd": 0.3}])
def test_the_next_hundred_steps_after_a_resume_are_the_same_for_any_ranks_and_micro_batches(
    stream: TokenStore, weights: dict[str, float] | None
) -> None:
    options = {} if weights is None else {"weights": weights}
    through = shard_loader(stream, **options)
    for resumed_at in (0, 3, 57):
        for world, micro_rows in ((1, 3), (2, 4), (8, 1)):
            resumed = [
                shard_loader(stream, rank=r, world=world, micro_rows=micro_rows, **options) for r in range(world)
            ]
            for step in range(resumed_at, resumed_at + 100):
                expected = through.order.step_rows(step)
                # Rows go to ranks in turn, so that together they are the step's rows in order.
                parts = [np.concatenate(loader.order.micro_batches(step)) for loader in resumed]
                assert [int(parts[i % world][i // world]) for i in range(8)] == expected.tolist()
            for step in (resumed_at, resumed_at + 99):
                together = [piece for loader in resumed for piece in rows_of(loader.batches(step))]
                assert sorted(together) == sorted(rows_of(through.batches(step)))


def test_rows_of_one_shard_are_trained_on_in_the_order_of_a_plan_over_all(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [" ".join(f"w{i}x{j}" for j in range(1 + i * 7 % 40)) for i in range(60)]
    write_token_shards([Document(t, document_id(t)) for t in texts], tokenizer, tmp_path, split="train")
    store = TokenStore(tmp_path, "train")
    whole = RowLoader(store, pack_plan(store.lengths, 64), seed=3, rows_per_step=8, micro_rows=3)
    by_shard = shard_loader(store, micro_rows=3)
    for step in (0, 1, 2, 40):
        for one, other in zip(whole.batches(step), by_shard.batches(step), strict=True):
            assert torch.equal(one.tokens, other.tokens)
            assert torch.equal(one.targets, other.targets)
            assert one.documents.bounds == other.documents.bounds
            assert torch.equal(one.documents.positions, other.documents.positions)
            assert one.padding == other.padding


def test_an_epoch_by_shards_holds_every_token_and_target_once(stream: TokenStore) -> None:
    loader = shard_loader(stream, rows_per_step=1, micro_rows=1)
    seen, targets = np.zeros((2, stream.vocab_size), dtype=np.int64)
    for step in range(loader.plan.num_rows):
        [batch] = loader.batches(step)
        seen += np.bincount(batch.tokens[: batch.num_tokens].numpy(), minlength=stream.vocab_size)
        targets += np.bincount(batch.targets[: batch.num_tokens].numpy(), minlength=stream.vocab_size)
    stored = np.concatenate([shard.tokens[:-1] for shard in stream.shards])
    assert (seen == np.bincount(stored, minlength=stream.vocab_size)).all()
    assert (targets == seen).all()


def test_long_and_short_pieces_are_read_alike(stream: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = shard_loader(stream)
    expected = [rows_of(loader.batches(step)) for step in range(4)]
    for boundary in (0, 10_000):
        monkeypatch.setattr("gradus.data.spans._SHORT_SPAN", boundary)
        assert [rows_of(loader.batches(step)) for step in range(4)] == expected


def test_appended_shards_join_at_the_next_generation_in_an_order_of_their_own(
    stream: TokenStore, tokenizer: Tokenizer
) -> None:
    before = [rows_of(shard_loader(stream).batches(step)) for step in range(5)]
    bookmark = shard_loader(stream).bookmark(5)
    texts = [f"later {i}" for i in range(50)]
    documents = [Document(t, document_id(t)) for t in texts]
    write_token_shards(documents, tokenizer, stream.folder, split="train", append=True)
    pinned = shard_loader(TokenStore(stream.folder, "train", generation=1))
    assert [rows_of(pinned.batches(step)) for step in range(5)] == before
    grown = TokenStore(stream.folder, "train")
    newest = shard_loader(grown)
    assert newest.order.generation == 2
    rows = [newest.order.step_rows(step).tolist() for step in range(3)]
    assert rows != [RowOrder(newest.plan.num_rows, 3, 8, 8).step_rows(step).tolist() for step in range(3)]
    shard_loader(TokenStore(stream.folder, "train", generation=1), begin=bookmark)
    with pytest.raises(DataError, match=r"bookmark at row 40 belongs to other data \(generation: 1, found 2; rows: "):
        shard_loader(grown, begin=bookmark)


def test_a_bookmark_continues_where_it_was_made_with_any_rows_a_step(stream: TokenStore, tmp_path: Path) -> None:
    first = shard_loader(stream, rows_per_step=6)
    first.bookmark(4).write(tmp_path / "bookmark.json")
    bookmark = read_bookmark(tmp_path / "bookmark.json")
    assert bookmark.row == 24
    second = shard_loader(stream, rows_per_step=4, begin=bookmark)
    expected = np.concatenate([first.order.step_rows(step) for step in range(4, 8)])
    assert np.concatenate([second.order.step_rows(step) for step in range(6)]).tolist() == expected.tolist()
    assert second.bookmark(6).row == 48
    assert second.epochs_before(0) == first.epochs_before(4)


def test_a_bookmark_of_other_data_is_refused_with_what_differs(stream: TokenStore, tmp_path: Path) -> None:
    bookmark = shard_loader(stream).bookmark(2)
    with pytest.raises(DataError, match=r"bookmark at row 16 belongs to other data \(seed: 3, found 4\); "):
        shard_loader(stream, seed=4, begin=bookmark)
    short = ShardPlans(stream, Packing(32))
    with pytest.raises(DataError, match=r"row_length: 64, found 32; rows: "):
        RowLoader(stream, short, seed=3, rows_per_step=8, micro_rows=8, begin=bookmark)
    with pytest.raises(DataError, match=r'weights: null, found \{"even": 1.0\}'):
        shard_loader(stream, weights={"even": 1.0}, begin=bookmark)
    with pytest.raises(DataError, match="no bookmark here"):
        read_bookmark(tmp_path / "bookmark.json")
    (tmp_path / "bookmark.json").write_text('{"row": 3}')
    with pytest.raises(DataError, match="not a bookmark"):
        read_bookmark(tmp_path / "bookmark.json")


def test_each_source_is_counted_by_how_often_it_was_seen(stream: TokenStore) -> None:
    loader = shard_loader(stream, weights={"even": 0.75, "odd": 0.25})
    mixture = loader.order.mixture
    assert mixture is not None
    rows = np.concatenate([loader.order.step_rows(step) for step in range(200)])
    for source in mixture.sources:
        mine = source.row(np.arange(source.num_rows))
        assert np.isin(rows, mine).sum() / source.num_rows == pytest.approx(loader.epochs_before(200)[source.name])
    assert shard_loader(stream).epochs_before(10) == dict.fromkeys(["even", "odd"], 80 / loader_rows(stream))


def loader_rows(store: TokenStore) -> int:
    return ShardPlans(store, Packing(64)).num_rows


def test_rows_planned_for_another_set_or_weights_without_shards_are_refused(
    stream: TokenStore, chats: TokenStore, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_token_shards([Document("other", "x")], tokenizer, tmp_path / "other", split="train")
    other = TokenStore(tmp_path / "other", "train")
    with pytest.raises(DataError, match="made for other token shards"):
        RowLoader(stream, ShardPlans(other, Packing(64)), seed=0, rows_per_step=1, micro_rows=1)
    plan = pack_plan(chats.lengths, 12, "whole")
    with pytest.raises(DataError, match="a mixture of conversations has epochs"):
        RowLoader(chats, plan, seed=0, rows_per_step=1, micro_rows=1, weights={"s": 1.0})
