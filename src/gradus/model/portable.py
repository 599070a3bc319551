"""A model as a class of the Hub computes it: the same function, with what the class lacks folded into its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from gradus.model.lora import merged
from gradus.model.reach import portable_config
from gradus.model.transformer import Transformer


@torch.no_grad()
def portable_form(model: Transformer) -> Transformer | None:
    """The model in family "portable", with weights of its own; None where no class of the Hub computes it.

    Adapters are merged. Norms of queries and keys without weights get ones; the number that a feed-forward's result is
    multiplied by goes into its last projections.
    """
    config = portable_config(model.config)
    if config is None:
        return None
    weights = merged(model)
    with torch.device("meta"):
        portable = Transformer(config)
    portable.to_empty(device=model.device)
    for name, parameter in portable.named_parameters():
        parameter.copy_(_folded(name, weights, parameter))
    return portable


def _folded(name: str, weights: dict[str, Tensor], like: Tensor) -> Tensor:
    """The value of one parameter of the portable form."""
    value = weights[name] if name in weights else torch.ones_like(like)
    layer, _, last = name.partition(".")[2].partition(".")
    scale = weights.get(f"blocks.{layer}.branch_scale")
    ends = last.rpartition(".")[2] in {"down", "expert_down", "shared_down"}
    return value * scale if ends and scale is not None else value
