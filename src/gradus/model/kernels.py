"""Element-wise parts of the model, gradients written by hand: fewer passes over memory than autograd's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (norm.square_().div_(x.shape[-1]).add_(eps)).rsqrt_().to(x.dtype)
        y: Tensor = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # y = x s(x): dx = s (dy - y mean(dy y))
        y, scale = ctx.saved_tensors
        inner = (grad * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(grad, y, inner, value=-1).mul_(scale), None


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without a weight."""
    return _RmsNorm.apply(x, eps)  # type: ignore[no-any-return,no-untyped-call]


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + D/2) of x (N, H, D) by angles given as cos and sin (N, 1, D/2)."""
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return,no-untyped-call]


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        ctx.save_for_backward(gate_up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        gate_out, up_out = out.chunk(2, dim=-1)
        torch.mul(grad, F.silu(gate), out=up_out)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=gate_out)
        return out


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) x up of (N, 2 m) with the gate first. Returns (N, m)."""
    return _SwiGlu.apply(gate_up)  # type: ignore[no-any-return,no-untyped-call]
