"""Muon against singular values and a plain slow version."""

import pytest
import torch
from torch import Tensor, nn

from gradus.train import muon as muon_room
from gradus.train.config import OptimizerSettings
from gradus.train.exchange import balanced_owners
from gradus.train.muon import POLAR_EXPRESS, Muon, orthogonalize

NO = torch.tensor(False)
YES = torch.tensor(True)
ONE = torch.tensor(1.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def svd_direction(matrix: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 96, 32), (1, 40, 1)])
def test_orthogonalize_moves_singular_values_by_the_published_polynomials(shape: tuple[int, ...]) -> None:
    matrices = random(*shape)
    for mine, matrix in zip(orthogonalize(matrices, torch.float32), matrices, strict=True):
        u, values, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
        values = values / (matrix.norm() * 1.02)
        for a, b, c in POLAR_EXPRESS:
            values = a * values + b * values**3 + c * values**5
        assert torch.allclose(mine.double(), u @ values.diag() @ vh, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (256, 64)])
@pytest.mark.parametrize("decades", [0, 3, 6])
def test_orthogonalize_in_fp32_is_exact_for_small_singular_values_too(shape: tuple[int, int], decades: int) -> None:
    u, _, vh = torch.linalg.svd(random(*shape), full_matrices=False)
    matrix = u * torch.logspace(0, -decades, shape[1]) @ vh
    exact = matrix.double() / (matrix.double().norm() * 1.02)
    for a, b, c in POLAR_EXPRESS:
        gram = exact.T @ exact
        exact = a * exact + exact @ (b * gram + c * gram @ gram)
    found = orthogonalize(matrix[None], torch.float32)[0].double()
    assert (found - exact).norm() < 5e-5 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalize_is_close_to_the_svd(dtype: torch.dtype) -> None:
    matrices = random(4, 96, 32)
    for mine, matrix in zip(orthogonalize(matrices, dtype).float(), matrices, strict=True):
        exact = svd_direction(matrix)
        assert (mine * exact).sum() / (mine.norm() * exact.norm()) > 0.99
        values = torch.linalg.svdvals(mine)
        assert values.min() > 0.8
        assert values.max() < 1.2


def test_orthogonalize_does_not_mind_scale_and_keeps_zero() -> None:
    matrices = random(2, 48, 16)
    assert torch.allclose(
        orthogonalize(1e-6 * matrices, torch.float32), orthogonalize(matrices, torch.float32), atol=1e-4
    )
    assert not orthogonalize(torch.zeros(1, 8, 8)).any()


def muon_of(*weights: Tensor, splits: dict[str, list[int]] | None = None, **changes: object) -> Muon:
    parameters = {f"w{i}": nn.Parameter(weight.clone()) for i, weight in enumerate(weights)}
    muon = Muon(parameters, splits or {}, OptimizerSettings(**changes))
    muon.named = parameters
    return muon


def step(muon: Muon, grads: list[Tensor], number: int, skip: Tensor = NO, divisor: Tensor = ONE) -> None:
    for parameter, grad in zip(muon.named.values(), grads, strict=True):
        parameter.grad = grad.clone()
    muon.step(number, 0.1, skip, divisor, torch.float32)


@pytest.mark.parametrize("shape", [(32, 32), (64, 16), (16, 48)])
def test_steps_equal_a_plain_version_with_the_svd(shape: tuple[int, int]) -> None:
    weight = random(*shape)
    muon = muon_of(weight, variance_beta=None, weight_decay=0.5, momentum_warmup_steps=4)
    expected, momentum = weight.clone(), torch.zeros(shape)
    for number in range(6):
        grad = random(*shape, seed=10 + number)
        step(muon, [grad], number)
        mu = 0.85 + 0.1 * min(1, number / 4)
        momentum = mu * momentum + (1 - mu) * grad
        direction = svd_direction((1 - mu) * grad + mu * momentum) * max(1, shape[0] / shape[1]) ** 0.5
        decay = 0.5 * expected * (expected * direction > 0)
        expected = expected - 0.1 * (direction + decay)
    moved, wanted = muon.named["w0"] - weight, expected - weight
    assert (moved * wanted).sum() / (moved.norm() * wanted.norm()) > 0.99
    assert abs(moved.norm() / wanted.norm() - 1) < 0.1


