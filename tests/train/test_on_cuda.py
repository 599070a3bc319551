"""On a GPU: its own kernels against slow references and against the CPU, and a step that never waits for it.

Run by `pytest -m gpu`, and by bench/gpu as its first part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from torch import Tensor

from gradus.engine.batching import DecodeBatch
from gradus.engine.compiled import compile_steps
from gradus.engine.decoding import GreedyStream, decode_streams
from gradus.model.attention import attention, has_varlen
from gradus.model.batch import Batch, Documents
from gradus.model.config import model_config
from gradus.model.experts import has_grouped_mm
from gradus.model.frozen import freeze
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import load_model
from gradus.train.checkpoint import Checkpoints
from gradus.train.config import GuardSettings, OptimizerSettings
from gradus.train.guard import Guard
from gradus.train.host_check import check_against_host
from gradus.train.loop import StepReport, fit
from gradus.train.losses import next_token_loss
from gradus.train.muon import orthogonalize
from gradus.train.optimizers import Optimizer, build_optimizer
from gradus.train.parallel import World
from gradus.train.sharding import can_compile, prepare_model
from gradus.train.step import StepResult, train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
VOCAB = 128
DENSE = {"depth": 2, "width": 128, "head_dim": 32, "num_kv_heads": 2}
EXPERTS = DENSE | {
    "num_experts": 4, "expert_width": 64, "router": "sigmoid", "balance": "bias", "shared_experts": 1,
}  # fmt: skip
FAMILIES = {"dense": DENSE, "experts": EXPERTS, "speedrun": DENSE | {"family": "speedrun", "window": 48},
            "psann": DENSE | {"family": "psann", "wave_kernel": 3, "spectral_length": 5}}  # fmt: skip
LENGTHS = [200, 1, 37, 400, 64, 66]


@pytest.fixture(autouse=True)
def _exact_fp32() -> Iterator[None]:
    """Products in fp32 are of fp32, so that they can be compared."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def built(table: dict[str, object], device: torch.device, **wrapping: object) -> Transformer:
    """The same weights wherever they are."""
    config = model_config(table, VOCAB, 512)
    model = build_model(
        config, torch.Generator().manual_seed(0), prepare=lambda m: prepare_model(m, World(), **wrapping)
    )
    return model.to(device)


