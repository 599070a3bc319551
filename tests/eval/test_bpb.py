"""Bits per byte by hand, and the same for every way to cut and pack."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gradus.core.errors import DataError
from gradus.data.document import Document
from gradus.data.shards import TokenStore
from gradus.data.tokenise import write_token_shards
from gradus.eval.bpb import BitsPerByte, bits_by_document, bits_per_byte, bits_per_byte_by_source
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = {"prose": ["the cat sat on the mat", "a dog ran off", "café"], "sums": ["1 + 1 = 2", "2 + 2 = 4"]}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([text for texts in TEXTS.values() for text in texts] * 4, vocab_size=280)


@pytest.fixture
def store(tokenizer: Tokenizer, tmp_path: Path) -> TokenStore:
    # In turn, so that sources are mixed in the store.
    rows = [(source, text) for source, texts in TEXTS.items() for text in texts]
    documents = [Document(text, str(i), source, {}) for i, (source, text) in enumerate(rows[::2] + rows[1::2])]
    write_token_shards(documents, tokenizer, tmp_path, split="validation")
    return TokenStore(tmp_path, "validation")


def random_model(vocab_size: int, context: int = 64) -> Transformer:
    table = {"depth": 1, "width": 16, "num_heads": 1, "head_dim": 16}
    generator = torch.Generator().manual_seed(0)
    model = build_model(model_config(table, vocab_size, context), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            # A fresh model ignores its context: its blocks start as the identity.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def uniform_model(vocab_size: int) -> Transformer:
    model = random_model(vocab_size)
    with torch.no_grad():
        assert model.unembedding is not None
        model.unembedding.zero_()
    return model


def test_a_uniform_model_needs_log2_v_bits_for_every_token(tokenizer: Tokenizer, store: TokenStore) -> None:
    found = bits_per_byte_by_source(uniform_model(tokenizer.vocab_size), store, tokenizer.token_bytes)
    for source, texts in TEXTS.items():
        num_tokens = sum(len(tokenizer.encode(text)) for text in texts)
        num_bytes = sum(len(text.encode()) for text in texts)
        assert (found[source].num_tokens, found[source].num_bytes) == (num_tokens, num_bytes)
        assert found[source].value == pytest.approx(math.log2(280) * num_tokens / num_bytes, rel=1e-6)


def test_control_tokens_count_neither_nats_nor_bytes() -> None:
    model = random_model(5)
    tokens = torch.tensor([0, 1, 2, 3])
    token_bytes = np.array([1, 2, 3, 0, 0])
    documents = Documents.of_lengths([4])
    with torch.no_grad():
        logp = model.head(model(tokens, documents)).log_softmax(-1)
    batch = Batch(tokens, torch.tensor([2, 3, IGNORE, 1]), documents)
    found = bits_per_byte(model, [batch, batch], token_bytes)
    # Counted: token 2 (3 bytes) after the first, token 1 (2 bytes) after the last; 3 is a control token.
    nats = -2 * float(logp[0, 2] + logp[3, 1])
    assert found.nats == pytest.approx(nats, rel=1e-6)
    assert (found.num_bytes, found.num_tokens) == (10, 4)
    assert found.value == pytest.approx(nats / math.log(2) / 10, rel=1e-6)
    assert found.measure()["n"] == 4


def test_packing_and_batch_size_do_not_change_the_figure(tokenizer: Tokenizer, store: TokenStore) -> None:
    model = random_model(tokenizer.vocab_size)
    few, many = (
        bits_per_byte_by_source(model, store, tokenizer.token_bytes, tokens_per_batch=size) for size in (1, 100_000)
    )
    # One document at a time by hand.
    for index, name in enumerate(store.sources):
        nats = 0.0
        for document in np.flatnonzero(store.source_index == index).tolist():
            ids = torch.from_numpy(store.ids(document))
            with torch.no_grad():
                logits = model.head(model(ids, Documents.of_lengths([len(ids)])))
            nats -= float(logits[:-1].log_softmax(-1).gather(1, ids[1:, None]).sum())
        assert few[name].nats == pytest.approx(nats, rel=1e-5)
        assert many[name].nats == pytest.approx(nats, rel=1e-5)


def test_short_rows_cut_documents_but_lose_no_token(tokenizer: Tokenizer, store: TokenStore) -> None:
    model = random_model(tokenizer.vocab_size)
    whole = bits_per_byte_by_source(model, store, tokenizer.token_bytes)
    cut = bits_per_byte_by_source(model, store, tokenizer.token_bytes, row_length=4)
    for name in whole:
        assert (cut[name].num_tokens, cut[name].num_bytes) == (whole[name].num_tokens, whole[name].num_bytes)
    assert cut != whole


def test_a_limit_measures_documents_from_every_source(tokenizer: Tokenizer, store: TokenStore) -> None:
    model = random_model(tokenizer.vocab_size)
    seen: list[tuple[int, int]] = []
    part = bits_per_byte_by_source(
        model,
        store,
        tokenizer.token_bytes,
        max_tokens=store.num_tokens // 2,
        on_progress=lambda *now: seen.append(now),
    )
    assert set(part) == set(TEXTS)
    assert 0 < sum(p.num_tokens for p in part.values()) < store.num_tokens
    assert seen[-1][0] == seen[-1][1]


def test_every_document_has_its_own_bits_and_their_spread_is_the_error(tokenizer: Tokenizer, store: TokenStore) -> None:
    for context in (64, 8):
        model = random_model(tokenizer.vocab_size, context)
        whole = bits_per_byte_by_source(model, store, tokenizer.token_bytes)
        found = bits_by_document(model, store, tokenizer.token_bytes, tokens_per_batch=3 * context)
        for source, texts in TEXTS.items():
            assert sum(found[source].nats) == pytest.approx(whole[source].nats, rel=1e-6)
            assert sorted(found[source].num_bytes) == sorted(len(text.encode()) for text in texts)
            assert sum(found[source].num_tokens) == whole[source].num_tokens
        measure = (found["prose"] + found["sums"]).measure()
        assert measure["value"] == pytest.approx((whole["prose"] + whole["sums"]).value, rel=1e-6)
        assert (measure["documents"], len(measure["items"])) == (5, 5)
        assert sum(measure["items"].values()) / 5 == pytest.approx(measure["value"])
        assert measure["lower"] < measure["value"] < measure["upper"]
        assert measure["standard_error"] > 0


def test_another_tokenizer_is_refused(tokenizer: Tokenizer, store: TokenStore) -> None:
    model = random_model(tokenizer.vocab_size)
    with pytest.raises(DataError, match="the shards have 280 ids and the tokenizer 7"):
        bits_per_byte_by_source(model, store, np.ones(7, dtype=np.int64))


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(DataError, match="there is no text to measure on"):
        _ = BitsPerByte().value
