"""At how many rows a product gives each row the same bits whatever stands in the others.

A matrix product may round a row differently by the number of rows beside it: libraries choose their kernels by shape.
With 8 rows, or a multiple, fp32 products are alike row by row where this was written (EXPERIMENTS.md); here it is tried
on the machine and the model at hand, and where it does not hold every step computes all slots.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gradus.model.transformer import Transformer

_ROWS = 8


@torch.inference_mode()
def exact_row_tile(model: Transformer, num_slots: int) -> int | None:
    """Of how many rows, or a multiple of so many, a step's products are to be.

    So that what a request is answered is the same to the last bit whoever is answered beside it in these slots. None
    where that is not to be had: below fp32, and with experts, whose products have as many rows as tokens chose them.
    """
    is_fp32 = model.compute_dtype == torch.float32 and not model.is_packed
    if not is_fp32 or model.config.num_experts is not None:
        return None
    if num_slots == 1:
        return 1
    most = -(-num_slots // _ROWS) * _ROWS
    weights = {w.shape: w for w in (*model.blocks[0].parameters(), model.head_weight) if w.ndim == 2}
    return _ROWS if all(_is_alike(weight, most) for weight in weights.values()) else most


def _is_alike(weight: Tensor, most: int) -> bool:
    """Whether each row of x W^T has the same bits in products of 8, 16, ... up to `most` rows, and in another place."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(most, weight.shape[1], generator=generator).to(weight.device)
    whole = F.linear(x, weight)
    if not torch.equal(F.linear(x.flip(0), weight).flip(0), whole):
        return False
    return all(torch.equal(F.linear(x[:rows], weight), whole[:rows]) for rows in range(_ROWS, most, _ROWS))
