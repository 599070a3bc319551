"""A deeper model that begins as a shallower one: its layers below, new ones above.

New blocks start as the identity (their projections back to the residual are zero), so that the deeper model computes
the shallower one's function until it is trained. Source: progressive stacking, Gong et al. 2019, with zero blocks in
the place of copies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from gradus.model.tensor_files import TensorFiles
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import WEIGHTS_FILE, from_hub, load_config


def deeper_model(
    folder: Path,
    depth: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    prepare: Callable[[Transformer], None] | None = None,
) -> Transformer:
    """The model of a folder with new blocks above its own, `depth` in all; fp32. prepare: as for `build_model`.

    Errors: ArtifactError as of `load_model`.
    """
    config = load_config(folder)
    assert depth >= config.depth
    model = build_model(config.model_copy(update={"depth": depth}), generator, device, prepare=prepare)
    above = tuple(f"blocks.{layer}." for layer in range(config.depth, depth))
    fresh = [name for name, _ in model.named_parameters() if name.startswith(above)]
    with TensorFiles(folder, WEIGHTS_FILE) as tensors:
        from_hub(model, tensors, str(folder / WEIGHTS_FILE), left_out=fresh)
    return model
