"""Prefixes that documents share, computed once: what the documents by themselves are the measure of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SIGMOID, random_model, random_tokens, small_config

from gradus.model import attention
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.sharing import share_prefixes
from gradus.train.losses import next_token_loss

CPU = torch.device("cpu")


def batch_of(documents, row_length=None):
    """(tokens, first token with a target) of each document, end to end; with a row length filled up to whole rows."""
    tokens = [token for part, _ in documents for token in part]
    targets = []
    for part, first in documents:
        following = [*part[1:], 0]
        targets += [IGNORE if place < first else following[place] for place in range(len(part))]
    lengths = [len(part) for part, _ in documents]
    padding = -len(tokens) % row_length if row_length else 0
    found = Documents.of_lengths([*lengths, padding] if padding else lengths)
    return Batch(
        torch.tensor(tokens + [0] * padding),
        torch.tensor(targets + [IGNORE] * padding),
        Documents(found.bounds, found.positions, row_length),
        {},
        padding,
    )


def conversations(number=6, prefix=20, seed=3):
    """Documents of two openings, one of them going on from the other, with answers of many lengths."""
    short = random_tokens(prefix, seed=seed).tolist()
    long = short + random_tokens(prefix // 2, seed=seed + 1).tolist()
    made = []
    for index in range(number):
        opening = (short, long)[index % 2]
        own = random_tokens(5 + 7 * index, seed=seed + 2 + index).tolist()
        made.append((opening + own, len(opening) + 2))
    return made


DOCUMENTS = st.lists(
    st.tuples(st.lists(st.integers(1, 2), min_size=1, max_size=12), st.integers(0, 12)), min_size=1, max_size=8
)


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS, st.sampled_from([None, 16]))
def test_every_document_reads_as_before_and_every_target_stays(documents, row_length):
    batch = batch_of(documents, row_length)
    found = share_prefixes(batch, CPU)
    assert found.num_tokens == batch.num_tokens == sum(len(part) for part, _ in documents)
    if found is batch:
        return
    shared = found.documents.shared
    assert found.num_computed < batch.num_computed
    assert found.tokens.shape == found.targets.shape == found.documents.positions.shape
    tokens, positions = found.tokens[shared.token], found.documents.positions[shared.token]
    assert torch.equal(tokens[: batch.num_tokens], batch.tokens[: batch.num_tokens])
    assert torch.equal(positions[: batch.num_tokens], batch.documents.positions[: batch.num_tokens])
    assert torch.equal(found.targets[found.supervised], batch.targets[batch.supervised])
    assert torch.equal(found.documents.index[found.supervised], batch.documents.index[batch.supervised])
    assert torch.equal(shared.token[shared.place], torch.arange(len(found.tokens)))
    assert torch.equal(shared.token[shared.repeated], shared.tokens.repeat_interleave(shared.counts))


def test_all_that_can_be_shared_is_shared():
    opening = list(range(1, 21))
    documents = [([*opening, 30 + index, 40], 20) for index in range(5)]
    found = share_prefixes(batch_of(documents), CPU)
    assert (found.num_tokens, found.num_computed) == (5 * 22, 20 + 5 * 2)
    # From its target on a token is each document's own, alike or not.
    found = share_prefixes(batch_of([(part, 8) for part, _ in documents]), CPU)
    assert found.num_computed == 8 + 5 * 14


@pytest.mark.parametrize(
    ("documents", "device"),
    [
        ([(list(range(1, 40)), 0), (list(range(1, 40)), 0)], "cpu"),  # pretraining: every token has a target
        ([([1, *range(2, 60)], 30), ([1, *range(60, 90)], 20)], "cpu"),  # one token in common
        ([(list(range(1, 40)), 30)] * 2, "xla"),
    ],
)
def test_a_batch_with_nothing_to_share_is_left_as_it_is(documents, device):
    batch = batch_of(documents)
    assert share_prefixes(batch, torch.device(device)) is batch


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"family": "custom", "window_pattern": "SL", "window": 12},
        {"family": "speedrun", "window": 5},
        {"family": "psann", "wave_kernel": 4, "spectral_length": 6},
        SIGMOID,
    ],
    ids=["portable", "windows", "speedrun", "psann", "experts"],
)
def test_losses_and_gradients_are_those_of_whole_documents(changes):
    model = random_model(small_config(**changes))
    batch = batch_of(conversations(), 64)
    shared = share_prefixes(batch, CPU)
    assert shared is not batch
    expected, found = (_trained(model, each) for each in (batch, shared))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_other_kinds_of_attention_share_too(monkeypatch):
    model = random_model(small_config())
    batch = batch_of(conversations())
    expected = _trained(model, batch)
    monkeypatch.setattr(attention, "KEPT_LENGTH", 0)
    torch.testing.assert_close(_trained(model, share_prefixes(batch, CPU)), expected, rtol=1e-3, atol=1e-4)


def test_gradients_of_many_documents_add_up_in_fp32():
    """In bf16 the sum of 400 gradients would stop growing at 256."""
    documents = batch_of([([1, 2, 3, 4, 5 + index % 90], 4) for index in range(400)])
    shared = share_prefixes(documents, CPU)
    heads = torch.ones(3, len(shared.tokens), 4, dtype=torch.bfloat16, requires_grad=True)
    out = attention.attention(heads, 1, shared.documents)
    out[shared.supervised].sum().backward()
    # Every answer sees five values with the same weight.
    assert heads.grad[2, 0].float() == pytest.approx(80.0, rel=0.02)


def _trained(model, batch):
    model.zero_grad()
    batch.documents.cache.clear()
    loss, count, _ = next_token_loss(model, batch)
    loss.backward()
    # What balances experts goes by the tokens that are computed.
    named = ((name, p.grad) for name, p in model.named_parameters() if not name.endswith("router_bias"))
    gradients = {name: grad.clone() for name, grad in named if grad is not None}
    return gradients | {"loss": loss.detach(), "count": count}
