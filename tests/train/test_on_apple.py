"""Training and decoding as on the GPU of a Mac: the host's numbers, and nothing that torch refuses or gets wrong there.

another_device.py says what stands in for it. No Mac has run it.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from another_device import THERE, Apple, There
from test_on_another_device import (
    DENSE,
    HERE,
    TABLES,
    VOCAB,
    assert_the_same_there,
    gradients,
    host_batch,
    joined,
    model_on,
    numbers,
    streams,
)
from torch import Tensor

from gradus.core.errors import TrainingError
from gradus.data.loader import REFERENCE_LOGP
from gradus.model import attention
from gradus.model.config import model_config
from gradus.model.mps import LONGEST_SUM, run_sums
from gradus.model.sharing import share_prefixes
from gradus.posttrain.config import DPOSettings
from gradus.posttrain.dpo import dpo_loss
from gradus.train.checkpoint import Checkpoints
from gradus.train.config import OptimizerSettings
from gradus.train.host_check import check_against_host
from gradus.train.loop import StepReport, fit
from gradus.train.losses import cross_entropy_sum, next_token_loss
from gradus.train.optimizers import Optimizer, build_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "shared"])
@pytest.mark.parametrize("name", list(TABLES))
def test_next_token_losses_and_gradients(name: str, shared: bool) -> None:
    batch = share_prefixes(host_batch(), HERE) if shared else host_batch()
    assert_the_same_there(TABLES[name], next_token_loss, batch, Apple)


def test_preferences() -> None:
    reference = {REFERENCE_LOGP: torch.tensor([-100.0, -110.0, -50.0, -60.0])}
    loss = dpo_loss(DPOSettings(sft_weight=0.1))
    assert_the_same_there(DENSE, loss, share_prefixes(host_batch(reference), HERE), Apple)


def trained(folder: Path, device: torch.device, steps: int, settings: OptimizerSettings) -> tuple[float, StepReport]:
    """The norm of the weights after some of six steps, and the last report."""
    model = model_on(device, DENSE)
    reports = fit(
        model,
        build_optimizer(model, settings),
        lambda step: [host_batch(seed=step), host_batch(seed=step + 100)],
        next_token_loss,
        tiny.schedule(6),
        steps=6,
        checkpoints=Checkpoints(folder, identity="run"),
        log_every=4,
        save_every=2,
    )
    report = next(report for report in reports if report.step == steps and not report.resumed)
    reports.close()  # type: ignore[attr-defined]
    return float(sum(numbers(parameter).square().sum() for parameter in model.parameters())), report


@pytest.mark.parametrize(
    "settings",
    [OptimizerSettings(), OptimizerSettings(matrix="adafactor", rest="adafactor")],
    ids=["muon", "adafactor"],
)
def test_a_run_goes_from_the_host_to_a_mac_and_back(tmp_path: Path, settings: OptimizerSettings) -> None:
    expected, told = trained(tmp_path / "host", HERE, 6, settings)
    moved = tmp_path / "moved"
    trained(moved, HERE, 2, settings)
    with Apple():
        trained(moved, THERE, 4, settings)
    found, report = trained(moved, HERE, 6, settings)
    assert found == pytest.approx(expected, rel=1e-4)
    assert (report.tokens, report.computed) == (told.tokens, told.computed)
    assert report.loss == pytest.approx(told.loss, rel=1e-4)


def test_tokens_are_drawn_and_forbidden_as_on_the_host() -> None:
    told = []
    for device in (HERE, THERE):
        made = streams()
        with Apple() if device == THERE else nullcontext():
            joined(model_on(device, TABLES["speedrun"]), made)
        told.append([stream.tokens for stream in made])
    assert told[0] == told[1]


def test_the_head_of_a_vocabulary_that_is_too_long_for_one_product() -> None:
    generator = torch.Generator().manual_seed(0)
    vocab = LONGEST_SUM + 300
    hidden, weight = torch.randn(5, 8, generator=generator), torch.randn(vocab, 8, generator=generator)
    targets = torch.tensor([0, 7, vocab - 1, 99, LONGEST_SUM])

    def found(device: torch.device) -> list[Tensor]:
        h, w = (part.clone().to(device).requires_grad_() for part in (hidden, weight))
        cross_entropy_sum(h, w, targets.to(device)).backward()  # type: ignore[no-untyped-call]
        assert h.grad is not None
        assert w.grad is not None
        return [numbers(h.grad), numbers(w.grad)]

    expected = found(HERE)
    with Apple():
        for value, other in zip(found(THERE), expected, strict=True):
            assert torch.allclose(value, other, atol=1e-5)
        with pytest.raises(RuntimeError, match="too long"):
            torch.ones(1, vocab, device=THERE) @ weight.to(THERE)


def test_sums_of_runs_are_those_of_a_device_with_a_kernel() -> None:
    values, counts = torch.arange(24.0).view(2, 4, 3), torch.tensor([1, 3])
    expected = run_sums(values, counts)
    with Apple():
        found = numbers(run_sums(values.to(THERE), counts.to(THERE)))
    assert torch.equal(found, expected)
    assert found[0].tolist() == [[0.0, 1.0, 2.0], [18.0, 21.0, 24.0]]


CHECKED = model_config({"depth": 4, "width": 32, "head_dim": 16}, VOCAB, 128)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_device_that_computes_as_the_host_passes(dtype: torch.dtype) -> None:
    with Apple():
        away = check_against_host(CHECKED, THERE, dtype, OptimizerSettings())
    assert away < (1e-4 if dtype == torch.float32 else 0.2)


def test_a_kernel_that_is_wrong_without_an_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention.F.scaled_dot_product_attention

    def wrong(q: Tensor, k: Tensor, v: Tensor, **rest: object) -> Tensor:
        return right(q, k, v.flip(-2) if isinstance(v, There) else v, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", wrong)
    for dtype in (torch.float32, torch.bfloat16):
        with Apple(), pytest.raises(TrainingError, match=r"computes otherwise there than on the processor: .* off by"):
            check_against_host(CHECKED, THERE, dtype, OptimizerSettings())


def test_what_a_mac_lacks_is_seen() -> None:
    with Apple():
        with pytest.raises(TypeError, match="64 bits"):
            torch.zeros(2, dtype=torch.float64, device=THERE)
        lengths = torch.ones(2).long().to(THERE)
        with pytest.raises(NotImplementedError, match="segment_reduce"):
            torch.segment_reduce(torch.ones(2, device=THERE), "sum", lengths=lengths, unsafe=True)
        assert gradients(THERE, DENSE, next_token_loss, host_batch())


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_an_optimizer_that_takes_a_refused_step_is_found(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    settings = OptimizerSettings(matrix=kind, rest=kind)  # type: ignore[arg-type]
    with Apple():
        assert check_against_host(CHECKED, THERE, torch.float32, settings) < 1e-4
    step = Optimizer.step

    def takes_all(found: Optimizer, number: int, scale: float, skip: Tensor, divisor: Tensor) -> None:
        step(found, number, scale, torch.zeros_like(skip) if isinstance(skip, There) else skip, divisor)

    monkeypatch.setattr(Optimizer, "step", takes_all)
    with Apple(), pytest.raises(TrainingError, match=r"computes otherwise there .* an update of"):
        check_against_host(CHECKED, THERE, torch.float32, settings)
