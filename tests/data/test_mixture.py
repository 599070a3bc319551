"""Mixtures: whole and fractional epochs, caps, shares of tokens, and warnings about harmful repeats."""

from pathlib import Path

import numpy as np
import pytest

from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import ConfigError, DataError
from gradus.core.quantity import Quantity
from gradus.core.settings import load_settings
from gradus.data.mixture import (
    MixtureEntry,
    MixtureShare,
    check_mixture,
    expected_shares,
    labelled,
    mixture_documents,
    mixture_warnings,
    validation_documents,
)
from gradus.data.pack import pack_plan
from gradus.data.shards import TokenStore
from gradus.data.token_writer import TokenWriter
from gradus.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def store(tmp_path: Path, tokenizer: Tokenizer) -> TokenStore:
    """10 documents of 5 tokens from "small", 40 of 10 from "large"."""
    writer = TokenWriter(tmp_path, "train", "documents", tokenizer)
    for source, count, length in (("small", 10, 5), ("large", 40, 10)):
        ids = [np.full(length, 65, dtype=np.int32)] * count
        writer.add(ids, [source] * count, [0] * count, [np.ones(length, dtype=bool)] * count)
    writer.close()
    return TokenStore(tmp_path, "train")


def test_epochs_repeat_documents_and_a_fraction_takes_some_once_more(store: TokenStore) -> None:
    entries = [MixtureEntry(source="small", epochs=2.5), MixtureEntry(source="large", epochs=0.25)]
    documents, shares = mixture_documents(store, entries, seed=1)
    counts = np.bincount(documents, minlength=50)
    assert sorted(counts[:10].tolist()) == [2] * 5 + [3] * 5
    assert sorted(counts[10:].tolist()) == [0] * 30 + [1] * 10
    assert [(s.documents, s.rows, s.tokens) for s in shares] == [(10, 25, 125), (10, 10, 100)]
    assert sum(s.token_fraction for s in shares) == pytest.approx(1)
    plan = pack_plan(store.lengths, 20, "whole", documents=documents)
    assert plan.num_tokens == 225


def test_max_rows_caps_the_different_documents_before_they_repeat(store: TokenStore) -> None:
    documents, [share] = mixture_documents(store, [MixtureEntry(source="large", epochs=3, max_rows=7)], 1)
    assert (share.documents, share.rows) == (7, 21)
    assert set(np.bincount(documents)[np.unique(documents)]) == {3}


