"""Training, decoding and measuring on a device that is not the host: the host's numbers, and nothing that CUDA refuses.

another_device.py says what stands in for a GPU, and what it cannot show: kernels of a GPU's own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch
from another_device import THERE, AnotherDevice, There
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from gradus.data.loader import REFERENCE_LOGP
from gradus.engine import batching
from gradus.engine.batching import DecodeBatch
from gradus.engine.decoding import GreedyStream, decode_streams
from gradus.engine.prefix_cache import PrefixCache
from gradus.engine.sampling import Sampling
from gradus.eval.asked import Continuation
from gradus.eval.likelihood import likelihoods
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import model_config
from gradus.model.frozen import freeze
from gradus.model.sharing import share_prefixes
from gradus.model.transformer import Transformer, build_model
from gradus.posttrain import grpo
from gradus.posttrain.config import DPOSettings
from gradus.posttrain.dpo import dpo_loss
from gradus.posttrain.grpo import GRPOSettings, grpo_loss, with_policy
from gradus.release.parity import row_logits
from gradus.train.checkpoint import Checkpoints
from gradus.train.config import OptimizerSettings
from gradus.train.loop import fit
from gradus.train.losses import Loss, next_token_loss
from gradus.train.optimizers import build_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = torch.device("cpu")
VOCAB = 96
DENSE = {"depth": 2, "width": 32, "head_dim": 8, "num_kv_heads": 2}
EXPERTS = {"num_experts": 4, "expert_width": 16, "router": "sigmoid", "balance": "bias", "shared_experts": 1}
TABLES = {
    "dense": DENSE,
    "stretched": DENSE | {"rope_scaling": {"factor": 4.0, "original_context": 64}},
    "experts": DENSE | EXPERTS,
    "psann": DENSE | {"family": "psann", "wave_kernel": 3, "spectral_length": 5},
    "speedrun": DENSE | {"family": "speedrun", "window": 48},
}
PREFIX, LENGTHS = 30, [50, 70, 40, 60]


def model_on(device: torch.device, table: dict[str, object]) -> Transformer:
    """The same weights wherever they are, none of them zero."""
    model = build_model(model_config(table, VOCAB, 256), torch.Generator().manual_seed(0), device)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((0.05 * torch.randn(parameter.shape, generator=generator)).to(device))
    return model


def host_batch(extra: dict[str, Tensor] | None = None, seed: int = 0) -> Batch:
    """Documents that begin alike, with targets behind that beginning alone."""
    generator = torch.Generator().manual_seed(seed)
    beginning = torch.randint(0, VOCAB, (PREFIX,), generator=generator)
    parts = [torch.cat([beginning, torch.randint(0, VOCAB, (n - PREFIX,), generator=generator)]) for n in LENGTHS]
    targets = [part.roll(-1).index_fill(0, torch.arange(PREFIX + 2), IGNORE) for part in parts]
    return Batch(torch.cat(parts), torch.cat(targets), Documents.of_lengths(LENGTHS), extra or {})


def numbers(tensor: Tensor) -> Tensor:
    """What a tensor holds, wherever it is."""
    return tensor.inside if isinstance(tensor, There) else tensor.detach()


def gradients(device: torch.device, table: dict[str, object], loss: Loss, batch: Batch) -> dict[str, Tensor]:
    """Of all parameters, with what the loss says besides; nothing of it may wait."""
    model = model_on(device, table)
    there = _get_current_dispatch_mode()
    waits = there.waits if isinstance(there, AnotherDevice) else []
    waits.clear()  # of the weights, on their way
    total, count, metrics = loss(model, batch.to(device))
    total.backward()
    assert waits == []
    found = {name: numbers(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    return found | {f"metric {n}": numbers(v) for n, v in metrics.items()} | {"loss": numbers(total) / numbers(count)}


def assert_the_same_there(
    table: dict[str, object], loss: Loss, batch: Batch, kind: type[AnotherDevice] = AnotherDevice
) -> None:
    expected = gradients(HERE, table, loss, batch)
    with kind():
        found = gradients(THERE, table, loss, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-4 * value.norm() + 1e-5, name


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "shared"])
@pytest.mark.parametrize("name", list(TABLES))
def test_next_token_losses_and_gradients(name: str, shared: bool) -> None:
    batch = share_prefixes(host_batch(), HERE) if shared else host_batch()
    assert (batch.documents.shared is not None) == shared
    assert_the_same_there(TABLES[name], next_token_loss, batch)


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "simpo"])
def test_preferences(kind: str) -> None:
    reference = {REFERENCE_LOGP: torch.tensor([-100.0, -110.0, -50.0, -60.0])}
    loss = dpo_loss(DPOSettings(loss=kind, sft_weight=0.1))  # type: ignore[arg-type]
    assert_the_same_there(DENSE, loss, share_prefixes(host_batch(reference), HERE))


@pytest.mark.parametrize("denominator", ["tokens", "constant"])
def test_rollouts(denominator: str) -> None:
    settings = GRPOSettings(kl_beta=0.1, denominator=denominator)  # type: ignore[arg-type]

    def loss(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        complete = with_policy(batch, model, model, settings.temperature)
        shifted = {grpo.OLD_LOGP: complete.extra[grpo.OLD_LOGP] + 0.1}
        return grpo_loss(settings)(model, complete.with_extra(complete.extra | shifted))

    advantages = {grpo.ADVANTAGE: torch.tensor([1.0, -1.0, 0.5, -0.5])}
    assert_the_same_there(DENSE, loss, share_prefixes(host_batch(advantages), HERE))


@pytest.mark.parametrize(
    "settings",
    [{}, {"matrix": "adamw"}, {"matrix": "adafactor", "rest": "adafactor"}],
    ids=["muon", "adamw", "adafactor"],
)
def test_a_broken_run_goes_on_from_its_checkpoint(tmp_path: Path, settings: dict[str, object]) -> None:
    def run(folder: Path, stop_after: int | None = None) -> dict[str, Tensor]:
        model = model_on(THERE, DENSE)
        reports = fit(
            model,
            build_optimizer(model, OptimizerSettings(**settings)),
            lambda step: [host_batch(seed=step)],
            next_token_loss,
            tiny.schedule(4),
            steps=4,
            checkpoints=Checkpoints(folder, identity="run"),
            log_every=2,
            save_every=2,
        )
        for report in reports:
            if report.step == stop_after:
                break
        return {name: numbers(parameter) for name, parameter in model.named_parameters()}

    with AnotherDevice():
        whole = run(tmp_path / "whole")
        run(tmp_path / "broken", stop_after=2)
        resumed = run(tmp_path / "broken")
    for name, parameter in whole.items():
        assert torch.equal(resumed[name], parameter), name


class Stream(GreedyStream):
    """Draws by rules of its own, from allowed tokens alone, and has tokens forced on it on the way."""

    def __init__(self, prompt: list[int], count: int, mask: np.ndarray | None = None, **rules: object) -> None:
        super().__init__(prompt, count)
        self.sampling = Sampling(**rules)  # type: ignore[arg-type]
        self.num_logprobs = 2
        self._mask = mask

    def allowed(self) -> np.ndarray | None:  # type: ignore[override]
        return self._mask

    def push(self, token: int, logprobs: object = None) -> None:
        super().push(token)
        if len(self.tokens) == 3 and len(self.prompt_ids) == 3:
            self.forced.extend([1] * 33)


def streams() -> list[Stream]:
    mask = np.zeros(VOCAB, dtype=np.bool_)
    mask[5:60] = True
    found = [
        Stream([3, 5, 7], 8),
        Stream(list(range(1, 70)), 6, temperature=1.0, seed=3),
        Stream([9], 6, temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, seed=9, repetition_penalty=1.3),
        Stream([4, 4], 5, mask, temperature=1.0, seed=4),
    ]
    return found + [Stream([*range(40), number], 2, temperature=0.7, top_k=5, seed=number) for number in range(8)]


def joined(model: Transformer, made: list[Stream]) -> None:
    list(decode_streams(model, made, VOCAB, max_batch=5))


def entered(model: Transformer, made: list[Stream]) -> None:
    prefixes = PrefixCache(2**22)
    made[4:] = [Stream([*range(70), number], 4) for number in range(3)]
    waiting, batch = list(made), DecodeBatch(model, 3, VOCAB, prefixes=prefixes)
    while waiting or batch.num_live:
        if waiting and batch.num_free:
            batch.enter(waiting.pop())
        batch.step()


def in_fixed_steps(model: Transformer, made: list[Stream]) -> None:
    freeze(model)
    model.has_compiled_steps = True  # of fixed shapes, as they are captured; nothing is compiled
    joined(model, made)


@pytest.fixture
def sampling_waits(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What waits between the end of a model's step and the one reading of what was sampled."""
    found: list[list[str]] = []
    forbid, sample = batching._forbid, batching.sample

    def watched(act: Callable[..., object], *args: object) -> object:
        there = _get_current_dispatch_mode()
        before = len(there.waits) if isinstance(there, AnotherDevice) else 0
        out = act(*args)
        if isinstance(there, AnotherDevice):
            found.append(there.waits[before:])
        return out

    monkeypatch.setattr(batching, "_forbid", partial(watched, forbid))
    monkeypatch.setattr(batching, "sample", partial(watched, sample))
    return found


