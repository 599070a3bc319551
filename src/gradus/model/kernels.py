"""Element-wise parts of the model, gradients written by hand: fewer passes over memory than autograd's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without a weight."""
    if not torch.is_grad_enabled():
        return x * _inverse_rms(x, 1 / x.shape[-1], eps)
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


def head_factors(
    num_heads: int, kv_heads: int, width: int, norms: tuple[Tensor, Tensor] | None, like: Tensor
) -> Tensor:
    """What multiplies each query and key head, (H + Hk, D): the norms' weights, and for queries 1 / sqrt(D)."""
    weight = like.new_ones(num_heads + kv_heads, width)
    if norms is not None:
        weight[:num_heads], weight[num_heads:] = norms
    weight[:num_heads] *= width**-0.5
    return weight


NormConstants = tuple[Tensor, Tensor]
"""1 / width and eps of a norm, in fp32 without a dimension: as tensors they cost a third of what plain numbers do."""


def norm_constants(width: int, eps: float, device: torch.device) -> NormConstants:
    """Those of a norm over so many channels."""
    return torch.tensor(1 / width, device=device), torch.tensor(eps, device=device)


def ready_norm(x: Tensor, constants: NormConstants) -> Tensor:
    """`rms_norm` where nothing is trained: the same bits."""
    return x * _inverse_rms(x, *constants)


def ready_heads(qkv: Tensor, weight: Tensor, norm: NormConstants | None, turn: tuple[Tensor, Tensor]) -> Tensor:
    """`attention_heads` where nothing is trained, in fewer steps and in place: the same bits.

    qkv: (N, H + 2 Hk, D), overwritten; weight: of `head_factors`; norm: None where heads have none; turn: of `turning`.
    Returns (H + 2 Hk, N, D).
    """
    turned = qkv[:, : weight.shape[0]]
    scaled = turned if norm is None else ready_norm(turned, norm)
    turned.copy_(_turned(scaled * weight, *turn))
    return qkv.transpose(0, 1)


def turning(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (N, 1, D) of each channel and of its partner, from the cosine and sine (N, 1, D/2) of each pair."""
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """(silu(x Wg^T) * (x Wu^T)) Wd^T. x: (N, d); gate_up: (2 m, d), Wg's rows first; down: (d, m). Returns (N, d).

    Source: SwiGLU, Shazeer 2020.
    """
    return _FeedForward.apply(x, gate_up, down)  # type: ignore[no-any-return,no-untyped-call]


def _inverse_rms(x: Tensor, share: float | Tensor, eps: float | Tensor) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, kept; worked out in fp32, in the dtype of x.

    share: 1 / width.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    inverse: Tensor = norm.square_().mul_(share).add_(eps).rsqrt_()
    return inverse if inverse.dtype == x.dtype else inverse.to(x.dtype)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, 1 / x.shape[-1], eps)
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
        kv_heads = (qkv.shape[1] - num_heads) // 2
        norms = None if query_norm is None or key_norm is None else (query_norm, key_norm)
        weight = head_factors(num_heads, kv_heads, qkv.shape[2], norms, qkv)[:, None]  # (H + Hk, 1, D)
        # One head after another from the beginning: what follows runs over contiguous memory.
        out = qkv.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        turned = out[: len(weight)]
        y = scale = None
        if norms is not None:
            scale = _inverse_rms(turned, 1 / turned.shape[-1], eps)
            y = turned * scale
        own, partner = (factor[:, 0] for factor in turning(cos, sin))  # (N, D)
        weighted = (turned if y is None else y) * weight
        _multiply_into(turned, weighted, own)
        turned.addcmul_(_swapped(weighted), partner)
        ctx.num_heads = num_heads
        ctx.save_for_backward(y, scale, weight, cos, sin)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, scale, weight, cos, sin = ctx.saved_tensors
        heads, num_turned, width = ctx.num_heads, len(weight), grad.shape[-1]
        grad = grad.contiguous()
        out = torch.empty(grad.transpose(0, 1).shape, dtype=grad.dtype, device=grad.device)  # (N, H + 2 Hk, D)
        by_head = out.transpose(0, 1)
        by_head[num_turned:] = grad[num_turned:]
        own, partner = (factor[:, 0] for factor in turning(cos, -sin))
        turned = grad[:num_turned]
        back = (turned * own).addcmul_(_swapped(turned), partner)
        if y is None:
            _multiply_into(by_head[:num_turned], back, weight)
            return out, None, None, None, None, None, None
        d_weight = (back * y).sum(dim=1, dtype=torch.float32)  # (H + Hk, D)
        d_query_norm = d_weight[:heads].sum(0) * width**-0.5
        d_key_norm = d_weight[heads:].sum(0)
        # As in rms_norm, behind the weight.
        back *= weight
        inner = (back * y).sum(dim=-1, keepdim=True)
        back.addcmul_(y, inner, value=-1 / width)
        _multiply_into(by_head[:num_turned], back, scale)
        return out, d_query_norm, d_key_norm, None, None, None, None


def _multiply_into(target: Tensor, first: Tensor, second: Tensor) -> None:
    """target = first second. A compiler takes no strided `out`, and needs none; without one it saves a copy."""
    if torch.compiler.is_compiling():
        target.copy_(first * second)
    else:
        torch.mul(first, second, out=target)


def _turned(x: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """x (N, H, D), its channel pairs (i, i + D/2) turned by the factors of `turning`."""
    return (x * own).addcmul_(_swapped(x), partner)


def _swapped(x: Tensor) -> Tensor:
    """x (..., D) with its halves exchanged. Over whole rows of D: loops over halves take twice as long on a CPU."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([second, first], -1)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        gate_weight, up_weight = gate_up.chunk(2)
        # Two products instead of one: what follows runs twice as fast over contiguous rows.
        gate, up = F.linear(x, gate_weight), F.linear(x, up_weight)
        active = F.silu(gate)
        inner = active * up
        ctx.save_for_backward(x, gate_up, down, gate, up, active, inner)
        return F.linear(inner, down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, gate_up, down, gate, up, active, inner = ctx.saved_tensors
        gate_weight, up_weight = gate_up.chunk(2)
        d_down = grad.T @ inner
        d_inner = grad @ down
        d_up = d_inner * active
        d_gate = torch.ops.aten.silu_backward(d_inner.mul_(up), gate)
        d_x = d_gate @ gate_weight
        torch.addmm(d_x, d_up, up_weight, out=d_x)
        d_gate_up = torch.empty_like(gate_up)
        d_gate_weight, d_up_weight = d_gate_up.chunk(2)
        torch.mm(d_gate.T, x, out=d_gate_weight)
        torch.mm(d_up.T, x, out=d_up_weight)
        return d_x, d_gate_up, d_down


def relu2(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """relu(x W1^T)^2 W2^T. x: (N, d); up: (m, d); down: (d, m). Returns (N, d).

    Source: Primer, So et al. 2021. What the backward pass keeps besides its inputs is relu(x W1^T).
    """
    return _Relu2.apply(x, up, down)  # type: ignore[no-any-return,no-untyped-call]


class _Relu2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        active = F.linear(x, up).relu_()
        ctx.save_for_backward(x, up, down, active)
        return F.linear(active.square(), down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, up, down, active = ctx.saved_tensors
        d_down = grad.T @ active.square()
        d_inner = (grad @ down).mul_(active).mul_(2)
        return d_inner @ up, d_inner.T @ x, d_down
