"""Rows by weight: shares of the tokens at every place, every row once an epoch of its source, nothing but the place."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.data.document import Document, document_id
from gradus.data.plans import Packing, ShardPlans
from gradus.data.row_mixture import BLOCK_ROWS, RowMixture, SourceRows, row_mixture
from gradus.data.shards import TokenStore
from gradus.data.tokenise import write_token_shards
from gradus.tokenizer.tokenizer import Tokenizer


def source(name: str, first: int, rows: int, tokens_per_row: float = 100.0) -> SourceRows:
    """Rows in two stretches, with a gap of 5 between."""
    half = rows // 2
    parts = np.array([[first, half], [first + half + 5, rows - half]])
    return SourceRows(name, parts[:, 0], parts[:, 1], round(rows * tokens_per_row))


def rows_of(one: SourceRows) -> set[int]:
    return {row for a, n in zip(one.first.tolist(), one.count.tolist(), strict=True) for row in range(a, a + n)}


sizes = st.lists(st.tuples(st.integers(1, 300), st.floats(0.05, 1.0)), min_size=1, max_size=5)


@settings(max_examples=40)
@given(sizes, st.integers(1, 3 * BLOCK_ROWS))
def test_after_any_number_of_rows_each_source_has_had_its_share(cases: list[tuple[int, float]], place: int) -> None:
    sources = [source(f"s{i}", 1000 * i, rows) for i, (rows, _) in enumerate(cases)]
    weights = {f"s{i}": weight for i, (_, weight) in enumerate(cases)}
    mixture = RowMixture(sources, weights)
    rows = mixture.rows(np.arange(place), seed=1, generation=1)
    counts = [int(np.isin(rows, list(rows_of(one))).sum()) for one in sources]
    assert counts == mixture.rows_before(place).tolist()
    for count, weight in zip(counts, weights.values(), strict=True):
        # Half a row in a block by rounding of the share, one by the order inside it.
        assert abs(count - place * weight / sum(weights.values())) <= 1.5 + place / BLOCK_ROWS


def test_every_row_of_a_source_comes_once_an_epoch() -> None:
    sources = [source("a", 0, 37), source("b", 1000, 101)]
    mixture = RowMixture(sources, {"a": 0.5, "b": 0.5})
    rows = mixture.rows(np.arange(3 * BLOCK_ROWS), seed=3, generation=1)
    for one in sources:
        mine = [row for row in rows.tolist() if row in rows_of(one)]
        epochs = [mine[i : i + one.num_rows] for i in range(0, len(mine) - one.num_rows, one.num_rows)]
        assert all(set(epoch) == rows_of(one) for epoch in epochs)
        assert epochs[0] != epochs[1]


@given(st.integers(0, 10**12), st.integers(0, 9), st.integers(1, 3))
def test_a_row_depends_on_its_place_alone(place: int, seed: int, generation: int) -> None:
    mixture = RowMixture([source("a", 0, 37), source("b", 1000, 101)], {"a": 3, "b": 1})
    window = mixture.rows(place + np.arange(20), seed, generation)
    single = [int(mixture.rows(np.array([place + i]), seed, generation)[0]) for i in range(20)]
    assert window.tolist() == single


def test_shares_are_of_tokens_not_of_rows() -> None:
    # Rows of a are half empty: for as many tokens as b it needs twice the rows.
    mixture = RowMixture([source("a", 0, 500, 50.0), source("b", 1000, 500, 100.0)], {"a": 1, "b": 1})
    assert mixture.quota.tolist() == pytest.approx([BLOCK_ROWS * 2 / 3, BLOCK_ROWS / 3], abs=1)
    shares = mixture.shares(30_000)
    assert [share.token_fraction for share in shares] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert mixture.epochs_before(30_000) == pytest.approx({"a": 40.0, "b": 20.0}, rel=1e-3)


def test_harmful_repetition_is_warned_of() -> None:
    mixture = RowMixture([source("small", 0, 100), source("large", 1000, 4000)], {"small": 0.5, "large": 0.5})
    assert mixture.warnings(700) == []
    [warning] = mixture.warnings(2000)
    assert warning.startswith('mixture: "small" is repeated 10 times and is 50% of the tokens')


def test_weights_of_nothing_and_of_no_size_are_refused() -> None:
    sources = [source("books", 0, 10), source("web", 1000, 10)]
    with pytest.raises(
        DataError, match=r'no rows of source "book" \(there are rows of books, web\); did you mean "books"'
    ):
        RowMixture(sources, {"book": 1.0})
    with pytest.raises(DataError, match='weights: "web" has 0; give a number above 0, or leave the source out'):
        RowMixture(sources, {"books": 1.0, "web": 0})
    with pytest.raises(DataError, match="weights: 0 sources have one"):
        RowMixture(sources, {})
    assert [one.name for one in RowMixture(sources, {"web": 2.0}).sources] == ["web"]


def test_the_mixture_of_a_shard_set_has_its_sources(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [f"number {i} " + "the rat sat " * (i % 9) for i in range(120)]
    documents = [Document(t, document_id(t), source="ab"[i % 4 == 0]) for i, t in enumerate(texts)]
    write_token_shards(documents, tokenizer, tmp_path, split="train", shard_tokens=900, batch_bytes=300)
    store = TokenStore(tmp_path, "train")
    plans = ShardPlans(store, Packing(64, by_source=True))
    mixture = row_mixture(plans, {"a": 0.2, "b": 0.8})
    assert sum(one.num_rows for one in mixture.sources) == plans.num_rows
    assert {one.name: one.num_tokens for one in mixture.sources} == {
        name: counts["tokens"] for name, counts in store.counts["by_source"].items()
    }
    with pytest.raises(DataError, match="pack by source"):
        row_mixture(ShardPlans(store, Packing(64)), {"a": 1})
