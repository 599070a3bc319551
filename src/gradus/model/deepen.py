"""A deeper model that begins as a shallower one: its layers below, new ones above.

New blocks start as the identity (their projections back to the residual are zero), so that the deeper model computes
the shallower one's function until it is trained. Source: progressive stacking, Gong et al. 2019, with zero blocks in
the place of copies.
"""

from __future__ import annotations

import torch

from gradus.model.transformer import Transformer, build_model


@torch.no_grad()
def deepened(parent: Transformer, depth: int, generator: torch.Generator) -> Transformer:
    """A model of `depth` blocks, at least as many as the parent's, with the parent's weights in the lowest ones."""
    assert depth >= parent.config.depth
    config = parent.config.model_copy(update={"depth": depth})
    model = build_model(config, generator, parent.embedding.device, parent.compute_dtype)
    own = dict(model.named_parameters())
    for name, parameter in parent.named_parameters():
        own[name].copy_(parameter)
    return model
