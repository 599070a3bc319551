"""Weights of a model that trains no more, made ready to decode: norms folded in once; on request, on a CPU, in 8 bits.

A training step folds each norm into the projection behind it, which is cheap beside many tokens; a decode step has few
tokens and would read and write most weights for it. Decoding is bound by reading weights, so on a CPU it gains from
integers of 8 bits, one scale for each output channel, with activations in bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradus.core.errors import ConfigError

if TYPE_CHECKING:
    from gradus.model.block import Block
    from gradus.model.transformer import Transformer

Product = Callable[[Tensor], Tensor]
_MOST_INT8 = 127
_INT8_COLUMNS = 64  # of which torch's product with integers wants whole multiples
_MOST_INT8_ROWS = 16  # above, torch's product with integers is slower than one in bf16 that unpacks them first


@dataclass(frozen=True)
class FrozenBlock:
    """A layer's products (N, in) -> (N, out). ups: gate and up, or up alone; empty where the layer has experts."""

    qkv: Product
    out: Product
    ups: tuple[Product, ...] = ()
    down: Product | None = None


@torch.no_grad()
def freeze(model: Transformer, int8: bool = False) -> None:
    """Make a model ready to decode, in place; the same function of its tokens, but for int8's rounding.

    Afterwards it cannot be trained on, and with int8 not be saved. ConfigError where int8 is not possible.
    """
    if int8:
        _check_int8(model)
    for block in model.blocks:
        block.frozen = _frozen_block(block, int8)
    if int8:
        model.frozen_head = int8_product(model.head_weight)
    else:
        model.frozen_head = _product(model.head_weight, model.compute_dtype)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight: (out, in). Returns int8 of the same shape and the scale of each row, (out,) bf16: w = int8 scale."""
    scale = (weight.float().abs().amax(dim=1) / _MOST_INT8).clamp(min=torch.finfo(torch.bfloat16).tiny)
    scale = scale.to(torch.bfloat16)
    # Rounding the scale down may take the largest weight past the last integer.
    rounded = (weight.float() / scale.float()[:, None]).round_().clamp_(-_MOST_INT8, _MOST_INT8)
    return rounded.to(torch.int8), scale


def int8_product(weight: Tensor) -> Product:
    """x (N, in) bf16 -> x W^T (N, out) bf16, for a weight (out, in) held in 8 bits."""
    integers, scale = quantised(weight)
    # torch 2.13 reads past the end of rows that are no multiple of 16 and may crash.
    padding = -weight.shape[1] % _INT8_COLUMNS
    integers = F.pad(integers, (0, padding))

    def multiply(x: Tensor) -> Tensor:
        x = F.pad(x, (0, padding)) if padding else x
        if len(x) > _MOST_INT8_ROWS:
            # Integers up to 127 are exact in bf16.
            return F.linear(x, integers.to(x.dtype)) * scale
        found: Tensor = torch._weight_int8pack_mm(x.contiguous(), integers, scale)
        return found

    return multiply


def _frozen_block(block: Block, int8: bool) -> FrozenBlock:
    assert block.adapters is None, "adapters are merged into the weights before a model is frozen"
    dtype = block.qkv.dtype
    block.qkv.mul_(block.attention_norm)
    block.attention_norm.fill_(1)
    ready: Callable[[Tensor], Product] = int8_product if int8 else partial(_product, dtype=dtype)
    qkv, out = ready(block.qkv), ready(block.out)
    ups: tuple[Product, ...] = ()
    down = None
    if block.experts is None:
        stacked = block.gate_up if block.config.is_gated else block.up
        stacked.mul_(block.mlp_norm)
        block.mlp_norm.fill_(1)
        ups = tuple(ready(part) for part in (stacked.chunk(2) if block.config.is_gated else (stacked,)))
        down = ready(block.down)
    if int8:
        for name in ("qkv", "out", "gate_up", "up", "down"):
            if name in dict(block.named_parameters(recurse=False)):
                setattr(block, name, nn.Parameter(torch.empty(0, dtype=dtype)))
    return FrozenBlock(qkv, out, ups, down)


def _product(weight: Tensor, dtype: torch.dtype) -> Product:
    return partial(F.linear, weight=weight.to(dtype))


def _check_int8(model: Transformer) -> None:
    if model.device.type != "cpu":
        raise ConfigError(f"weights of 8 bits are for processors, and the model is on {model.device}")
    if model.compute_dtype != torch.bfloat16:
        found = str(model.compute_dtype).removeprefix("torch.")
        raise ConfigError(f"weights of 8 bits take activations in bfloat16, and the model computes in {found}")
    if model.config.num_experts is not None:
        raise ConfigError("weights of 8 bits are for models without experts; load this one in bfloat16")
