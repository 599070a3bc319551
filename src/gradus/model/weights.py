"""Model folders: config.json and model.safetensors, and back.

The portable family is stored under the names of a Hub class, fused projections and stacked experts split: such a
folder loads in transformers without custom code. Other families are computed by no Hub class and are stored
in our own format: model_type "gradus", the settings under "gradus", and weights under our own names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from gradus.core.errors import ArtifactError, did_you_mean
from gradus.core.settings import load_settings
from gradus.model.config import LoraSettings, ModelConfig
from gradus.model.hub import config_from_hub, hub_config, hub_constants, hub_names
from gradus.model.lora import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    adapter_config_text,
    adapters_to_stored,
    add_adapters,
    init_adapters,
    is_adapter,
    load_adapter_settings,
    merged,
    with_adapter,
)
from gradus.model.rows import RowSource, copy_rows
from gradus.model.tensor_files import TensorFiles, save_tensors
from gradus.model.transformer import Transformer
from gradus.model.xla import on_host, send_work

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
OWN_TYPE = "gradus"


def to_stored(model: Transformer, parameters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """All weights by the names they are stored under, adapters merged into them; parts of fused parameters are views.

    parameters: whole tensors by our names, where only some are asked for or the model holds rows of them alone; these
    are stored as they are, without adapters among them.
    """
    splits = _splits(model)
    tensors: dict[str, Tensor] = {}
    for name, parameter in (merged(model) if parameters is None else parameters).items():
        if is_adapter(name):
            continue
        parts = torch.split(parameter.detach(), splits.get(name, [parameter.shape[0]]))
        tensors |= zip(stored_names(model.config, name), parts, strict=True)
    return tensors


def stored_names(config: ModelConfig, name: str) -> list[str]:
    """The names one of our parameters is stored under, in row order: the Hub's, or its own where no class fits."""
    return hub_names(config, name) if config.family == "portable" else [name]


def _constants(config: ModelConfig) -> dict[str, tuple[float, tuple[int, ...]]]:
    """What the Hub's class stores besides parameters (see hub_constants)."""
    return hub_constants(config) if config.family == "portable" else {}


def _splits(model: Transformer) -> dict[str, list[int]]:
    """Rows of each part of a parameter that is stored in parts."""
    return model.row_splits() if model.config.family == "portable" else {}


@torch.no_grad()
def from_stored(
    model: Transformer, tensors: Mapping[str, RowSource], where: str, left_out: Collection[str] = ()
) -> None:
    """Copy weights into the model by the names they are stored under, of sharded parameters the rows held here.

    left_out: parameters that keep what they hold, as adapters do. ArtifactError names what is missing or does not fit.
    """
    send_work(model.device)
    splits = _splits(model)
    problems, used = [], set()
    for name, parameter in model.named_parameters():
        if name in left_out or is_adapter(name):
            continue
        begin = 0
        whole = on_host(parameter)
        for stored_name, count in zip(
            stored_names(model.config, name), splits.get(name, [parameter.shape[0]]), strict=True
        ):
            used.add(stored_name)
            found = tensors.get(stored_name)
            shape = (count, *parameter.shape[1:])
            if found is None:
                problems.append(f"{stored_name} is missing{did_you_mean(stored_name, set(tensors) - used)}")
            elif tuple(found.shape) != shape:
                problems.append(f"{stored_name} has shape {tuple(found.shape)}, expected {shape}")
            else:
                copy_rows(whole, found, begin)
            begin += count
        if whole is not parameter:
            parameter.copy_(whole)
    constants = _constants(model.config)
    for stored_name, (value, _) in constants.items():
        there = tensors[stored_name][...].float().item() if stored_name in tensors else value
        # A folder that another program saved in 16 bits has them rounded.
        if abs(there - value) > 0.003 * abs(value):
            problems.append(f"{stored_name} is {there:g}, expected {value:g}, with which xIELU is relu(x)^2")
    # Some exporters store a tied head a second time.
    extra = set(tensors) - used - constants.keys() - ({"lm_head.weight"} if model.config.tie_embeddings else set())
    problems += [f"{name} belongs to no part of the model" for name in sorted(extra)]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ArtifactError(f"{where}: the weights do not fit {CONFIG_FILE}: {shown}")


