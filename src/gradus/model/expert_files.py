"""Experts of a model in a file each, beside what they share: to train one after the other, and to merge.

shared.safetensors     embedding, attention, norms, head: the trunk
experts/0.safetensors  the feed-forward of expert 0 in every layer, and so on

Names are ours, and carry the layer. A trunk with one expert is a dense model whose feed-forward is that expert, which
is what sending every token to it at weight 1 means; merged, the experts stand behind fresh routers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from gradus.core.errors import ArtifactError, ConfigError
from gradus.model.config import EXPERT_KEYS, ModelConfig
from gradus.model.rows import copy_rows
from gradus.model.tensor_files import TensorFiles, save_tensors
from gradus.model.transformer import Transformer, build_model

SHARED_FILE = "shared.safetensors"
EXPERTS_FOLDER = "experts"
# Of an expert, in a dense model and in one with all experts.
_PARTS = {"gate_up": "experts.expert_gate_up", "down": "experts.expert_down"}


def expert_file(index: int) -> str:
    """The name of an expert's file below its folder."""
    return f"{EXPERTS_FOLDER}/{index}.safetensors"


def single_expert_config(config: ModelConfig) -> ModelConfig:
    """The dense model that the trunk and one expert are. Errors: ConfigError where experts are not all there is."""
    problems = []
    if config.num_experts is None:
        problems.append("model: there are no experts to train; set num_experts")
    if config.dense_layers:
        problems.append(
            f"model: dense_layers {config.dense_layers}; experts are trained alone where every layer has them; "
            "write dense_layers = 0 beside the preset"
        )
    if config.shared_experts:
        problems.append(f"model: shared_experts {config.shared_experts}; experts are trained alone without shared ones")
    if problems:
        raise ConfigError(problems)
    assert config.expert_width is not None
    plain = {key: ModelConfig.model_fields[key].default for key in EXPERT_KEYS}
    return ModelConfig(**config.model_dump() | plain | {"num_experts": None, "mlp_width": config.expert_width})


def expert_parameters(model: Transformer) -> dict[str, nn.Parameter]:
    """Of a dense model, what its expert consists of; all else is the trunk."""
    return {name: p for name, p in model.named_parameters() if name.rpartition(".")[2] in _PARTS}


def save_shared(folder: Path, model: Transformer) -> None:
    """Write the trunk of a dense model."""
    own = expert_parameters(model)
    _save(folder / SHARED_FILE, [(n, p) for n, p in model.named_parameters() if n not in own])


def save_expert(folder: Path, index: int, model: Transformer) -> None:
    """Write the expert of a dense model under its number."""
    (folder / EXPERTS_FOLDER).mkdir(exist_ok=True)
    _save(folder / expert_file(index), expert_parameters(model).items())


def _save(path: Path, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    save_tensors(path, {name: p.detach().cpu().contiguous() for name, p in parameters})


def load_shared(folder: Path, model: Transformer) -> None:
    """Copy the trunk into a dense model. Errors: ArtifactError."""
    own = expert_parameters(model)
    targets = {name: (p, 0, len(p)) for name, p in model.named_parameters() if name not in own}
    _load(folder, SHARED_FILE, targets)


def load_expert(folder: Path, index: int, model: Transformer) -> None:
    """Copy an expert into a dense model. Errors: ArtifactError."""
    _load(folder, expert_file(index), {name: (p, 0, len(p)) for name, p in expert_parameters(model).items()})


def merged_model(
    folder: Path,
    config: ModelConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    prepare: Callable[[Transformer], None] | None = None,
) -> Transformer:
    """The trunk and all experts of a folder in one model; its routers are fresh. Errors: ArtifactError."""
    model = build_model(config, generator, device, prepare=prepare)
    parameters = dict(model.named_parameters())
    inside = ("expert_gate_up", "expert_down", "router", "router_bias")
    trunk = {name: (p, 0, len(p)) for name, p in parameters.items() if name.rpartition(".")[2] not in inside}
    _load(folder, SHARED_FILE, trunk)
    assert config.num_experts is not None
    for index in range(config.num_experts):
        targets = {}
        for layer in range(config.depth):
            for part, stacked in _PARTS.items():
                whole = parameters[f"blocks.{layer}.{stacked}"]
                rows = whole.shape[0] // config.num_experts
                targets[f"blocks.{layer}.{part}"] = (whole, index * rows, rows)
        _load(folder, expert_file(index), targets)
    return model


@torch.no_grad()
def _load(folder: Path, name: str, targets: dict[str, tuple[nn.Parameter, int, int]]) -> None:
    """Copy every tensor of a file to where it belongs: a parameter, the row there that it begins at, and how many."""
    with TensorFiles(folder, name) as tensors:
        if problems := sorted(set(tensors) ^ set(targets)):
            raise ArtifactError(
                f"{folder / name}: holds other parts than the model has: {', '.join(problems[:5])}; it was written for "
                "a model of another shape"
            )
        for key, (parameter, begin, rows) in targets.items():
            found, expected = tuple(tensors[key].shape), (rows, *parameter.shape[1:])
            if found != expected:
                raise ArtifactError(f"{folder / name}: {key} has shape {found}, expected {expected}")
            copy_rows(parameter, tensors[key], begin)
