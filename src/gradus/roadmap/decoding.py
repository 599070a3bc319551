"""The plan of stages that sample answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradus.core.devices import CPU
from gradus.model.config import ModelConfig
from gradus.model.cost import forward_flops_per_token, kv_bytes_per_token, parameters
from gradus.roadmap.estimate import GPU_LAYER_SECONDS, PROGRAM_BYTES
from gradus.roadmap.stage import Device, Estimate

ANSWER_TOKENS = 60  # a usual answer's, thinking and calls included
# Of the rate of training, what decoding reaches where no rate was measured: it reads all weights for every token.
_OF_TRAINING = 0.1
_OVERHEAD_SECONDS = 5.0
_TOGETHER = 64  # conversations in the engine at a time


def decoding_estimate(config: ModelConfig, tokens: float, device: Device, facts: Mapping[str, Any]) -> Estimate:
    """Time and memory of sampling so many tokens, many conversations at a time."""
    flops = tokens * forward_flops_per_token(config, 2 * ANSWER_TOKENS)
    on_cpu = device.name == CPU
    decoding = device.entry.rates.get("decode") if device.entry else None
    if decoding is not None:
        seconds = flops / (decoding.per_second * device.count) + decoding.overhead_seconds
    else:
        seconds = flops / (_OF_TRAINING * device.training("pretrain", config.width)[0]) + _OVERHEAD_SECONDS
        seconds += tokens / _TOGETHER * config.depth * GPU_LAYER_SECONDS / 3
    parts = {
        "program": PROGRAM_BYTES if on_cpu else 0.0,
        "weights": 4.0 * parameters(config).total,
        "cache": float(_TOGETHER * config.context * kv_bytes_per_token(config, 4)),
    }
    return Estimate(
        seconds=seconds, tokens=tokens, flops=flops, memory_bytes=sum(parts.values()), memory=parts, facts=facts
    )
