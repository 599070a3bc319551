"""AdamW of 8 bits against torchao's own step, against AdamW of 32 bits, and by what may not be lost."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_training as tiny
import torch
from torch import nn
from warm_start import WarmStart

from gradus.core.errors import ArtifactError, MissingPackageError
from gradus.model.cost import STATE_BYTES
from gradus.train.adam8bit import Adam8bitGroup, block_size, largest_step
from gradus.train.checkpoint import Checkpoints
from gradus.train.config import OptimizerSettings
from gradus.train.loop import fit
from gradus.train.losses import next_token_loss
from gradus.train.optimizers import AdamGroup
from gradus.train.parallel import World

RATES = {"matrix_lr": 3e-3, "embed_lr": 3e-3, "head_lr": 3e-3, "width": 64}
EIGHT = RATES | {"matrix": "adamw8bit", "rest": "adamw8bit"}
ONE, NO, YES = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)


@pytest.fixture(autouse=True, scope="module")
def _needs_torchao() -> None:
    pytest.importorskip("torchao", reason="the extra [optim] is not installed")


def group_of(weight: torch.Tensor, kind: type = Adam8bitGroup, **changes: object) -> Any:
    settings = OptimizerSettings(**({"eps": 1e-8} | changes))
    return kind({"w": nn.Parameter(weight.clone())}, 1e-2, 0.1, World(), settings)


def step(group: Any, gradient: torch.Tensor, count: int, skip: torch.Tensor = NO) -> torch.Tensor:
    group.parameters["w"].grad = gradient.clone()
    group.step(torch.tensor(float(count)), 0.5, skip, ONE)
    return group.parameters["w"].detach()


def gradients(*shape: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(6)]


@pytest.mark.parametrize("shape", [(40, 256), (6, 4, 512), (96,), (40, 7)])
def test_steps_are_those_of_torchao(shape: tuple[int, ...]) -> None:
    from torchao.optim.adam import single_param_adam
    from torchao.optim.subclass_8bit import OptimState8bit

    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    mine, theirs = group_of(weight), weight.clone()
    assert mine.blocks["w"] == (256 if weight.numel() >= 4096 and len(shape) > 1 else None)
    if mine.blocks["w"]:
        moments = [OptimState8bit.zeros(shape, signed, 256, dtype=torch.float32) for signed in (True, False)]
    else:
        moments = [torch.zeros(shape) for _ in range(2)]
    for count, grad in enumerate(gradients(*shape), start=1):
        found = step(mine, grad, count)
        number, rate = torch.tensor(float(count)), torch.tensor(5e-3)
        single_param_adam(theirs, grad, number, *moments, None, rate, 0.8, 0.95, 0.1, 1e-8, True, False)
        assert torch.allclose(found, theirs, atol=1e-6)


def test_the_first_step_is_that_of_32_bits() -> None:
    weight, grad = torch.randn(64, 128), gradients(64, 128)[0]
    assert torch.allclose(step(group_of(weight), grad, 1), step(group_of(weight, AdamGroup), grad, 1), atol=1e-6)


def test_later_steps_stay_near_those_of_32_bits() -> None:
    weight = torch.randn(64, 128)
    eight, full = group_of(weight), group_of(weight, AdamGroup)
    for count, grad in enumerate(gradients(64, 128), start=1):
        moved, expected = step(eight, grad, count), step(full, grad, count)
    assert (moved - expected).norm() < 0.05 * (expected - weight).norm()


def test_a_skipped_step_changes_neither_weights_nor_moments() -> None:
    group = group_of(torch.randn(64, 128))
    for count, grad in enumerate(gradients(64, 128), start=1):
        step(group, grad, count)
    before, weight = {n: t.clone() for n, t in group.state().items()}, group.parameters["w"].detach().clone()
    assert torch.equal(step(group, torch.full((64, 128), math.nan), 7, skip=YES), weight)
    assert all(torch.equal(before[name], tensor) for name, tensor in group.state().items())


def test_a_square_that_8_bits_take_for_zero_does_not_divide() -> None:
    group = group_of(torch.zeros(64, 128), eps=1e-10)
    grad = torch.full((64, 128), 1e-4)
    grad[:, 0] = 1.0  # of each block one value is far larger: the squares of the others are below the smallest code
    step(group, grad, 1)
    before = group.parameters["w"].detach().clone()
    moved = step(group, torch.zeros(64, 128), 2) - before
    correction = math.sqrt(1 - 0.95**2) / (1 - 0.8**2)
    assert moved.abs().max() <= 1e-2 * 0.5 * largest_step(0.8, 0.95) * correction * 1.0001


def test_no_step_of_exact_moments_is_larger_than_the_bound() -> None:
    """Its worst case is a gradient that grows by beta2 / beta1 a step."""
    mean = square = 0.0
    for exponent in range(60):
        grad = (0.95 / 0.8) ** exponent
        mean, square = 0.8 * mean + 0.2 * grad, 0.95 * square + 0.05 * grad**2
    assert mean / math.sqrt(square) == pytest.approx(largest_step(0.8, 0.95), rel=1e-3)
    assert largest_step(0.99, 0.9) == math.inf


@pytest.mark.parametrize(
    ("shape", "block"),
    [((4096,), None), ((16, 128), None), ((32, 128), 128), ((9, 768), 256), ((64, 352), 176), ((999, 31), None)],
)
def test_blocks_lie_within_rows(shape: tuple[int, ...], block: int | None) -> None:
    assert block_size(shape) == block


def test_the_state_takes_a_quarter_of_that_of_32_bits() -> None:
    _, optimizer = tiny.model_and_optimizer(**EIGHT)
    sizes = {name: tensor.nbytes for name, tensor in optimizer.state().items()}
    quantized = {n: p for n, p in optimizer.parameters.items() if block_size(tuple(p.shape))}
    elements = sum(p.numel() for p in quantized.values())
    assert elements > 0.85 * sum(p.numel() for p in optimizer.parameters.values())
    scales = sum(p.numel() // block_size(tuple(p.shape)) for p in quantized.values())
    assert sum(size for name, size in sizes.items() if name.startswith("adam8bit_")) == 2 * (elements + 4 * scales)
    assert STATE_BYTES["adamw8bit"] == 2 * (1 + 4 / 256)  # rows are shorter here
    held = sum(
        t.nbytes for g in optimizer.groups for part in (g.values, g.scales) for k in part.values() for t in k.values()
    )
    assert held == sum(sizes.values()) - sizes["adam_count"]


def train(
    folder: Path | None, steps: int = 24, stop_after: int | None = None, save_every: int = 6, **kinds: object
) -> tuple[Any, list[float]]:
    """The model, and the loss of every step."""
    model, optimizer = tiny.model_and_optimizer(**kinds)
    losses = []
    for report in fit(
        model,
        optimizer,
        lambda step: [tiny.batch(tiny.documents_of_step(step))],
        next_token_loss,
        tiny.schedule(steps),
        steps=steps,
        checkpoints=Checkpoints(folder) if folder else None,
        log_every=1,
        save_every=save_every,
        precision="fp32",
    ):
        if not report.resumed:
            losses.append(report.loss)
        if report.step == stop_after and not report.resumed:
            break
    return model, losses


def test_it_learns_as_adamw_of_32_bits_does() -> None:
    _, eight = train(None, 60, **EIGHT)
    _, full = train(None, 60, matrix="adamw", **RATES)
    assert eight[-1] < eight[0] - 0.3
    assert eight == pytest.approx(full, rel=1e-3)


def test_a_run_that_was_stopped_ends_with_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", **EIGHT)
    train(tmp_path / "broken", stop_after=12, **EIGHT)
    resumed, _ = train(tmp_path / "broken", **EIGHT)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_the_state_of_another_optimizer_is_refused() -> None:
    _, full = tiny.model_and_optimizer(matrix="adamw", width=64)
    _, eight = tiny.model_and_optimizer(**EIGHT)
    with pytest.raises(ArtifactError, match=r"does not fit this model: 'adam8bit_mean_codes/"):
        eight.load_state(full.state(), "somewhere")


@pytest.mark.parametrize("mode", ["shard", pytest.param("replicate", marks=pytest.mark.slow)])
def test_two_ranks_train_as_one_and_hand_over_to_one(warm: WarmStart, tmp_path: Path, mode: str) -> None:
    _, expected = train(None, 50, stop_after=40, **EIGHT)
    words = ["ranks", tmp_path, "2", "20", mode, *(f"{key}={value}" for key, value in EIGHT.items())]
    done = warm.run([Path(__file__).parent / "processes.py", *words])
    assert done.returncode == 0, done.stderr
    _, rest = train(tmp_path / "checkpoints", 50, stop_after=40, save_every=20, **EIGHT)
    # Sums in another order now and then come to another code.
    assert json.loads(done.stdout)["losses"] + rest == pytest.approx(expected, abs=2e-3)


def test_without_torchao_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.optim.subclass_8bit", None)
    with pytest.raises(
        MissingPackageError, match=r'"torchao" is needed and not installed; run: pip install "gradus\[optim\]"'
    ):
        tiny.model_and_optimizer(**EIGHT)