def save_model(
    folder: Path,
    model: Transformer,
    dtype: torch.dtype | None = None,
    token_ids: Mapping[str, int] | None = None,
) -> None:
    """Write config.json and model.safetensors into an existing folder.

    dtype: what the weights are stored in, None for their own. token_ids: eos_token_id, bos_token_id or
    pad_token_id for config.json.
    """
    tensors = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in to_stored(model).items()}
    stored_dtype = next(iter(tensors.values())).dtype
    # In fp32 whatever the weights are in: the softplus of a rounded alpha_p is not 1.
    tensors |= {name: torch.full(shape, value) for name, (value, shape) in _constants(model.config).items()}
    save_tensors(folder / WEIGHTS_FILE, tensors)
    text = config_text(model.config, stored_dtype, token_ids)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def save_adapter(folder: Path, model: Transformer, base: str | None = None) -> None:
    """Write adapter_config.json and adapter_model.safetensors, as PEFT reads them, into an existing folder.

    base: name or folder of the model that the adapter belongs to.
    """
    assert model.lora is not None, "the model has adapters"
    tensors = adapters_to_stored(dict(model.named_parameters()))
    save_tensors(folder / ADAPTER_WEIGHTS_FILE, {name: tensor.contiguous() for name, tensor in tensors.items()})
    (folder / ADAPTER_CONFIG_FILE).write_text(adapter_config_text(model.lora, base), encoding="utf-8")


def config_text(config: ModelConfig, dtype: torch.dtype, token_ids: Mapping[str, int] | None = None) -> str:
    """What stands in config.json for weights stored in `dtype`; token_ids as for `save_model`."""
    dtype_name = str(dtype).removeprefix("torch.")
    if config.family == "portable":
        table = hub_config(config, dtype_name)
    else:
        table = {"model_type": OWN_TYPE, OWN_TYPE: config.model_dump(mode="json"), "dtype": dtype_name}
    return json.dumps(table | dict(token_ids or {}), indent=2, sort_keys=True) + "\n"


def load_config(folder: Path) -> ModelConfig:
    """The config of a model folder."""
    path = folder / CONFIG_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; {folder} is no model folder") from None
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise ArtifactError(f"{path}: expected a JSON object")
    if table.get("model_type") == OWN_TYPE:
        return load_settings(ModelConfig, table.get(OWN_TYPE) or {}, str(path))
    return config_from_hub(table, str(path))


def load_model(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    prepare: Callable[[Transformer], None] | None = None,
    lora: LoraSettings | None = None,
    seed: int = 0,
) -> Transformer:
    """The model in a folder, its weights and its computing in `dtype`, ready to decode.

    For training load fp32 and set `compute_dtype`. prepare: as for `build_model`. lora: freeze the weights and train
    fresh adapters, drawn from `seed`. An adapter that lies in the folder is merged. Raises ArtifactError where files
    are missing, damaged or do not fit each other.
    """
    config = load_config(folder)
    stored_lora = load_adapter_settings(folder)
    with ExitStack() as stack:
        tensors: Mapping[str, RowSource] = stack.enter_context(TensorFiles(folder, WEIGHTS_FILE))
        if stored_lora is not None:
            adapter = stack.enter_context(TensorFiles(folder, ADAPTER_WEIGHTS_FILE))
            tensors = with_adapter(tensors, adapter, stored_lora, str(folder / ADAPTER_WEIGHTS_FILE))
        with torch.device("meta"):
            model = Transformer(config)
        if lora is not None:
            add_adapters(model, lora)
        model.to(dtype)
        if prepare is not None:
            prepare(model)
        model.take_memory(device)
        from_stored(model, tensors, str(folder / WEIGHTS_FILE))
    if lora is not None:
        init_adapters(model, torch.Generator().manual_seed(seed))
    model.compute_dtype = dtype
    return model
