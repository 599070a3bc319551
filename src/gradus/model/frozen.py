"""Weights of a model that trains no more, made ready to decode: folded once; on a CPU packed in bf16, or in 8 bits.

A training step folds each norm into the projection behind it, which is cheap beside many tokens; a decode step has few
tokens and would read and write most weights for it. Decoding is bound by reading weights, so a CPU gains from narrow
ones: bf16 in the order in which oneDNN reads them, or integers of 8 bits with one scale for each output channel,
multiplied by inputs that are rounded to 8 bits row by row (LLM.int8 without outliers, Dettmers et al. 2022). Everything
else stays in fp32 there: bf16 gains nothing in small sums and torch's attention over a cache in bf16 takes five times
as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradus.core.errors import ConfigError
from gradus.model.kernels import NormConstants, head_factors, norm_constants

if TYPE_CHECKING:
    from gradus.model.block import Block
    from gradus.model.transformer import Transformer

Product = Callable[[Tensor], Tensor]
_MOST_INT8 = 127
_LEAST = torch.finfo(torch.float32).tiny
_EMPTIED = ("qkv", "out", "gate_up", "up", "down")


@dataclass(frozen=True)
class FrozenBlock:
    """A layer's products (N, in) -> (N, out), what they give in a float dtype of their own.

    heads: what multiplies query and key heads, (H + Hk, D), in the dtype that the model computes in. norm, head_norm:
    of the residual and of heads, None where those have none. ups: gate and up, in one product or in two, or up alone;
    empty where the layer has experts.
    """

    qkv: Product
    out: Product
    heads: Tensor
    norm: NormConstants
    head_norm: NormConstants | None
    ups: tuple[Product, ...] = ()
    down: Product | None = None


@torch.no_grad()
def freeze(model: Transformer, int8: bool = False) -> None:
    """Make a model ready to decode, in place; the same function of its tokens, but for bf16's and int8's rounding.

    On a CPU a model in bf16, and one in 8 bits, computes in fp32 afterwards. It cannot be trained on, nor be saved
    where its weights are packed. ConfigError where int8 is not possible.
    """
    if int8:
        _check_int8(model)
    ready = int8_product if int8 else _ready_product(model)
    model.is_packed = ready in (int8_product, bf16_product)
    if model.is_packed:
        model.compute_dtype = torch.float32
    for block in model.blocks:
        block.frozen = _frozen_block(block, ready, model.is_packed, model.compute_dtype)
    model.frozen_head = ready(model.head_weight)
    model.frozen_frequencies = model.rope_frequencies(model.device)
    if model.is_packed and model.unembedding is not None:
        model.unembedding = nn.Parameter(model.unembedding.new_empty(0))


@cache
def packs_bf16() -> bool:
    """Whether this processor multiplies packed bf16."""
    is_there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bf16_product(weight: Tensor) -> Product:
    """x (N, in) -> x W^T (N, out) bf16, for a weight (out, in) held in bf16 in oneDNN's order."""
    # Packed for one row; as fast for many.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(torch.bfloat16).contiguous(), 1)

    def multiply(x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(torch.bfloat16), packed, None, "none", [], "")
        return found

    return multiply


def int8_product(weight: Tensor) -> Product:
    """x (N, in) -> x W^T (N, out) fp32, for a weight (out, in) held in 8 bits; each row of x is rounded to 8 bits.

    Sums are exact in 32 bits, so a row's product does not depend on the rows beside it.
    """
    integers, scale = quantised(weight)
    columns, scale = integers.T, scale / _MOST_INT8
    most, least = torch.tensor(float(_MOST_INT8)), torch.tensor(_LEAST)  # tensors, which cost half of plain numbers

    def multiply(x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            x = x.float()
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_(min=least)
        rows = (x * (most / largest)).round_().to(torch.int8)
        return torch._int_mm(rows, columns).mul(scale).mul_(largest)

    return multiply


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight: (out, in). Returns int8 of the same shape and the scale of each row, (out,) fp32: w = int8 scale."""
    scale = (weight.float().abs().amax(dim=1) / _MOST_INT8).clamp(min=_LEAST)
    return (weight.float() / scale[:, None]).round_().clamp_(-_MOST_INT8, _MOST_INT8).to(torch.int8), scale


def _ready_product(model: Transformer) -> Callable[[Tensor], Product]:
    """How a weight is made ready in the dtype that the model computes in."""
    if model.device.type == "cpu" and model.compute_dtype == torch.bfloat16 and packs_bf16():
        return bf16_product
    return partial(_product, dtype=model.compute_dtype)


def _frozen_block(block: Block, ready: Callable[[Tensor], Product], is_packed: bool, dtype: torch.dtype) -> FrozenBlock:
    assert block.adapters is None, "adapters are merged into the weights before a model is frozen"
    c = block.config
    block.qkv.mul_(block.attention_norm)
    block.attention_norm.fill_(1)
    qkv, out = ready(block.qkv), ready(block.out)
    ups: tuple[Product, ...] = ()
    down = None
    if block.experts is None:
        stacked = block.gate_up if c.is_gated else block.up
        stacked.mul_(block.mlp_norm)
        block.mlp_norm.fill_(1)
        # Two products where that takes no longer: what follows runs faster over contiguous rows.
        ups = tuple(ready(part) for part in (stacked.chunk(2) if c.is_gated and not is_packed else (stacked,)))
        down = ready(block.down)
    norms = None
    if block.query_norm is not None and block.key_norm is not None:
        norms = (block.query_norm, block.key_norm)
    heads = head_factors(c.num_heads, c.num_kv_heads, c.head_dim, norms, block.attention_norm.float())
    if is_packed:
        for name in _EMPTIED:
            if name in dict(block.named_parameters(recurse=False)):
                setattr(block, name, nn.Parameter(block.attention_norm.new_empty(0)))
    norm = norm_constants(c.width, c.norm_eps, heads.device)
    head_norm = norm_constants(c.head_dim, c.norm_eps, heads.device) if c.qk_norm else None
    return FrozenBlock(qkv, out, heads.to(dtype), norm, head_norm, ups, down)


def _product(weight: Tensor, dtype: torch.dtype) -> Product:
    return partial(F.linear, weight=weight.to(dtype))


def _check_int8(model: Transformer) -> None:
    if model.device.type != "cpu":
        raise ConfigError(f"weights of 8 bits are for processors, and the model is on {model.device}")
    if model.config.num_experts is not None:
        raise ConfigError("weights of 8 bits are for models without experts; load this one in bfloat16")