def test_matrices_fused_in_one_parameter_move_as_if_alone() -> None:
    parts = [random(24, 16, seed=1), random(8, 16, seed=2), random(8, 16, seed=3)]
    grads = [random(24, 16, seed=4), random(8, 16, seed=5), random(8, 16, seed=6)]
    fused = muon_of(torch.cat(parts), splits={"w0": [24, 8, 8]})
    alone = muon_of(*parts)
    for number in range(3):
        step(fused, [torch.cat(grads)], number)
        step(alone, grads, number)
    assert torch.allclose(fused.named["w0"], torch.cat(list(alone.named.values())), atol=1e-5)
    state = fused.state()
    assert torch.allclose(
        state["momentum/w0"], torch.cat([alone.state()[f"momentum/w{i}"] for i in range(3)]), atol=1e-6
    )


def test_variance_evens_out_the_rows_and_keeps_the_norm() -> None:
    weight = torch.zeros(64, 16)
    lopsided = random(64, 16) * torch.linspace(0.01, 1, 64)[:, None]
    plain, even = (muon_of(weight, variance_beta=beta) for beta in (None, 0.9))
    for number in range(40):
        step(plain, [lopsided], number)
        step(even, [lopsided], number)
    before = even.named["w0"].detach().clone()
    step(even, [lopsided], 40)
    rows = (even.named["w0"] - before).norm(dim=1)
    assert rows.max() / rows.min() < 1.2
    assert abs(even.named["w0"].norm() / plain.named["w0"].norm() - 1) < 0.1


def test_a_skipped_step_changes_no_bit_even_with_nan_gradients() -> None:
    weight = random(32, 16)
    muon = muon_of(weight, weight_decay=0.1)
    step(muon, [random(32, 16, seed=1)], 0)
    before = {name: value.clone() for name, value in muon.state().items()}
    kept = muon.named["w0"].detach().clone()
    step(muon, [torch.full((32, 16), torch.nan)], 1, skip=YES)
    assert torch.equal(muon.named["w0"], kept)
    for name, value in muon.state().items():
        assert torch.equal(value, before[name]), name


def test_the_divisor_scales_gradients() -> None:
    first, second = (muon_of(random(16, 16)) for _ in range(2))
    step(first, [random(16, 16, seed=2)], 0)
    step(second, [8 * random(16, 16, seed=2)], 0, divisor=torch.tensor(8.0))
    assert torch.equal(first.state()["momentum/w0"], second.state()["momentum/w0"])


def test_matrices_may_be_worked_on_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [random(24, 16, seed=i) for i in range(5)]
    together, apart = muon_of(*weights, weight_decay=0.1), muon_of(*weights, weight_decay=0.1)
    for number in range(3):
        grads = [random(24, 16, seed=10 * number + i) for i in range(5)]
        step(together, grads, number)
        with monkeypatch.context() as patch:
            patch.setattr(muon_room, "_MOST_ELEMENTS", 2 * 24 * 16)
            step(apart, grads, number)
    for name, weight in together.named.items():
        assert torch.allclose(weight, apart.named[name], atol=1e-6), name


def test_owners_share_the_work_evenly_and_alike_everywhere() -> None:
    costs = {f"w{i}": float(cost) for i, cost in enumerate([9, 3, 18, 9] * 30)}
    owners = balanced_owners(costs, 8)
    assert list(owners) == list(costs)
    loads = [sum(costs[name] for name, owner in owners.items() if owner == rank) for rank in range(8)]
    assert max(loads) / (sum(loads) / 8) < 1.05
    assert balanced_owners(dict(reversed(costs.items())), 8) == owners