def random_batch(seed: int = 0) -> Batch:
    """Documents of LENGTHS that are worth learning: each counts on in a stride of its own."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for length in LENGTHS:
        start, stride = torch.randint(1, VOCAB, (2,), generator=generator).tolist()
        parts.append((start + stride * torch.arange(length + 1)) % VOCAB)
    tokens, targets = torch.cat([p[:-1] for p in parts]), torch.cat([p[1:] for p in parts])
    return Batch(tokens, targets, Documents.of_lengths(LENGTHS))


class Training:
    """A model with its optimizer and guard, trained step by step on batches that are a function of the step."""

    def __init__(self, table: dict[str, object], device: torch.device, dtype: torch.dtype, **wrapping: object) -> None:
        self.model = built(table, device, **wrapping)
        self.model.compute_dtype = dtype
        self.optimizer: Optimizer = build_optimizer(self.model, OptimizerSettings(momentum_warmup_steps=10))
        self.guard = Guard(GuardSettings(), device)
        self.device = device

    def step(self, number: int, batch: Batch) -> StepResult:
        return train_step(
            self.model, self.optimizer, [batch], next_token_loss,
            step=number, lr_scale=1.0, guard=self.guard, world=World(),
        )  # fmt: skip

    def losses(self, steps: int) -> list[float]:
        """Of each step, on two batches in turn."""
        done = [self.step(number, random_batch(number % 2).to(self.device)) for number in range(steps)]
        return [float(result.loss_sum / result.count) for result in done]


def dense_attention(heads: Tensor, num_heads: int, index: Tensor, window: int | None) -> Tensor:
    """The definition, with a whole mask, in fp32. heads: (H + 2 Hk, N, D), queries scaled. Returns (N, H D)."""
    num_kv = (heads.shape[0] - num_heads) // 2
    q, k, v = heads.float().split([num_heads, num_kv, num_kv])
    k, v = (part.repeat_interleave(num_heads // num_kv, dim=0) for part in (k, v))
    places = torch.arange(len(index), device=index.device)
    distance = places[:, None] - places[None, :]
    seen = (index[:, None] == index[None, :]) & (distance >= 0)
    if window is not None:
        seen &= distance < window
    scores = (q @ k.mT).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_what_is_asked_before_a_stage_trains_here(name: str, dtype: torch.dtype) -> None:
    away = check_against_host(model_config(FAMILIES[name], VOCAB, 512), CUDA, dtype, OptimizerSettings())
    assert away < (1e-4 if dtype == torch.float32 else 0.25)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("window", [None, 1, 48, 1000])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_variable_length_attention_equals_a_dense_mask(head_dim: int, window: int | None, dtype: torch.dtype) -> None:
    assert has_varlen(CUDA), "this GPU or this torch is too old for the fast path"
    generator = torch.Generator().manual_seed(1)
    documents = Documents.of_lengths(LENGTHS, CUDA)
    scale = torch.tensor([head_dim**-0.5] * 4 + [1.0] * 4)[:, None, None]
    values = torch.randn(8, sum(LENGTHS), head_dim, generator=generator) * scale
    upstream = torch.randn(sum(LENGTHS), 4 * head_dim, generator=generator).to(CUDA, dtype)
    heads = values.to(CUDA, dtype).requires_grad_()
    ours = attention(heads, 4, documents, window)
    expected = dense_attention(heads, 4, documents.index, window)
    assert ours.dtype == dtype
    assert "bounds" in documents.cache, "another kernel answered"
    # Roundings of a 16-bit format, relative to values of size 1.
    unit = torch.finfo(dtype).eps
    assert (ours - expected).abs().max() < 8 * unit
    (got,) = torch.autograd.grad((ours * upstream).sum(), heads)
    (wanted,) = torch.autograd.grad((expected * upstream.float()).sum(), heads)
    assert (got.float() - wanted.float()).norm() < 4 * unit * wanted.float().norm()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_steps_in_fp32_are_those_of_the_cpu(name: str) -> None:
    here, there = Training(FAMILIES[name], CPU, torch.float32), Training(FAMILIES[name], CUDA, torch.float32)
    expected, found = here.losses(4), there.losses(4)
    assert found == pytest.approx(expected, rel=2e-4)
    for (parameter, mine), theirs in zip(there.model.named_parameters(), here.model.parameters(), strict=True):
        # Four steps; what differs by rounding may turn a sign of a small update.
        assert (mine.detach().cpu() - theirs.detach()).norm() <= 5e-3 * theirs.detach().norm() + 1e-4, parameter


@pytest.mark.parametrize("name", list(FAMILIES))
def test_training_in_bf16_learns_as_in_fp32(name: str) -> None:
    exact = Training(FAMILIES[name], CUDA, torch.float32).losses(30)
    rounded = Training(FAMILIES[name], CUDA, torch.bfloat16).losses(30)
    assert rounded[0] == pytest.approx(exact[0], rel=5e-3)
    assert rounded[-1] < rounded[0] - 0.2
    assert rounded[-1] == pytest.approx(exact[-1], rel=0.1)


def test_orthogonalized_matrices_are_close_to_those_of_the_svd() -> None:
    generator = torch.Generator().manual_seed(2)
    matrices = torch.randn(6, 256, 128, generator=generator)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    for dtype in (torch.float32, torch.bfloat16):
        found = orthogonalize(matrices.to(CUDA), dtype)
        assert found.device.type == "cuda"
        here = orthogonalize(matrices, torch.float32)
        assert (found.cpu().float() - here).norm() < (1e-4 if dtype == torch.float32 else 2e-2) * here.norm()
        cosine = (found.cpu().float() * (u @ vh)).sum() / (found.cpu().float().norm() * (u @ vh).norm())
        assert cosine > 0.99


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # that it may miss something
@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_step_that_does_not_log_never_waits_for_the_gpu(name: str) -> None:
    training = Training(FAMILIES[name], CUDA, torch.bfloat16)
    pinned = [random_batch(number).pinned() for number in range(4)]
    training.step(0, pinned[0].to(CUDA))  # loads libraries, and asks once which kernels there are
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [training.step(number, pinned[number].to(CUDA)) for number in range(1, 4)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not any(bool(result.skipped) for result in results)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_fit_trains_saves_and_goes_on_and_the_checkpoint_loads_on_a_cpu(tmp_path: Path, precision: str) -> None:
    def run(folder: Path, steps: int, stop_after: int | None = None) -> tuple[Transformer, StepReport]:
        training = Training(DENSE, CUDA, torch.float32)
        reports = fit(
            training.model,
            training.optimizer,
            lambda step: [random_batch(step)],
            next_token_loss,
            tiny.schedule(steps),
            steps=steps,
            checkpoints=Checkpoints(folder, identity="run"),
            log_every=4,
            save_every=4,
            precision=precision,  # type: ignore[arg-type]
        )
        for last in reports:
            if last.step == stop_after:
                break
        return training.model, last

    whole, report = run(tmp_path / "whole", 12)
    assert report.loss is not None
    assert report.skipped == 0
    run(tmp_path / "broken", 12, stop_after=8)
    resumed, _ = run(tmp_path / "broken", 12)
    loaded = load_model(tmp_path / "broken" / "step-00000012")
    for name, parameter in resumed.named_parameters():
        # Sums on a GPU may come in another order each time.
        assert torch.allclose(parameter, whole.get_parameter(name), rtol=2e-2, atol=2e-2)
        assert torch.equal(loaded.get_parameter(name), parameter.detach().cpu())


def test_an_overflowing_loss_scale_in_fp16_is_halved_until_steps_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradus.train.precision.LossScale.FIRST", 2.0**24)
    training = Training(DENSE, CUDA, torch.float32)
    reports = list(
        fit(
            training.model,
            training.optimizer,
            lambda step: [random_batch(step)],
            next_token_loss,
            tiny.schedule(30),
            steps=30,
            checkpoints=None,
            log_every=1,
            precision="fp16",
            guard=GuardSettings(skips_in_row=30),
        )
    )
    assert 0 < reports[-1].skipped < 25
    losses = [report.loss for report in reports if report.loss is not None]
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", list(FAMILIES))
def test_compiled_layers_train_as_others_do(name: str) -> None:
    assert can_compile(CUDA), "this machine lacks Triton or a C compiler"
    plain = Training(FAMILIES[name], CUDA, torch.bfloat16).losses(4)
    compiled = Training(FAMILIES[name], CUDA, torch.bfloat16, compile=True).losses(4)
    assert compiled == pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_activation_checkpointing_learns_the_same(kind: str) -> None:
    plain = Training(DENSE, CUDA, torch.bfloat16).losses(4)
    assert Training(DENSE, CUDA, torch.bfloat16, activation_checkpointing=kind).losses(4) == pytest.approx(
        plain, rel=1e-2
    )


def test_the_grouped_product_of_experts_runs_here_and_equals_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_grouped_mm("cuda", torch.bfloat16), "this GPU or this torch has no grouped product"
    batch = random_batch().to(CUDA)
    found = []
    for grouped in (True, False):
        if not grouped:
            monkeypatch.setattr("gradus.model.experts.has_grouped_mm", lambda device, dtype: False)
        model = built(EXPERTS, CUDA)
        model.compute_dtype = torch.bfloat16
        loss = next_token_loss(model, batch)[0]
        loss.backward()
        found.append((float(loss.detach()), [p.grad.float() for p in model.parameters() if p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-3)
    for mine, wanted in zip(found[0][1], found[1][1], strict=True):
        assert (mine - wanted).norm() <= 2e-2 * wanted.norm() + 1e-6


@pytest.mark.parametrize("name", list(FAMILIES))
def test_decoding_with_a_cache_says_what_the_cpu_says(name: str) -> None:
    answers = []
    trained = Training(FAMILIES[name], CPU, torch.float32)
    trained.losses(20)  # so that the likeliest token is not a tie
    for device in (CPU, CUDA):
        model = built(FAMILIES[name], device)
        model.load_state_dict(trained.model.state_dict())
        streams = [GreedyStream([3, 5, 7], 12), GreedyStream(list(range(1, 80)), 12), GreedyStream([9], 5)]
        batch = DecodeBatch(model, len(streams), VOCAB)
        batch.join(streams)
        while batch.num_live:
            batch.step()
        answers.append([stream.tokens for stream in streams])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "experts"])
def test_captured_steps_decode_what_plain_ones_do(name: str) -> None:
    """Seven streams in three slots: they join, leave, and outgrow the first lengths."""
    trained = Training(FAMILIES[name], CPU, torch.float32)
    trained.losses(20)
    model = built(FAMILIES[name], CUDA)
    model.load_state_dict(trained.model.state_dict())
    freeze(model)

    def told() -> list[list[int]]:
        streams = [GreedyStream([number, 3, 5], 10 + 45 * number) for number in range(7)]
        list(decode_streams(model, streams, VOCAB, max_batch=3))
        return [stream.tokens for stream in streams]

    expected = told()
    compile_steps(model)
    assert told() == expected
