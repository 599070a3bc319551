"""Fresh weights, the same for the same generator state on any device.

By default projections into a block are uniform with deviation 1 / sqrt(in), and those back to the residual start at
zero (nanochat), so that every block starts as the identity; norms at one. With init "xavier" all of them are
uniform with deviation sqrt(2 / (in + out)) (Glorot and Bengio 2010). Routers are normal with deviation 0.02; experts
come back to the residual with deviation 1 / sqrt(2 layers in), since from zero the routers would learn nothing in
the first step. Scalars start as nanochat's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradus.model.config import ModelConfig
from gradus.model.rows import held, held_rows
from gradus.model.sine import SineParameters

_INTO = frozenset({"qkv", "gate_up", "up", "shared_gate_up", "expert_gate_up", "expert_down", "value_embedding"})
_BACK = frozenset({"out", "down", "shared_down", "wave_out"})


@torch.no_grad()
def init_weights(model: nn.Module, config: ModelConfig, generator: torch.Generator) -> None:
    """Fill every parameter of a model."""
    for module_name, module in model.named_modules():
        if isinstance(module, SineParameters):
            module.init_weights(generator)
            continue
        for last, parameter in module.named_parameters(recurse=False):
            _init(last, parameter, module_name, config, generator)


def _init(last: str, parameter: nn.Parameter, module: str, config: ModelConfig, generator: torch.Generator) -> None:
    fan_in = parameter.shape[-1]
    if (last in _BACK and config.init == "zero") or last in {"router_bias", "smear_scale"}:
        held(parameter).zero_()
    elif last in _INTO | _BACK:
        bound = (3.0 / fan_in) ** 0.5
        if config.init == "xavier" and not last.startswith("expert"):
            bound = (6.0 / (fan_in + _rows(last, parameter, config))) ** 0.5
        if last == "expert_down":
            bound /= (2 * config.depth) ** 0.5
        _fill(parameter, torch.Tensor.uniform_, generator, -bound, bound)
    elif last == "router":
        _fill(parameter, torch.Tensor.normal_, generator, 0.0, 0.02)
    elif last == "embedding":
        _fill(parameter, torch.Tensor.normal_, generator, 0.0, 0.02 if config.tie_embeddings else 1.0)
    elif last == "unembedding":
        _fill(parameter, torch.Tensor.normal_, generator, 0.0, 0.001)
    elif last in {"smear_gate", "value_gate"}:
        _fill(parameter, torch.Tensor.uniform_, generator, 0.0, 0.02)
    elif last == "wave_taps":
        _fill(parameter, torch.Tensor.normal_, generator, 0.0, fan_in**-0.5)
    elif last == "spectral_taps":  # half of the token itself
        held(parameter).zero_()[:, 0] = 0.5
    else:
        held(parameter).fill_(_scalar(last, module, config))


def _rows(last: str, parameter: nn.Parameter, config: ModelConfig) -> int:
    """Rows of the matrix, where several are stacked of the first one."""
    if last == "qkv":
        return config.query_width
    return parameter.shape[0] // 2 if last.endswith("gate_up") else parameter.shape[0]


def _scalar(last: str, module: str, config: ModelConfig) -> float:
    """Where a norm weight or a scalar starts; the layers' scalars move evenly from first to last."""
    if last == "backout_scale":
        return 0.2
    if last not in {"residual_scale", "start_scale"}:
        return 1.0
    depth_fraction = int(module.rpartition(".")[2]) / max(1, config.depth - 1)
    return 1.15 - 0.10 * depth_fraction if last == "residual_scale" else 0.20 - 0.15 * depth_fraction


def _fill(parameter: Tensor, draw: object, generator: torch.Generator, low: float, high: float) -> None:
    """Draw the whole on the generator's device, then copy the rows held here: neither changes the draw."""
    values = torch.empty(parameter.shape, device=generator.device)
    draw(values, low, high, generator=generator)  # type: ignore[operator]
    start, stop = held_rows(parameter)
    held(parameter).copy_(values[start:stop])
