"""The plan of stages that sample answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradus.core.devices import CPU
from gradus.model.config import ModelConfig
from gradus.model.cost import forward_flops_per_token, kv_bytes_per_token, parameters
from gradus.roadmap.stage import Device, Estimate

ANSWER_TOKENS = 45  # a usual answer's, thinking and calls included
# Of the rate of training, what decoding reaches where no rate was measured: it reads all weights for every token.
_OF_TRAINING = 0.1
_OVERHEAD_SECONDS = 5.0
_TOGETHER = 64  # conversations in the engine at a time
_PROGRAM_BYTES = 4e8


def decoding_estimate(config: ModelConfig, tokens: float, device: Device, facts: Mapping[str, Any]) -> Estimate:
    """Time and memory of sampling so many tokens, many conversations at a time."""
    flops = tokens * forward_flops_per_token(config, 2 * ANSWER_TOKENS)
    on_cpu = device.name == CPU
    if on_cpu:
        seconds = device.seconds("decode", flops, device.cores) + device.overhead_seconds("decode")
    else:
        seconds = flops / (_OF_TRAINING * device.training("pretrain", config.width)[0]) + _OVERHEAD_SECONDS
    parts = {
        "program": _PROGRAM_BYTES if on_cpu else 0.0,
        "weights": 4.0 * parameters(config).total,
        "cache": float(_TOGETHER * config.context * kv_bytes_per_token(config, 4)),
    }
    return Estimate(
        seconds=seconds, tokens=tokens, flops=flops, memory_bytes=sum(parts.values()), memory=parts, facts=facts
    )
