"""Low-rank adapters: small trained additions to frozen projections, W x + (alpha / rank) B A x.

Source: LoRA, Hu et al. 2021, section 4.1. Files are PEFT's: adapter_config.json and adapter_model.safetensors, by the
names of the Hub's modules, of which our fused projections have several: each has an A and a B of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradus.core.errors import ArtifactError
from gradus.core.settings import load_settings
from gradus.model.config import LORA_TARGETS, LoraSettings, ModelConfig
from gradus.model.cost import check_adapters, projection_sizes
from gradus.model.hub import BLOCK_NAMES
from gradus.model.rows import RowSource, copy_rows

if TYPE_CHECKING:
    from gradus.model.transformer import Transformer

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
# Our projection: the Hub's modules whose rows it stacks, and of each its place in a layer.
_PLACES = {n: [name.removesuffix(".weight") for name in BLOCK_NAMES[n]] for n in ("qkv", "out", "gate_up", "down")}
_PARTS = {name: [place.rpartition(".")[2] for place in places] for name, places in _PLACES.items()}
# What PEFT's settings must be for W x + (alpha / rank) B A x to be what was trained.
_COMPUTED: dict[str, Any] = {
    "peft_type": "LORA", "bias": "none", "use_rslora": False, "use_dora": False, "fan_in_fan_out": False,
    "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None,
}  # fmt: skip
_PLACE = {place.rpartition(".")[2]: place for places in _PLACES.values() for place in places}


class Adapters(nn.Module):
    """The adapters of one layer: parameters `<target>_a` (rank, in) and `<target>_b` (out, rank)."""

    def __init__(self, config: ModelConfig, settings: LoraSettings) -> None:
        super().__init__()
        self.scale = settings.alpha / settings.rank
        self.sizes = projection_sizes(config)
        for target in settings.targets:
            size_in, size_out = self.sizes[target]
            self.register_parameter(f"{target}_a", nn.Parameter(torch.empty(settings.rank, size_in)))
            self.register_parameter(f"{target}_b", nn.Parameter(torch.empty(size_out, settings.rank)))

    def has(self, projection: str) -> bool:
        """Whether any part of one of our projections has an adapter."""
        return any(f"{part}_a" in self._parameters for part in _PARTS[projection])

    def added(self, projection: str, x: Tensor) -> Tensor:
        """What the adapters of one of our projections add to its result. x: (N, in), its input. Returns (N, out)."""
        parts = []
        for part in _PARTS[projection]:
            a, b = self._parameters.get(f"{part}_a"), self._parameters.get(f"{part}_b")
            if a is None or b is None:
                parts.append(x.new_zeros(x.shape[0], self.sizes[part][1]))
            else:
                parts.append(self.scale * F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def add_adapters(model: Transformer, settings: LoraSettings) -> None:
    """Freeze the model and give each layer its adapters, without values yet; before it is sharded.

    Errors: ConfigError for a model whose projections have no names in PEFT's files.
    """
    check_adapters(model.config, settings)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for block in model.blocks:
        block.adapters = Adapters(model.config, settings)
    model.lora = settings


def is_adapter(name: str) -> bool:
    """Whether a parameter's name is that of an adapter."""
    return ".adapters." in name


@torch.no_grad()
def init_adapters(model: Transformer, generator: torch.Generator) -> None:
    """A uniform with deviation 1 / sqrt(3 in), B zero: at first nothing is added. As PEFT begins."""
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            whole = torch.zeros(parameter.shape)
            if name.endswith("_a"):
                bound = parameter.shape[1] ** -0.5
                whole.uniform_(-bound, bound, generator=generator)
            copy_rows(parameter, whole)


@torch.no_grad()
def merged(model: Transformer) -> dict[str, Tensor]:
    """Whole parameters with the adapters added into them, by our names, without those of the adapters themselves."""
    parameters = dict(model.named_parameters())
    found = {name: parameter.detach() for name, parameter in parameters.items() if not is_adapter(name)}
    if model.lora is None:
        return found
    for layer, block in enumerate(model.blocks):
        assert block.adapters is not None
        for projection, parts in _PARTS.items():
            if not block.adapters.has(projection):
                continue
            name = f"blocks.{layer}.{projection}"
            sizes = [block.adapters.sizes[part][1] for part in parts]
            rows = list(torch.split(found[name], sizes))
            for place, part in enumerate(parts):
                a, b = (parameters.get(f"blocks.{layer}.adapters.{part}_{half}") for half in ("a", "b"))
                if a is not None and b is not None:
                    rows[place] = rows[place] + block.adapters.scale * (b @ a)
            found[name] = torch.cat(rows)
    return found