def test_the_choice_depends_on_the_seed_alone(store: TokenStore) -> None:
    entry = MixtureEntry(source="large", max_rows=5)
    chosen = [mixture_documents(store, [entry], seed)[0].tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    both = mixture_documents(store, [MixtureEntry(source="small"), entry], 1)[0]
    assert sorted(both[10:].tolist()) == sorted(chosen[0])


def test_many_repeats_warn_by_their_share_of_tokens_and_not_by_their_number(store: TokenStore) -> None:
    entries = [MixtureEntry(source="small", epochs=6), MixtureEntry(source="large", epochs=1)]
    assert mixture_warnings(mixture_documents(store, entries, 1)[1]) == [
        'mixture: "small" is repeated 6 times and is 43% of the tokens; more than 4 repeats of a large share '
        "tend to be learned by heart: use fewer epochs or more different rows"
    ]
    rare = [MixtureEntry(source="small", epochs=6, max_rows=2), MixtureEntry(source="large")]
    assert mixture_warnings(mixture_documents(store, rare, 1)[1]) == []


def test_passes_over_the_mixture_repeat_its_sources(store: TokenStore) -> None:
    shares = mixture_documents(store, [MixtureEntry(source="small"), MixtureEntry(source="large", epochs=2)], 1)[1]
    assert mixture_warnings(shares, passes=2) == []
    (warning,) = mixture_warnings(shares, passes=2.5)
    assert warning.startswith('mixture: "large" is repeated 5 times and is 94% of the tokens')


def test_unknown_and_repeated_sources_are_refused(store: TokenStore) -> None:
    with pytest.raises(DataError, match=r'source "lage" has no documents .*; did you mean "large"'):
        mixture_documents(store, [MixtureEntry(source="lage")], 1)
    with pytest.raises(ValueError, match='source "small" is listed twice'):
        check_mixture([MixtureEntry(source="small"), MixtureEntry(source="small")], None, "tokens")
    with pytest.raises(ConfigError, match='"epochs": expected more than 0'):
        load_settings(MixtureEntry, {"source": "a", "epochs": 0.0})


def test_labels_replace_the_source() -> None:
    row = Conversation((Message("user", "hi"), Message("assistant", "cat")), source="old")
    assert [c.source for c in labelled([row], "new")] == ["new"]


def weighed(**weights: float) -> list[MixtureEntry]:
    return [MixtureEntry(source=source, weight=weight) for source, weight in weights.items()]


def test_weights_are_shares_of_the_tokens_and_repeat_nothing(store: TokenStore) -> None:
    documents, shares = mixture_documents(store, weighed(small=1, large=3), seed=1)
    # 50 tokens are all that "small" has; three times as many are 15 of the 40 documents of "large".
    assert [(s.documents, s.rows, s.tokens) for s in shares] == [(10, 10, 50), (15, 15, 150)]
    assert [s.token_fraction for s in shares] == [0.25, 0.75]
    assert max(np.bincount(documents)) == 1


def test_weights_are_shares_of_the_rows_where_that_is_asked(store: TokenStore) -> None:
    _, shares = mixture_documents(store, weighed(small=1, large=3), 1, weighed_by="rows")
    assert [(s.rows, s.tokens) for s in shares] == [(10, 50), (30, 300)]


def test_a_size_makes_sources_repeat_as_often_as_their_weight_asks(store: TokenStore) -> None:
    _, shares = mixture_documents(store, weighed(small=1, large=1), 1, Quantity(600.0, "tokens"))
    assert [(s.documents, s.rows, s.tokens, s.epochs) for s in shares] == [(10, 60, 300, 6.0), (30, 30, 300, 0.75)]
    assert str(shares[0]) == "small: 60 conversations (10 different, 6 epochs), 300 tokens, 50.0%"
    _, shares = mixture_documents(store, weighed(small=1, large=1), 1, Quantity(50.0, "documents"), "rows")
    assert [(s.documents, s.rows) for s in shares] == [(10, 25), (25, 25)]


def test_caps_in_tokens_come_before_repeats(store: TokenStore) -> None:
    capped = [MixtureEntry(source="large", epochs=2, max_tokens=99), MixtureEntry(source="small", max_tokens=1)]
    _, shares = mixture_documents(store, capped, 1)
    assert [(s.documents, s.tokens) for s in shares] == [(9, 180), (1, 5)]


@pytest.mark.parametrize("weighed_by", ["tokens", "rows"])
def test_a_plan_expects_what_comes(store: TokenStore, weighed_by: str) -> None:
    known = {"small": (10.0, 5.0), "large": (40.0, 10.0)}
    for entries in (
        weighed(small=2, large=5),
        [MixtureEntry(source="small", epochs=3), MixtureEntry(source="large", max_rows=7)],
        [MixtureEntry(source="small", max_tokens=25), MixtureEntry(source="large", epochs=0.5)],
    ):
        expected = expected_shares(entries, known, None, weighed_by)  # type: ignore[arg-type]
        real = mixture_documents(store, entries, 1, None, weighed_by)[1]  # type: ignore[arg-type]
        assert [s.tokens for s in expected] == pytest.approx([s.tokens for s in real], abs=5)
        assert [s.epochs for s in expected] == pytest.approx([s.epochs for s in real])


@pytest.mark.parametrize(
    ("entries", "size", "problem"),
    [
        ([*weighed(a=1), MixtureEntry(source="b")], None, "some sources have a weight and some have none"),
        ([MixtureEntry(source="a")], Quantity(5.0, "tokens"), "mixture_size: it needs a weight for every source"),
        (weighed(a=1), Quantity(5.0, "documents"), 'it counts tokens, such as "20_000 tokens"; found 5 documents'),
    ],
)
def test_mixtures_that_do_not_go_together_are_refused(
    entries: list[MixtureEntry], size: Quantity | None, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        check_mixture(entries, size, "tokens")


def test_epochs_and_a_weight_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="has epochs and a weight; give one of them"):
        load_settings(MixtureEntry, {"source": "a", "epochs": 2.0, "weight": 1.0})


def test_the_validation_side_is_taken_by_the_shares_of_the_mixture(store: TokenStore) -> None:
    def share(source: str, fraction: float) -> MixtureShare:
        return MixtureShare(source, 1, 1, 1.0, 1, fraction)

    shares = [share("small", 0.25), share("large", 0.75)]
    assert validation_documents(store, shares, 450).tolist() == list(range(50))
    chosen = validation_documents(store, shares, 100)
    assert chosen.tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16]
    # However small its share, a source is looked at.
    assert validation_documents(store, [share("small", 0.0), share("large", 1.0)], 20).tolist() == [0, 10, 11]