WAYS = [("dense", joined), ("dense", entered), ("speedrun", entered), ("speedrun", in_fixed_steps)]


@pytest.mark.parametrize(("name", "decode"), WAYS, ids=[f"{name}-{way.__name__}" for name, way in WAYS])
def test_decoding_says_the_same_and_waits_for_its_tokens_once_a_step(
    name: str, decode: Callable[[Transformer, list[Stream]], None], sampling_waits: list[list[str]]
) -> None:
    told = []
    for device in (HERE, THERE):
        made = streams()
        with AnotherDevice() if device == THERE else nullcontext():
            decode(model_on(device, TABLES[name]), made)
        told.append([stream.tokens for stream in made])
    assert told[0] == told[1]
    assert sampling_waits
    assert not any(sampling_waits)


@pytest.mark.parametrize("name", ["dense", "speedrun", "experts"])
def test_likelihoods(name: str) -> None:
    questions = [
        [Continuation([*range(20 + number % 3), number], [choice, choice + 1]) for choice in range(3)]
        for number in range(9)
    ]

    def found(device: torch.device) -> list[tuple[int, list[tuple[float, bool]]]]:
        answers = likelihoods(model_on(device, TABLES[name]), questions, tokens_per_batch=256)
        return [(number, [(round(a.logp, 3), a.is_greedy) for a in told]) for number, told in answers]

    expected = found(HERE)
    with AnotherDevice():
        assert found(THERE) == expected


def test_logits_of_a_row_that_exports_are_compared_by() -> None:
    expected = row_logits(model_on(HERE, DENSE), range(20), [3, 19])
    with AnotherDevice():
        found = row_logits(model_on(THERE, DENSE), range(20), [3, 19])
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_a_gpu_would_refuse_or_wait_for_is_seen() -> None:
    with AnotherDevice() as there:
        host, index = torch.ones(3), torch.tensor([0, 2])
        moved = host.to(THERE, non_blocking=True)
        assert there.waits == []
        assert numbers(moved[index] * torch.tensor(2.0)).tolist() == [2.0, 2.0]
        for refused in (lambda: moved + host, lambda: moved.index_select(0, index), moved.pin_memory, moved.numpy):
            with pytest.raises(RuntimeError, match=r"on the same device|can be pinned|not supported"):
                refused()
        for waited in (lambda: torch.tensor(1, device=THERE), moved.cpu, moved.tolist, moved.nonzero, moved.sum().item):
            there.waits.clear()
            waited()
            assert len(there.waits) == 1
