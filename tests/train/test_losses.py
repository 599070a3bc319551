"""Losses against the naive way of working them out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model
from gradus.train import losses
from gradus.train.losses import cross_entropy_sum, next_token_loss, target_logp, token_logp


def inputs(rows: int, vocab: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator).to(dtype).requires_grad_()
    weight = (0.3 * torch.randn(vocab, width, generator=generator)).requires_grad_()
    return hidden, weight, torch.randint(vocab, (rows,), generator=generator)


def small_model(seed: int = 0) -> Transformer:
    config = model_config({"depth": 2, "width": 32, "head_dim": 16}, vocab_size=50, context=64)
    model = build_model(config, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    return model


def batch_of(lengths: list[int], supervised_fraction: float, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    tokens, targets = torch.randint(50, (2, total), generator=generator)
    targets[torch.rand(total, generator=generator) >= supervised_fraction] = IGNORE
    return Batch(tokens, targets, Documents.of_lengths(lengths))


@pytest.mark.parametrize("block", [1, 200, 2**23])
def test_chunked_cross_entropy_equals_the_naive_one(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_ON_CPU", block)
    hidden, weight, targets = inputs(37, 61, 16, torch.float32)
    ours = cross_entropy_sum(hidden, weight, targets)
    naive = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    assert torch.allclose(ours, naive, rtol=1e-6)
    got = torch.autograd.grad(0.7 * ours, (hidden, weight))
    expected = torch.autograd.grad(0.7 * naive, (hidden, weight))
    for mine, theirs in zip(got, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_in_bf16_the_sum_is_within_a_thousandth_and_the_gradient_within_a_hundredth() -> None:
    hidden, weight, targets = inputs(2000, 300, 32, torch.bfloat16)
    ours = cross_entropy_sum(hidden, weight, targets)
    exact = F.cross_entropy(hidden.float() @ weight.T, targets, reduction="sum")
    assert abs(ours / exact - 1) < 1e-3
    got = torch.autograd.grad(ours, (hidden, weight))
    expected = torch.autograd.grad(exact, (hidden, weight))
    for mine, theirs in zip(got, expected, strict=True):
        assert (mine.float() - theirs.float()).norm() < 1e-2 * theirs.norm()


@pytest.mark.parametrize("block", [100, 2**23])
def test_target_logp_equals_log_softmax_for_any_upstream_gradient(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_ON_CPU", block)
    hidden, weight, targets = inputs(23, 41, 16, torch.float32)
    upstream = torch.randn(23, generator=torch.Generator().manual_seed(1))
    ours = target_logp(hidden, weight, targets)
    naive = (hidden @ weight.T).log_softmax(-1)[torch.arange(23), targets]
    assert torch.allclose(ours, naive, atol=1e-6)
    got = torch.autograd.grad((ours * upstream).sum(), (hidden, weight))
    expected = torch.autograd.grad((naive * upstream).sum(), (hidden, weight))
    for mine, theirs in zip(got, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_certain_and_an_impossible_target_give_finite_losses() -> None:
    hidden = torch.tensor([[200.0, 0.0]], requires_grad=True)
    weight = torch.eye(2, requires_grad=True)
    assert cross_entropy_sum(hidden, weight, torch.tensor([0])) == 0
    loss = cross_entropy_sum(hidden, weight, torch.tensor([1]))
    assert 80 < loss < 90
    (grad,) = torch.autograd.grad(loss, hidden)
    assert torch.equal(grad, torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize("supervised_fraction", [1.0, 0.3, 0.0])
def test_next_token_loss_counts_supervised_targets_only(supervised_fraction: float) -> None:
    model = small_model()
    batch = batch_of([20, 7, 13], supervised_fraction)
    total, count, metrics = next_token_loss(model, batch)
    logits = model.head(model(batch.tokens, batch.documents))
    naive = F.cross_entropy(logits, batch.targets, ignore_index=IGNORE, reduction="sum")
    assert count == (batch.targets != IGNORE).sum()
    assert metrics == {}
    assert torch.allclose(total, naive, atol=1e-4)
    total.backward()
    got = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    naive.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(got[name], parameter.grad, atol=1e-4), name


def test_without_gradients_the_loss_is_the_same_and_nothing_is_kept() -> None:
    model = small_model()
    batch = batch_of([30], 0.5)
    with_grad, _, _ = next_token_loss(model, batch)
    with torch.no_grad():
        without, _, _ = next_token_loss(model, batch)
    assert not without.requires_grad
    assert torch.allclose(with_grad, without, rtol=1e-6)


def test_token_logp_is_in_token_order_and_sums_to_the_loss() -> None:
    model = small_model()
    batch = batch_of([12, 12, 9], 0.6)
    logp = token_logp(model, batch)
    total, _, _ = next_token_loss(model, batch)
    assert torch.allclose(-logp.sum(), total, rtol=1e-5)
    index = batch.documents.index[batch.supervised]
    per_document = torch.zeros(3).index_add(0, index, logp)
    for document, (start, stop) in enumerate([(0, 12), (12, 24), (24, 33)]):
        alone = Batch(batch.tokens[start:stop], batch.targets[start:stop], Documents.of_lengths([stop - start]))
        assert torch.allclose(per_document[document], token_logp(model, alone).sum(), atol=1e-4)


@pytest.mark.parametrize("vocab_size", [50, 9000])  # 9,000 x 1,200 logits take two blocks
def test_capped_cross_entropy_and_its_gradients_equal_the_naive_ones(vocab_size: int) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = (3 * torch.randn(1200, 8, generator=generator)).double().requires_grad_()
    weight = torch.randn(vocab_size, 8, generator=generator).double().requires_grad_()
    targets = torch.randint(vocab_size, (1200,), generator=generator)
    capped = 4.0 * torch.tanh(hidden @ weight.T / 4.0)
    naive = F.cross_entropy(capped, targets, reduction="none")
    expected = torch.autograd.grad(naive.sum(), (hidden, weight), retain_graph=True)
    ours = cross_entropy_sum(hidden, weight, targets, 4.0)
    assert ours.item() == pytest.approx(naive.sum().item(), rel=1e-5)
    weights = torch.randn(1200, generator=generator).double()
    per_token = target_logp(hidden, weight, targets, 4.0)
    assert torch.allclose(per_token.double(), -naive, atol=1e-4)
    with torch.no_grad():
        assert cross_entropy_sum(hidden, weight, targets, 4.0).item() == pytest.approx(naive.sum().item(), rel=1e-5)
    for mine, wanted in zip(torch.autograd.grad(ours, (hidden, weight)), expected, strict=True):
        assert torch.allclose(mine, wanted, rtol=1e-6, atol=1e-8)
    expected = torch.autograd.grad((-naive * weights).sum(), (hidden, weight), retain_graph=True)
    got = torch.autograd.grad((per_token * weights).sum(), (hidden, weight))
    for mine, wanted in zip(got, expected, strict=True):
        assert torch.allclose(mine, wanted, rtol=1e-4, atol=1e-6)


def test_in_fp16_an_improbable_target_counts_as_much_as_it_is() -> None:
    # e^-20 is zero in fp16, whose least number is e^-16.6.
    hidden = torch.tensor([[20.0, 0.0]], dtype=torch.float16, requires_grad=True)
    weight, target = torch.eye(2), torch.tensor([1])
    assert cross_entropy_sum(hidden, weight, target).item() == pytest.approx(20.0, abs=0.01)
