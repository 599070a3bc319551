"""Which number format the forward and backward pass compute in: bf16 where the machine is faster with it."""

from __future__ import annotations

import time

import torch

from gradus.train.config import Precision

_WORTHWHILE = 1.3  # bf16 has to be this much faster than fp32 to be chosen


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype for a setting; "auto" is decided by the machine. Weights and optimizer stay in fp32.

    The choice depends on hardware, so `fit` records it in the checkpoint and a resumed run keeps it.
    """
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_bf16_speedup() > _WORTHWHILE else torch.float32
    return torch.float32


def _cpu_bf16_speedup() -> float:
    """How many times faster a bf16 product is than the same in fp32, best of several, some 50 ms."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(2, 768, 768, generator=generator)
    best: dict[torch.dtype, float] = {}
    for _ in range(5):
        for dtype in (torch.float32, torch.bfloat16):
            left, right = factors.to(dtype)
            begin = time.perf_counter()
            torch.mm(left, right)
            best[dtype] = min(time.perf_counter() - begin, best.get(dtype, float("inf")))
    return best[torch.float32] / best[torch.bfloat16]
