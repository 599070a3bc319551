"""At how many rows a product gives each row the same bits whatever stands in the others.

A matrix product may round a row differently by the number of rows beside it: libraries choose their kernels by shape.
Where this was written fp32 products are alike row by row with 4 rows or a multiple, products of bf16 and int8 weights
with any number (EXPERIMENTS.md); here it is tried on the machine and the model at hand, and where nothing holds every
step computes all slots.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from gradus.engine.llamacpp import LlamaCppModel
from gradus.model.frozen import Product
from gradus.model.transformer import Transformer

_TILES = (1, 4, 8)
_TRIED = 6  # multiples of a tile: where kernels change, it is at few rows


@torch.inference_mode()
def exact_row_tile(model: Transformer | LlamaCppModel, num_slots: int) -> int | None:
    """Of how many rows, or a multiple of so many, a step's products are to be.

    So that what a request is answered is the same to the last bit whoever is answered beside it in these slots. None
    where that is not to be had: sums below fp32, compiled steps, experts, whose products have as many rows as tokens
    chose them, and products of llama.cpp.
    """
    if isinstance(model, LlamaCppModel):
        return None
    is_fp32 = model.compute_dtype == torch.float32 and not model.is_packed
    if not is_fp32 or model.has_compiled_steps or model.config.num_experts is not None:
        return None
    most = -(-num_slots // _TILES[-1]) * _TILES[-1]
    products = _products(model)
    for tile in _TILES if num_slots > 1 else ():
        if all(_is_alike(product, width, tile, most, model.device) for product, width in products):
            return tile
    return most if num_slots > 1 else 1


def _products(model: Transformer) -> list[tuple[Product, int]]:
    """The products of a step, one of each kind, and the width of what they take."""
    c, block = model.config, model.blocks[0]
    if block.frozen is not None and block.frozen.down is not None and model.frozen_head is not None:
        frozen = block.frozen
        ups = [(product, c.width) for product in frozen.ups]
        others = [(block.frozen.down, c.mlp_width), (model.frozen_head, c.width)]
        return [(frozen.qkv, c.width), (frozen.out, c.query_width), *ups, *others]
    weights = {w.shape: w for w in (*block.parameters(), model.head_weight) if w.ndim == 2}
    return [(partial(F.linear, weight=weight), weight.shape[1]) for weight in weights.values()]


def _is_alike(product: Product, width: int, tile: int, most: int, device: torch.device) -> bool:
    """Whether a row has the same bits among `tile` rows, or a multiple, and among `most`, at either end of them."""
    x = torch.randn(most, width, generator=torch.Generator().manual_seed(0)).to(device)
    whole = product(x)
    return all(
        torch.equal(product(x[:rows]), whole[:rows]) and torch.equal(product(x[-rows:]), whole[-rows:])
        for rows in (*range(tile, min(most, _TRIED * tile + 1), tile), most)
    )
