"""Which number format the forward and backward pass compute in: bf16 where the machine is faster with it.

fp16 is for devices without bf16, where it is asked for by name. Its smallest numbers are too large for many
gradients, so the loss is multiplied before the backward pass and gradients are divided after it (Micikevicius et
al. 2018): by as much as just does not overflow, which `LossScale` finds out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradus.core.machine import bf16_instructions
from gradus.model.xla import is_tpu
from gradus.train.config import Precision


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype for a setting; "auto" is decided by the machine. Weights and optimizer stay in fp32.

    A processor computes in bf16 where it has instructions for it (measured 2.1 times as fast as fp32 on
    avx512_bf16). Timing it here instead would let a busy moment decide, and with it the weights.
    """
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        return torch.bfloat16
    if precision == "fp16":
        return torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if bf16_instructions() else torch.float32
    if device.type == "xla":
        return torch.bfloat16 if is_tpu() else torch.float32
    return torch.float32


class LossScale:
    """What the loss is multiplied by: halved by a step whose gradients overflow, doubled after many that do not.

    All of it lives on the device and is part of a checkpoint.
    """

    FIRST = 2.0**10  # losses are sums over tokens, so gradients are large to begin with
    PATIENCE = 1000

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), self.FIRST, device=device)
        self.steps_without = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, grad_norm: Tensor) -> None:
        """Go by a step's gradient norm, () and the same on every process."""
        fits = torch.isfinite(grad_norm)
        steps = torch.where(fits, self.steps_without + 1, 0)
        grows = steps >= self.PATIENCE
        self.scale = torch.where(fits, torch.where(grows, self.scale * 2, self.scale), self.scale / 2)
        self.steps_without = torch.where(grows, 0, steps)

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        return {"scale": self.scale, "steps_without": self.steps_without}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`."""
        self.scale = state["scale"].to(self.scale.device)
        self.steps_without = state["steps_without"].to(self.scale.device)