def peft_name(name: str) -> str:
    """The name in PEFT's file of one of our adapters' parameters, such as `blocks.0.adapters.q_proj_a`."""
    _, layer, _, last = name.split(".")
    part, _, half = last.rpartition("_")
    return f"base_model.model.model.layers.{layer}.{_PLACE[part]}.lora_{half.upper()}.weight"


def adapter_config_text(settings: LoraSettings, base: str | None = None) -> str:
    """adapter_config.json as PEFT reads it. base: the name or folder of the model that the adapter belongs to."""
    table = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": list(settings.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    return json.dumps(table, indent=2, sort_keys=True) + "\n"


def load_adapter_settings(folder: Path) -> LoraSettings | None:
    """Of the adapter in a folder, None where there is none. Errors: ArtifactError for one that is not of this kind."""
    path = folder / ADAPTER_CONFIG_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise ArtifactError(f"{path}: expected a JSON object")
    for key, value in _COMPUTED.items():
        if (table.get(key, value) or None) != (value or None):
            raise ArtifactError(
                f"{path}: {key} is {table[key]!r}, expected {value!r}: no other adapters can be computed"
            )
    found = {"rank": table.get("r"), "alpha": table.get("lora_alpha"), "targets": table.get("target_modules")}
    if isinstance(found["targets"], list):
        known = [name for name in LORA_TARGETS if name in found["targets"]]
        found["targets"] = (*known, *(name for name in found["targets"] if name not in known))
    return load_settings(LoraSettings, found, str(path))


class _MergedRows:
    """A stored weight that reads as if its adapter had been added into it."""

    def __init__(self, weight: RowSource, a: RowSource, b: RowSource, scale: float) -> None:
        self.shape = tuple(weight.shape)
        self._weight, self._a, self._b, self._scale = weight, a, b, scale

    def __getitem__(self, rows: slice | EllipsisType) -> Tensor:
        return self._weight[rows] + self._scale * (self._b[rows] @ self._a[...])


def with_adapter(
    tensors: Mapping[str, RowSource], adapter: Mapping[str, RowSource], settings: LoraSettings, where: str
) -> dict[str, RowSource]:
    """Stored weights by their names with an adapter of PEFT's file merged into them as they are read.

    Errors: ArtifactError for an adapter that belongs to other weights.
    """
    found = dict(tensors.items())
    names = {name.removesuffix(".lora_A.weight") for name in adapter if name.endswith(".lora_A.weight")}
    strangers = set(adapter) - {f"{name}.lora_{half}.weight" for name in names for half in "AB"}
    if strangers:
        raise ArtifactError(
            f"{where}: {min(strangers)} is no part of an adapter that can be computed, a lora_A and a lora_B each"
        )
    for name in sorted(names):
        target = name.removeprefix("base_model.model.") + ".weight"
        a, b = adapter[f"{name}.lora_A.weight"], adapter.get(f"{name}.lora_B.weight")
        weight = found.get(target)
        if weight is None or b is None or len(weight.shape) != 2:
            raise ArtifactError(f"{where}: {name} does not fit the weights beside it; it belongs to another model")
        (rows, columns), shapes = weight.shape, (tuple(a.shape), tuple(b.shape))
        if shapes != ((settings.rank, columns), (rows, settings.rank)):
            raise ArtifactError(
                f"{where}: {name} has shapes {shapes[0]} and {shapes[1]}, which do not fit the weights beside it, "
                f"{(rows, columns)}, and rank {settings.rank} in {ADAPTER_CONFIG_FILE}; it belongs to another model"
            )
        found[target] = _MergedRows(weight, a, b, settings.alpha / settings.rank)
    return found


def adapters_to_stored(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters among these parameters, whole, by PEFT's names."""
    return {peft_name(name): value.detach() for name, value in parameters.items() if is_adapter(name)}


@torch.no_grad()
def adapters_from_stored(model: Transformer, tensors: Mapping[str, RowSource], where: str) -> None:
    """Copy adapters into the model, of sharded ones the rows held here. Errors: ArtifactError for what does not fit."""
    problems = []
    expected = {peft_name(name): p for name, p in model.named_parameters() if is_adapter(name)}
    for name, parameter in expected.items():
        found = tensors.get(name)
        if found is None:
            problems.append(f"{name} is missing")
        elif tuple(found.shape) != tuple(parameter.shape):
            problems.append(f"{name} has shape {tuple(found.shape)}, expected {tuple(parameter.shape)}")
        else:
            copy_rows(parameter, found)
    problems += [f"{name} belongs to no part of the model" for name in sorted(set(tensors) - set(expected))]
    if problems:
        raise ArtifactError(f"{where}: the adapter does not fit the model: {'; '.join(problems[:5])}")
