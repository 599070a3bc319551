"""Rows of a shard set: every token in one row, plans kept by what they depend on, nothing moved by an append."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gradus.core.errors import DataError
from gradus.data.document import Document, document_id
from gradus.data.order import RowOrder
from gradus.data.pack import pack_plan
from gradus.data.plans import Packing, ShardPlans, kept_path
from gradus.data.shards import TokenStore
from gradus.data.token_manifest import SetFacts, ShardEntry, SourceCounts, extended_manifest, manifest_path
from gradus.data.token_writer import TokenWriter
from gradus.data.tokenise import write_token_shards
from gradus.tokenizer.tokenizer import Tokenizer


def documents(count: int, first: int = 0) -> list[Document]:
    texts = [" ".join(f"w{i}x{j}" for j in range(1 + i * 7 % 40)) for i in range(first, first + count)]
    return [Document(text, document_id(text), source=f"s{i % 3}") for i, text in enumerate(texts)]


@pytest.fixture
def store(tmp_path: Path, tokenizer: Tokenizer) -> TokenStore:
    """90 documents of three sources in several shards."""
    out = tmp_path / "tokens"
    write_token_shards(documents(90), tokenizer, out, split="train", shard_tokens=3000, batch_bytes=500)
    found = TokenStore(out, "train")
    assert len(found.shards) > 3
    return found


def pieces_of(plans: ShardPlans, rows: np.ndarray) -> list[tuple[int, int, int]]:
    spans = plans.spans(rows)
    return list(zip(spans.shard.tolist(), spans.start.tolist(), spans.length.tolist(), strict=True))


@pytest.mark.parametrize("by_source", [False, True])
def test_every_token_stands_in_one_row_and_no_row_overflows(store: TokenStore, by_source: bool) -> None:
    plans = ShardPlans(store, Packing(64, by_source=by_source))
    seen = [np.zeros(shard.entry.tokens, dtype=int) for shard in store.shards]
    for row in range(plans.num_rows):
        pieces = pieces_of(plans, np.array([row]))
        assert 1 <= sum(length for _, _, length in pieces) <= 64
        for shard, start, length in pieces:
            seen[shard][start : start + length] += 1
            bounds = store.shards[shard].bounds
            document = int(np.searchsorted(bounds, start, side="right")) - 1
            assert start + length <= bounds[document + 1]
    assert all((count == 1).all() for count in seen)
    statistics = plans.statistics()
    assert statistics["tokens"] == store.num_tokens
    assert statistics["used_fraction"] == 1.0
    assert statistics["fill_fraction"] == pytest.approx(store.num_tokens / (64 * plans.num_rows))


def test_rows_are_those_of_each_shard_packed_by_itself_in_turn(store: TokenStore) -> None:
    plans = ShardPlans(store, Packing(64))
    expected, contexts = [], []
    for number, shard in enumerate(store.shards):
        plan = pack_plan(shard.lengths, 64)
        starts = shard.bounds[plan.document] + plan.offset
        pieces = list(zip([number] * plan.num_pieces, starts.tolist(), plan.length.tolist(), strict=True))
        bounds = plan.row_starts.tolist()
        expected += [pieces[a:b] for a, b in pairwise(bounds)]
        contexts += [n * (n + 1) // 2 for n in plan.length.tolist()]
    assert [pieces_of(plans, np.array([row])) for row in range(plans.num_rows)] == expected
    assert plans.mean_context == pytest.approx(sum(contexts) / store.num_tokens)
    mixed = np.array([5, 0, plans.num_rows - 1, 5])
    assert pieces_of(plans, mixed) == expected[5] + expected[0] + expected[-1] + expected[5]


def test_plans_are_kept_and_an_append_leaves_them_and_their_rows_as_they_are(
    store: TokenStore, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "plans"
    before = ShardPlans(store, Packing(64), kept)
    files = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert len(files) == len(store.shards)
    write_token_shards(documents(20, 500), tokenizer, store.folder, split="train", append=True)
    grown = TokenStore(store.folder, "train")
    after = ShardPlans(grown, Packing(64), kept)
    assert {name: (kept / name).read_bytes() for name in files} == files
    assert len(list(kept.iterdir())) == len(files) + 1
    rows = np.arange(before.num_rows)
    assert pieces_of(after, rows) == pieces_of(before, rows)
    assert after.num_rows > before.num_rows
    # What is kept is read, not made again.
    monkeypatch.setattr("gradus.data.plans.make_plan", None)
    again = ShardPlans(grown, Packing(64), kept)
    assert pieces_of(again, np.arange(after.num_rows)) == pieces_of(after, np.arange(after.num_rows))
    assert again.statistics() == after.statistics()


def test_each_way_of_packing_has_its_own_plans(store: TokenStore, tmp_path: Path) -> None:
    ways = [Packing(64), Packing(32), Packing(64, "crop"), Packing(64, by_source=True)]
    paths = {kept_path(tmp_path, shard, packing) for packing in ways for shard in store.shards}
    assert len(paths) == len(ways) * len(store.shards)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 128])
def test_a_plan_that_is_not_whole_is_made_again(store: TokenStore, tmp_path: Path, damage: bytes) -> None:
    expected = ShardPlans(store, Packing(64), tmp_path).num_rows
    path = kept_path(tmp_path, store.shards[1], Packing(64))
    good = path.read_bytes()
    path.write_bytes(damage or good[:-1])
    assert ShardPlans(store, Packing(64), tmp_path).num_rows == expected
    assert path.read_bytes() == good


def test_a_changed_byte_of_a_kept_plan_is_told(store: TokenStore, tmp_path: Path) -> None:
    ShardPlans(store, Packing(64), tmp_path)
    path = kept_path(tmp_path, store.shards[1], Packing(64))
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    plans = ShardPlans(store, Packing(64), tmp_path)
    with pytest.raises(DataError, match=r"\.plan: damaged pack plan; delete it, and it is made again"):
        plans.spans(plans.first_row[1:2])


def test_rows_packed_by_source_hold_one_source_each(store: TokenStore) -> None:
    plans = ShardPlans(store, Packing(64, by_source=True))
    labels = [store.sources[i] for i in store.source_index]
    found: set[int] = set()
    for name in store.sources:
        spans = plans.rows_of_source(name)
        for first, count in zip(spans.start.tolist(), spans.length.tolist(), strict=True):
            for row in range(first, first + count):
                found.add(row)
                for shard, start, _ in pieces_of(plans, np.array([row])):
                    local = int(np.searchsorted(store.shards[shard].bounds, start, side="right")) - 1
                    assert labels[store.shards[shard].first_document + local] == name
    assert found == set(range(plans.num_rows))


def test_a_document_can_be_followed_to_its_rows_and_steps(store: TokenStore) -> None:
    plans = ShardPlans(store, Packing(16))
    order = RowOrder(plans.num_rows, 3, 5, 5)
    for document in (0, 38, 89):
        rows = plans.rows_of_document(document)
        assert len(rows) == -(-int(store.lengths[document]) // 16)
        shard = int(np.searchsorted(store.first_document, document, side="right")) - 1
        local = document - int(store.first_document[shard])
        begin, end = store.shards[shard].bounds[local : local + 2]
        inside = [
            piece
            for row in rows
            for piece in pieces_of(plans, row[None])
            if piece[0] == shard and begin <= piece[1] < end
        ]
        assert sum(length for _, _, length in inside) == end - begin
        for epoch in (0, 2):
            steps = [order.step_of_row(int(row), epoch) for row in rows]
            assert all(row in order.step_rows(step) for row, step in zip(rows, steps, strict=True))


def test_conversations_are_not_packed_by_shard(tmp_path: Path, tokenizer: Tokenizer) -> None:
    writer = TokenWriter(tmp_path, "train", "documents", tokenizer)
    writer.add([np.array([1, 2])], ["s"], [2], [np.array([False, True])])
    writer.close()
    with pytest.raises(DataError, match="a set of rendered conversations is packed as a whole"):
        ShardPlans(TokenStore(tmp_path, "train"), Packing(8))


def test_no_documents_make_no_rows(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_token_shards([], tokenizer, tmp_path, split="train")
    plans = ShardPlans(TokenStore(tmp_path, "train"), Packing(8))
    assert (plans.num_rows, plans.fill_fraction, plans.mean_context) == (0, 0.0, 0.0)


def test_a_large_set_opens_without_reading_its_shards(tmp_path: Path) -> None:
    """Forty shards of a tenth of a gigabyte each, of which only the manifest and the plans are more than holes."""
    facts, entries, length = SetFacts("stream", 300, "f" * 64, 0), [], 5000
    (tmp_path / "train").mkdir()
    for number in range(40):
        bounds = np.arange(0, 10_001 * length, length, dtype="<u8")
        name, tokens = f"00000-{number:03d}", int(bounds[-1])
        bounds.tofile(tmp_path / "train" / f"{name}.idx")
        for suffix, size in (("bin", 2 * tokens + 2), ("src", 20_000)):
            with (tmp_path / "train" / f"{name}.{suffix}").open("wb") as file:
                file.truncate(size)
        files = {"bin": {"bytes": 2 * tokens + 2, "sha256": str(number)}}
        entries.append(ShardEntry(name, 0, 10_000, tokens, (SourceCounts("s", 10_000, tokens, tokens),), files))
    content = extended_manifest(None, facts, entries, tasks=1, append="", counts={"by_source": {}})
    manifest_path(tmp_path, "train").write_bytes(content)
    ShardPlans(TokenStore(tmp_path, "train"), Packing(2048), tmp_path / "plans")
    store = TokenStore(tmp_path, "train")
    plans = ShardPlans(store, Packing(2048), tmp_path / "plans")
    rows = RowOrder(plans.num_rows, 0, 8, 8).step_rows(0)
    read = store.read(plans.spans(rows))
    assert len(read.tokens) == plans.spans(rows).length.sum()
    assert (store.num_tokens, store.num_documents) == (2_000_000_000, 400_000)
    mapped = [shard for shard in store.shards if "tokens" in vars(shard)]
    assert 1 <= len(mapped) <= 8
    assert not any("bounds" in vars(shard) or "source_numbers" in vars(shard) for shard in store.shards)
