"""A deeper model that begins as a shallower one: its layers below, new ones above.

New blocks start as the identity (what they add to the residual is zero, in every family), so that the deeper model
computes the shallower one's function until it is trained. Source: progressive stacking, Gong et al. 2019, with zero
blocks in the place of copies. Choices that go by a layer's place among all layers may give the parent's layers another
part to play; `ModelConfig.moved_by_depth` names them, and they are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import torch

from gradus.model.rows import held
from gradus.model.tensor_files import TensorFiles
from gradus.model.transformer import Transformer, build_model
from gradus.model.weights import WEIGHTS_FILE, from_stored, load_config

# What a block adds to the residual is proportional to one of these.
_ADDING = frozenset({"out", "down", "expert_down", "shared_down", "wave_out", "spectral_taps", "start_scale"})


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
    assert not config.moved_by_depth(depth)
    model = build_model(config.model_copy(update={"depth": depth}), generator, device, prepare=prepare)
    above = tuple(f"blocks.{layer}." for layer in range(config.depth, depth))
    fresh = [name for name, _ in model.named_parameters() if name.startswith(above)]
    with TensorFiles(folder, WEIGHTS_FILE) as tensors:
        from_stored(model, tensors, str(folder / WEIGHTS_FILE), left_out=fresh)
    _add_nothing(model, fresh)
    return model


@torch.no_grad()
def _add_nothing(model: Transformer, fresh: Collection[str]) -> None:
    """Let new blocks hand on what comes in."""
    for name, parameter in model.named_parameters():
        last = name.rpartition(".")[2]
        if name in fresh and last in _ADDING:
            held(parameter).zero_()
        elif name in fresh and last == "residual_scale":
            held(parameter).fill_(1.0)
