"""Mixture of experts: a router picks a few small feed-forwards for each token. Dropless, unless a capacity is set.

y = sum_i w_i E_i(x), E(x) = Wd (silu(Wg x) * (Wu x)); scores are softmax or sigmoid of r = Wr x in fp32, the k highest
are chosen (by score plus a bias where balance is by bias), and their weights add up to one. Tokens are sorted by
expert and go through one grouped product per projection (torch.nn.functional.grouped_mm), or through a loop over
experts where this torch, device and dtype have none.

Balance by loss: Switch Transformer, Fedus et al. 2022, eq. 4, and the router z-loss of ST-MoE, Zoph et al. 2022, eq. 5.
Balance by bias: Wang et al. 2024 (auxiliary-loss-free). Routing is returned, not stored: what is derived from it
is worked out once, outside of what activation checkpointing runs again.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gradus.model.config import ModelConfig
from gradus.model.kernels import swiglu

Z_WEIGHT = 0.001  # of mean logsumexp(r)^2, with balance by loss
_BIAS_GRADIENT = 1e-6  # only the sign counts; so small, it is not seen in the norm of all gradients


class Routing(NamedTuple):
    """What a router said. logits: (N, E) fp32; bias: (E,), or None where it chooses by score alone."""

    logits: Tensor
    bias: Tensor | None


class Experts(nn.Module):
    """The experts of one layer. Weights are (out, in), the rows of all experts one after the other.

    So that what cuts parameters into rows (Muon, sharding, saving) knows no third dimension. gate_up stacks the rows
    of gate and up, expert by expert.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config
        assert c.num_experts is not None
        assert c.expert_width is not None
        self.config = config
        shared = c.shared_experts * c.expert_width
        self.router = nn.Parameter(torch.empty(c.num_experts, c.width))
        self.router_bias = nn.Parameter(torch.empty(c.num_experts)) if c.has_router_bias else None
        self.expert_gate_up = nn.Parameter(torch.empty(c.num_experts * 2 * c.expert_width, c.width))
        self.expert_down = nn.Parameter(torch.empty(c.num_experts * c.width, c.expert_width))
        self.shared_gate_up = nn.Parameter(torch.empty(2 * shared, c.width)) if shared else None
        self.shared_down = nn.Parameter(torch.empty(c.width, shared)) if shared else None

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x: (N, width), normalised. Returns (N, width)."""
        c = self.config
        logits = F.linear(x.float(), self.router.float())
        weights, chosen = choose_experts(c, logits, self.router_bias)
        # Not where nothing is learned: what is dropped goes by the other tokens of the batch.
        if c.capacity_factor is not None and torch.is_grad_enabled():
            weights = weights * within_capacity(c, chosen)
        gate_up = self.expert_gate_up.to(x.dtype).view(len(self.router), -1, c.width)
        down = self.expert_down.to(x.dtype).view(len(self.router), c.width, -1)
        out = run_experts(x, weights, chosen, gate_up, down)
        if self.shared_gate_up is not None and self.shared_down is not None:
            out = out + swiglu(x, self.shared_gate_up.to(x.dtype), self.shared_down.to(x.dtype))
        # A copy, because a sharded parameter is whole in here only.
        return out, Routing(logits, None if self.router_bias is None else self.router_bias.clone())


def choose_experts(config: ModelConfig, logits: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights (N, k) fp32, adding up to one, and experts (N, k) int64. logits: (N, E) fp32; bias: (E,) or None."""
    scores = router_scores(config, logits)
    with torch.no_grad():
        chosen = (scores if bias is None else scores + bias).topk(config.experts_per_token, dim=-1).indices
    weights = scores.gather(1, chosen)
    return weights / (weights.sum(-1, keepdim=True) + 1e-20), chosen


def within_capacity(config: ModelConfig, chosen: Tensor) -> Tensor:
    """(N, k) bool: whether an expert has room for a token. The first ones in the batch have it.

    An expert takes ceil(capacity_factor N k / E) of chosen (N, k). Source: GShard, Lepikhin et al. 2020, section 2.2.
    """
    assert config.num_experts is not None
    assert config.capacity_factor is not None
    flat = chosen.flatten()
    capacity = math.ceil(config.capacity_factor * len(flat) / config.num_experts)
    order = flat.argsort(stable=True)
    sizes = tokens_per_expert(chosen, config.num_experts)
    first = (sizes.cumsum(0) - sizes)[flat[order]]  # where each one's expert begins in that order
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first
    return (place < capacity).view_as(chosen)


def router_scores(config: ModelConfig, logits: Tensor) -> Tensor:
    """(N, E) in (0, 1)."""
    return logits.softmax(-1) if config.router == "softmax" else logits.sigmoid()


