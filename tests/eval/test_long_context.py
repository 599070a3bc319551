"""Perplexity by position and pass keys, against slow references and models whose answers are known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gradus.core.errors import DataError
from gradus.data.document import Document
from gradus.data.shards import TokenStore
from gradus.data.tokenise import write_token_shards
from gradus.eval.passkey import passkey_items, passkey_retrieval
from gradus.eval.positions import PositionLoss, loss_by_position
from gradus.model.batch import Documents
from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.tokenizer.training import train_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = [" ".join(f"word{i * k % 7} stands at {k}." for k in range(60 + 10 * i)) for i in range(6)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*TEXTS, "The pass key is 0123456789."], vocab_size=288)


@pytest.fixture
def store(tokenizer, tmp_path):
    documents = [Document(text, str(i), "prose", {}) for i, text in enumerate([*TEXTS, "too short"])]
    write_token_shards(documents, tokenizer, tmp_path, split="validation")
    return TokenStore(tmp_path, "validation")


@pytest.fixture(scope="module")
def model(tokenizer):
    config = model_config({"depth": 2, "width": 32, "head_dim": 16}, tokenizer.vocab_size, 512)
    generator = torch.Generator().manual_seed(0)
    built = build_model(config, generator)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return built


def test_the_loss_at_each_position_is_that_of_one_document_after_the_other(model, store):
    length = 200
    found = loss_by_position(model, store, length, max_tokens=10**6)
    long_enough = [d for d in range(store.num_documents) if store.lengths[d] >= length]
    assert found.documents == len(long_enough) > 2
    expected = np.zeros(length)
    for document in long_enough:
        ids = torch.from_numpy(store.ids(document))
        followed = torch.cat([ids, torch.tensor([store.separator])])
        with torch.no_grad():
            logits = model.head(model(ids[:length], Documents.of_lengths([length])))
        expected += F.cross_entropy(logits, followed[1 : length + 1], reduction="none").numpy()
    np.testing.assert_allclose(found.nats, expected, rtol=1e-4)
    mean = float(expected[128:].mean()) / len(long_enough)
    assert found.measure(128) == {"value": pytest.approx(math.exp(mean), rel=1e-4), "n": 72 * len(long_enough)}


def test_the_curve_goes_over_doubling_parts_and_ends_at_the_length():
    loss = PositionLoss(np.repeat([math.log(2), math.log(8)], [64, 136]) * 3, documents=3)
    assert loss.edges == [0, 64, 128, 200]
    assert loss.curve() == [2.0, 8.0, 8.0]


def test_documents_are_chosen_evenly_up_to_a_number_of_tokens(model, store):
    assert loss_by_position(model, store, 200, max_tokens=450).documents == 2


def test_no_long_validation_document_is_an_error_with_the_way_out(model, store):
    with pytest.raises(DataError, match="no validation document has 5,000 tokens, the longest has"):
        loss_by_position(model, store, 5000, max_tokens=10**6)


def test_pass_keys_fill_their_length_and_stand_at_their_depth(tokenizer):
    items = passkey_items(tokenizer, [400, 1000, 3], depths=4, samples=2, seed=1)
    assert len(items) == 2 * 4 * 2  # nothing fits into three tokens
    filler = len(tokenizer.encode("The grass is green. The sky is blue. The sun is yellow. Here we go. "
                                  "There and back again.\n"))  # fmt: skip
    for item in items:
        assert item.length - filler < len(item.tokens) <= item.length
        text = tokenizer.decode(list(item.tokens))
        key = text.rsplit(" ", 1)[1]
        assert len(key) == 5
        assert text.count(key) == 3
        place = text.index(f"The pass key is {key}") / len(text)
        assert abs(place - item.depth) < 0.2
    assert items == passkey_items(tokenizer, [400, 1000, 3], depths=4, samples=2, seed=1)


class Oracle:
    """A stand-in for a model that knows some answers: its "hidden states" are logits already."""

    def __init__(self, items, known, vocab_size):
        self.device = torch.device("cpu")
        self._answers = {item.tokens: index in known for index, item in enumerate(items)}
        self._vocab_size = vocab_size

    def __call__(self, tokens, documents, routing=None):
        logits = torch.zeros(len(tokens), self._vocab_size)
        for begin, end in zip(documents.bounds, documents.bounds[1:], strict=False):
            if self._answers[tuple(tokens[begin:end].tolist())]:
                logits[torch.arange(begin, end - 1), tokens[begin + 1 : end]] = 50.0
        return logits

    def head(self, hidden):
        return hidden


def test_a_key_counts_as_found_where_every_token_of_it_is_the_likeliest(tokenizer):
    items = passkey_items(tokenizer, [300, 600], depths=5, samples=1, seed=0)
    known = {0, 1, 2, 7}
    model = Oracle(items, known, tokenizer.vocab_size)
    measures = passkey_retrieval(model, items, tokens_per_batch=1300).measures()
    assert (measures["at_300"]["successes"], measures["at_300"]["n"]) == (3, 5)
    assert (measures["at_600"]["value"], measures["total"]["value"]) == (0.2, 0.4)
    assert measures["total"]["lower"] < 0.4 < measures["total"]["upper"]
    expected = (math.log(tokenizer.vocab_size) * 6) / 10
    assert measures["total"]["nats_per_token"] == pytest.approx(expected, rel=1e-4)
