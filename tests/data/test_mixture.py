"""Mixtures: whole and fractional epochs, caps, shares of tokens, and warnings about harmful repeats."""

from pathlib import Path

import numpy as np
import pytest

from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import load_settings
from gradus.data.mixture import MixtureEntry, labelled, mixture_documents, mixture_warnings
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


def test_unknown_and_repeated_sources_are_refused(store: TokenStore) -> None:
    with pytest.raises(DataError, match=r'source "lage" has no documents .*; did you mean "large"'):
        mixture_documents(store, [MixtureEntry(source="lage")], 1)
    with pytest.raises(DataError, match='source "small" is listed twice'):
        mixture_documents(store, [MixtureEntry(source="small"), MixtureEntry(source="small")], 1)
    with pytest.raises(ConfigError, match='"epochs": expected more than 0'):
        load_settings(MixtureEntry, {"source": "a", "epochs": 0.0})


def test_labels_replace_the_source() -> None:
    row = Conversation((Message("user", "hi"), Message("assistant", "cat")), source="old")
    assert [c.source for c in labelled([row], "new")] == ["new"]