def run_experts(x: Tensor, weights: Tensor, chosen: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Each token through its experts. x: (N, d); weights, chosen: (N, k); gate_up: (E, 2 m, d); down: (E, d, m)."""
    tokens, per_token = chosen.shape
    order = chosen.flatten().argsort(stable=True)  # places of (token, choice), one expert after the other
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    ends = tokens_per_expert(chosen, len(gate_up)).cumsum(0, dtype=torch.int32)
    sorted_x = _reordered(x[:, None].expand(-1, per_token, -1).flatten(0, 1), order, back)  # (N k, d)
    gate, up = grouped_linear(sorted_x, gate_up, ends).chunk(2, dim=-1)
    out = grouped_linear(F.silu(gate) * up, down, ends)
    by_token = _reordered(out, back, order).view(tokens, per_token, -1)
    return (by_token * weights.to(x.dtype)[:, :, None]).sum(1)


def tokens_per_expert(chosen: Tensor, num_experts: int) -> Tensor:
    """(E,) int64, how often each expert was chosen. chosen: (N, k)."""
    flat = chosen.flatten()
    # Not bincount: it has no form for meta tensors, and on a GPU it waits.
    return flat.new_zeros(num_experts).scatter_add_(0, flat, torch.ones_like(flat))


def _reordered(x: Tensor, order: Tensor, back: Tensor) -> Tensor:
    """x[order], where x[order][back] is x."""
    return _Reordered.apply(x, order, back)  # type: ignore[no-any-return,no-untyped-call]


class _Reordered(torch.autograd.Function):
    """Rows in another order; the backward reads them back instead of adding row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Rows ends[i - 1] to ends[i] of x times weight[i]^T. x: (N, in); weight: (E, out, in); ends: (E,) int32."""
    if has_grouped_mm(x.device.type, x.dtype) and _has_whole_blocks(x) and _has_whole_blocks(weight.mT):
        return _GroupedLinear.apply(x, weight, ends)  # type: ignore[no-any-return,no-untyped-call]
    return looped_linear(x, weight, ends)


def _has_whole_blocks(rows: Tensor) -> bool:
    """Whether a row is a multiple of 16 bytes long, as the grouped product wants it of all that it reads and writes."""
    return rows.shape[-1] * rows.element_size() % 16 == 0


def looped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """`grouped_linear` expert by expert; the host waits for `ends`."""
    if x.is_meta:  # shape and work are those of any split
        return F.linear(x, weight[0])
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    return torch.cat([F.linear(rows, w) for rows, w in zip(torch.split(x, sizes), weight, strict=True)])


class _GroupedLinear(torch.autograd.Function):
    """The product's own backward fails on gradients of stride 0; here they are laid out first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, ends)
        return F.grouped_mm(x, weight.mT, offs=ends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, ends = ctx.saved_tensors
        grad = grad.contiguous()
        grad_weight = F.grouped_mm(grad.mT, x, offs=ends)
        if fills_empty_groups(x.device):
            grad_weight.masked_fill_((ends.diff(prepend=ends.new_zeros(1)) == 0)[:, None, None], 0)
        return F.grouped_mm(grad, weight, offs=ends), grad_weight, None


@cache
def fills_empty_groups(device: torch.device) -> bool:
    """Whether a group without rows gets anything but zeros there: so on Blackwell (pytorch/pytorch#172439)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (10, 0)


@cache
def has_grouped_mm(device_type: str, dtype: torch.dtype) -> bool:
    """Whether the three grouped products of a step run here: tried once on small ones."""
    if not hasattr(F, "grouped_mm"):
        return False
    try:
        # Without autograd: activation checkpointing counts what a first forward pass keeps.
        with torch.no_grad():
            x, weight = (torch.ones(*shape, 16, 16, dtype=dtype, device=device_type) for shape in ((), (2,)))
            ends = torch.arange(8, 24, 8, dtype=torch.int32, device=device_type)
            out = F.grouped_mm(x, weight.mT, offs=ends)
            F.grouped_mm(out, weight, offs=ends)
            F.grouped_mm(out.mT, x, offs=ends)
    except RuntimeError:
        return False
    return True


def balance(config: ModelConfig, routing: list[Routing], num_tokens: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What keeps experts equally busy: (auxiliary loss (), term of the biases (), metrics).

    routing: of each layer with experts; the first num_tokens count, padding is behind them. The auxiliary loss is a
    mean over tokens. The second term's gradient with respect to a bias has the sign of its expert's load above the
    mean, in tokens, so that micro-batches and ranks add up. Metrics are means over layers: balance_loss (1 is
    even), and the load of the busiest and of the idlest expert in mean loads, expert_load_max and expert_load_min; with
    a capacity expert_drop_fraction, of all choices those that found no room.
    """
    c = config
    assert c.num_experts is not None
    auxiliary = push = torch.zeros((), device=routing[0].logits.device)
    metrics: dict[str, Tensor] = {}
    for all_logits, bias in routing:
        logits = all_logits[:num_tokens]
        chosen = choose_experts(c, logits.detach(), bias)[1]
        load = tokens_per_expert(chosen, c.num_experts).float()
        share = load * (c.num_experts / chosen.numel())  # 1 where every expert has as much to do
        scores = router_scores(c, logits)
        even = (share * (scores / scores.sum(-1, keepdim=True)).mean(0)).sum()
        if c.balance == "loss":
            auxiliary = auxiliary + c.balance_weight * even + Z_WEIGHT * logits.logsumexp(-1).square().mean()
        elif bias is not None:
            push = push + _BIAS_GRADIENT * (bias * (load - load.mean())).sum()
        found = {"balance_loss": even, "expert_load_max": share.max(), "expert_load_min": share.min()}
        if c.capacity_factor is not None:
            has_room = within_capacity(c, choose_experts(c, all_logits.detach(), bias)[1])
            found["expert_drop_fraction"] = 1 - has_room[:num_tokens].float().mean()
        metrics = {name: metrics.get(name, 0) + value.detach() / len(routing) for name, value in found.items()}
    return auxiliary, push, metrics
