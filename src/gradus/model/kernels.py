"""Element-wise parts of the model, gradients written by hand: fewer passes over memory than autograd's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without a weight."""
    return _RmsNorm.apply(x, eps)  # type: ignore[no-any-return,no-untyped-call]


def attention_heads(
    qkv: Tensor, num_heads: int, norms: tuple[Tensor, Tensor] | None, cos: Tensor, sin: Tensor, eps: float
) -> Tensor:
    """From the fused projection to what attention takes: normalised, rotated, scaled, one head after another.

    qkv: (N, H + 2 Hk, D), queries first, then keys, then values; norms: weights (D,) of queries and of keys, None
    for no normalisation; cos, sin: (N, 1, D/2), angles of channel pairs (i, i + D/2). Queries come out times
    1 / sqrt(D). Returns (H + 2 Hk, N, D).
    """
    query_norm, key_norm = norms or (None, None)
    return _AttentionHeads.apply(qkv, query_norm, key_norm, num_heads, cos, sin, eps)  # type: ignore[no-any-return,no-untyped-call]


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) x up of (N, 2 m) with the gate first. Returns (N, m)."""
    return _SwiGlu.apply(gate_up)  # type: ignore[no-any-return,no-untyped-call]


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, kept; worked out in fp32, in the dtype of x."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    inverse: Tensor = norm.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return inverse.to(x.dtype)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, eps)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # y = x s(x): dx = s (dy - y mean(dy y))
        y, scale = ctx.saved_tensors
        inner = (grad * y).sum(dim=-1, keepdim=True)
        return torch.addcmul(grad, y, inner, value=-1 / y.shape[-1]).mul_(scale), None


class _AttentionHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        query_norm: Tensor | None,
        key_norm: Tensor | None,
        num_heads: int,
        cos: Tensor,
        sin: Tensor,
        eps: float,
    ) -> Tensor:
        tokens, all_heads, width = qkv.shape
        kv_heads = (all_heads - num_heads) // 2
        num_turned = num_heads + kv_heads
        turned = qkv[:, :num_turned]
        weight = qkv.new_ones(num_turned, width)
        y = scale = None
        if query_norm is not None and key_norm is not None:
            weight[:num_heads], weight[num_heads:] = query_norm, key_norm
            scale = _inverse_rms(turned, eps)
            y = turned * scale
        weight[:num_heads] *= width**-0.5
        out = torch.empty((all_heads, tokens, width), dtype=qkv.dtype, device=qkv.device)
        by_token = out.transpose(0, 1)
        _turn((turned if y is None else y) * weight, cos, sin, by_token[:, :num_turned])
        by_token[:, num_turned:] = qkv[:, num_turned:]
        ctx.num_heads, ctx.num_turned = num_heads, num_turned
        ctx.save_for_backward(y, scale, weight, cos, sin)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, scale, weight, cos, sin = ctx.saved_tensors
        heads, num_turned, width = ctx.num_heads, ctx.num_turned, grad.shape[-1]
        grad = grad.transpose(0, 1)  # (N, H + 2 Hk, D)
        out = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
        out[:, num_turned:] = grad[:, num_turned:]
        if y is None:
            _turn(grad[:, :num_turned], cos, -sin, out[:, :num_turned])
            out[:, :num_turned] *= weight
            return out, None, None, None, None, None, None
        back = torch.empty_like(y)
        _turn(grad[:, :num_turned], cos, -sin, back)
        d_weight = (back * y).sum(dim=0, dtype=torch.float32)  # (H + Hk, D)
        d_query_norm = d_weight[:heads].sum(0) * width**-0.5
        d_key_norm = d_weight[heads:].sum(0)
        # As in rms_norm, behind the weight.
        back *= weight
        inner = (back * y).sum(dim=-1, keepdim=True)
        back.addcmul_(y, inner, value=-1 / width)
        torch.mul(back, scale, out=out[:, :num_turned])
        return out, d_query_norm, d_key_norm, None, None, None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Write x (N, H, D), its channel pairs turned by angles of cos and sin (N, 1, D/2), to `out`."""
    half = x.shape[-1] // 2
    torch.mul(x, torch.cat([cos, cos], -1), out=out)
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        active = F.silu(gate)
        ctx.save_for_backward(gate_up, active)
        return active * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        gate_up, active = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        gate_out, up_out = out.chunk(2, dim=-1)
        torch.mul(grad, active, out=up_out)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=gate_out)
        return out
