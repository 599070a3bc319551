"""Deeper models: every choice of a family begins as its parent, or is named as one that cannot."""

from pathlib import Path

import pytest
import torch
from small_models import SIGMOID, SOFTMAX, logits_of, random_model, random_tokens, small_config

from gradus.model.deepen import deeper_model
from gradus.model.weights import save_model
from gradus.roadmap.lineage import shape_problem

GROWN: dict[str, tuple[dict[str, object], int]] = {
    "dense": ({}, 5),
    "psann with both gates": ({"family": "psann", "wave_kernel": 4, "spectral_length": 6}, 3),
    "experts": (SOFTMAX, 3),
    "experts and a shared one": (SIGMOID, 4),
    "residual scalars": ({"family": "custom", "residual_scalars": True, "smear": True, "softcap": 4.0}, 4),
    "value embeddings": ({"family": "custom", "value_embeddings": True}, 4),
    "backout": ({"family": "custom", "backout": True}, 7),
    "windows": ({"family": "custom", "window_pattern": "SL", "window": 4}, 4),
}
MOVED: dict[str, tuple[dict[str, object], int, str]] = {
    "value embeddings": ({"family": "custom", "value_embeddings": True}, 3, "value_embeddings"),
    "backout": ({"family": "custom", "backout": True, "depth": 4}, 6, "backout"),
    "windows": ({"family": "custom", "window_pattern": "S", "window": 4}, 3, "window_pattern"),
    "speedrun": ({"family": "speedrun", "window": 5, "depth": 4}, 7, "value_embeddings, backout"),
}


@pytest.mark.parametrize(("changes", "depth"), GROWN.values(), ids=GROWN.keys())
def test_a_deeper_model_computes_what_its_parent_does(changes: dict[str, object], depth: int, tmp_path: Path) -> None:
    parent, tokens = random_model(small_config(**changes)), random_tokens(40)
    save_model(tmp_path, parent)
    grown = deeper_model(tmp_path, depth, torch.Generator().manual_seed(3))
    assert len(grown.blocks) == depth
    written = small_config(**{**changes, "depth": depth})
    assert shape_problem(parent.config, written, other_depth=True) == ""
    with torch.no_grad():
        assert torch.equal(logits_of(grown, tokens, [25, 15]), logits_of(parent, tokens, [25, 15]))


@pytest.mark.parametrize(("changes", "depth", "named"), MOVED.values(), ids=MOVED.keys())
def test_choices_by_a_layers_place_are_refused_where_it_moves(
    changes: dict[str, object], depth: int, named: str
) -> None:
    parent, written = small_config(**changes), small_config(**{**changes, "depth": depth})
    problem = shape_problem(parent, written, other_depth=True)
    assert f"whose {named} go by a layer's place among all" in problem
