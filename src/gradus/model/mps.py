"""The seam to Apple's GPUs (torch's device "mps"): what they lack, and what of torch is not to be trusted there.

They have no numbers of 64 bits. Fused attention has given wrong values for tensors that are not contiguous (torch 2.8;
pytorch/pytorch#163597, #181133), and a product read past the end of its operands where it summed over 32,767 terms or
more (M1 and M2; pytorch/pytorch#193487, #195012), both without an error. Nothing here imports more than torch has.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TYPES = frozenset({"mps"})
LONGEST_SUM = 32_766


def is_mps(device: torch.device) -> bool:
    """Whether a device is Apple's GPU."""
    return device.type in _TYPES


def mps_problem() -> str | None:
    """Why there is no such GPU here, None where there is one."""
    if torch.backends.mps.is_available():
        return None
    if torch.backends.mps.is_built():
        return "this Mac or its system is not one that torch supports"
    return "torch here is built without it, as everywhere but on Macs with Apple's own chips"


def sum_dtype(device: torch.device) -> torch.dtype:
    """What sums over many tokens are kept in: float64, and float32 where the device has no other."""
    return torch.float32 if is_mps(device) else torch.float64


def fitting(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host as a device can hold it: float64 as float32 on MPS."""
    return tensor.float() if is_mps(device) and tensor.dtype == torch.float64 else tensor


def for_attention(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors as fused attention computes with them rightly: contiguous on MPS, elsewhere as they are."""
    return tuple(tensor.contiguous() for tensor in tensors) if is_mps(tensors[0].device) else tensors


def mm_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out (n, m) = a (n, k) b (k, m); on MPS in parts where k is too long for one product."""
    if not is_mps(a.device) or a.shape[1] <= LONGEST_SUM:
        torch.mm(a, b, out=out)
        return
    out.zero_()
    for start in range(0, a.shape[1], LONGEST_SUM):
        part = slice(start, start + LONGEST_SUM)
        out += a[:, part].contiguous() @ b[part]


def run_sums(values: Tensor, counts: Tensor) -> Tensor:
    """Sums of runs of values (K, P, D), run s of counts[s] of them, (K, S, D): in a fixed order but on MPS.

    counts: (S,) int64, P in sum.
    """
    if is_mps(values.device):
        run = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=values.shape[1])
        return values.new_zeros(len(values), len(counts), values.shape[2]).index_add_(1, run, values)
    lengths = counts.expand(len(values), -1)
    sums: Tensor = torch.segment_reduce(values, "sum", lengths=lengths, axis=1, unsafe=True)
    return sums
