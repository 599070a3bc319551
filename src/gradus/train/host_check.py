"""Whether a device computes what the host does, asked before anything is trained on it.

Kernels that are wrong without an error (model/mps.py names some) depend on sizes, layouts, the chip and the system, so
a model of the same widths is asked for the loss of a few documents and its gradients, there and here: two uncompiled
layers of it. The optimizer is asked for the updates of a small model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from gradus.core.errors import TrainingError
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import ModelConfig, model_config
from gradus.model.sharing import share_prefixes
from gradus.model.transformer import Transformer, build_model
from gradus.train.config import OptimizerSettings
from gradus.train.losses import next_token_loss
from gradus.train.optimizers import build_optimizer

_LENGTHS = (701, 96, 320, 61)
_BEGINNING = 48  # tokens that all documents begin with, and that are computed once
_NOISE = 0.05  # added to fresh weights, of which many are zero
_VOCAB, _EXPERTS = 8192, 8  # at most: more would take longer than the layers
# (distance of a gradient to the host's, as a share of its norm; the share of all gradients below which it is noise;
# distance of an update). In 16 bits sums over all channels cancel, and a router may send a token elsewhere.
_EXACT, _ROUNDED = (1e-3, 1e-4, 1e-2), (0.5, 0.02, 0.5)
_RATES = tuple(name for name in OptimizerSettings.model_fields if name.endswith("_lr"))
_RATE = 0.01  # of all parameters: updates of a small one would drown in the rounding of weights


def check_against_host(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, optimizer: OptimizerSettings
) -> float:
    """The largest distance of a parameter's gradient to the host's, relative to it; the host computes in fp32.

    dtype: that the passes on the device compute in. Errors: TrainingError where loss, gradients or updates are others.
    """
    generator = torch.Generator().manual_seed(0)
    host = _noisy(_shallow(config), generator)
    there = copy.deepcopy(host).to(device)
    there.compute_dtype = dtype
    batch = _batch(host.config, generator)
    expected_loss, expected = _found(host, batch)
    found_loss, found = _found(there, batch)
    most, share, most_of_update = _EXACT if dtype == torch.float32 and config.num_experts is None else _ROUNDED
    problems = []
    if not abs(found_loss - expected_loss) <= most / 10 * abs(expected_loss):
        problems.append(f"a loss of {found_loss:.6g} for {expected_loss:.6g}")
    away = _distances(found, expected, share)
    problems += [f"a gradient of {n} that is off by {d:.2g} of its norm" for n, d in away.items() if not d <= most]
    made, right = (_updates(where, optimizer, dtype) for where in (device, torch.device("cpu")))
    updates = _distances(made, right, 0.0)
    problems += [f"an update of {n} that is off by {d:.2g}" for n, d in updates.items() if not d <= most_of_update]
    if problems:
        more = f", and {len(problems) - 2} more" if len(problems) > 2 else ""
        raise TrainingError(
            f'[machine] device = "{device.type}": torch {torch.__version__} computes otherwise there than on the '
            f'processor: {", ".join(problems[:2])}{more}; set device = "cpu", or try a newer torch or system'
        )
    return max(away.values())


def _shallow(config: ModelConfig) -> ModelConfig:
    """Two layers, of two kinds where there are two."""
    changed: dict[str, object] = {"vocab_size": min(config.vocab_size, _VOCAB)}
    if config.num_experts is not None:
        changed["num_experts"] = min(config.num_experts, max(_EXPERTS, config.experts_per_token))
        changed["dense_layers"] = min(config.dense_layers, 1)
    if config.window is not None:
        changed["window_pattern"] = "SL"
    return config.model_copy(update=changed | {"depth": 2})


def _noisy(config: ModelConfig, generator: torch.Generator) -> Transformer:
    model = build_model(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(_NOISE * torch.randn(parameter.shape, generator=generator))
    return model


def _batch(config: ModelConfig, generator: torch.Generator) -> Batch:
    """Documents of random tokens that begin alike, with targets behind that beginning."""
    lengths = [min(length, config.context) for length in _LENGTHS]
    shared = max(0, min(_BEGINNING, min(lengths) - 2))
    beginning = torch.randint(0, config.vocab_size, (shared,), generator=generator)
    parts, targets = [], []
    for length in lengths:
        own = torch.randint(0, config.vocab_size, (length - shared,), generator=generator)
        parts.append(torch.cat([beginning, own]))
        targets.append(parts[-1].roll(-1).index_fill(0, torch.arange(shared), IGNORE))
    batch = Batch(torch.cat(parts), torch.cat(targets), Documents.of_lengths(lengths))
    return share_prefixes(batch, torch.device("cpu"))


def _found(model: Transformer, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """Loss a target and gradients, on the host in fp32."""
    total, count, _ = next_token_loss(model, batch.to(model.device))
    total.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad.cpu().float() for name, p in model.named_parameters() if p.grad is not None}
    return float(total.detach()) / float(count), gradients


def _updates(device: torch.device, settings: OptimizerSettings, dtype: torch.dtype) -> dict[str, Tensor]:
    """What three steps add to each parameter of a small model, on the host; the second, of NaN, is refused.

    dtype: that passes compute in.
    """
    generator = torch.Generator().manual_seed(0)
    model = _noisy(model_config({"depth": 1, "width": 128, "head_dim": 32}, 256, 32), generator).to(device)
    model.compute_dtype = dtype
    optimizer = build_optimizer(model, settings.model_copy(update=dict.fromkeys(_RATES, _RATE)))
    before = {name: parameter.detach().cpu().clone() for name, parameter in model.named_parameters()}
    for step, factor in enumerate((1000.0, float("nan"), 1000.0)):
        for parameter in model.parameters():
            parameter.grad = (factor * torch.randn(parameter.shape, generator=generator)).to(device)
        refused, divisor = (torch.full((), value, device=device) for value in (step == 1, 1000.0))
        optimizer.step(step, 1.0, refused, divisor)
    return {name: parameter.detach().cpu() - before[name] for name, parameter in model.named_parameters()}


def _distances(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], share: float) -> dict[str, float]:
    """Of each tensor, relative to its norm, or to this share of all tensors' where that is more."""
    norms = {name: value.norm() for name, value in expected.items()}
    least = max(1e-30, share * float(torch.stack(list(norms.values())).norm()))
    return {name: float((found[name] - expected[name]).norm() / norm.clamp(min=least)) for name, norm in norms.items()}
