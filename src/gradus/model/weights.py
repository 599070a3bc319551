"""Model folders: config.json and model.safetensors under the names of a Hub class, and back.

With norms on queries and keys the model is the Hub's Qwen3ForCausalLM, without them LlamaForCausalLM; either
folder loads in transformers, vLLM and llama.cpp's converter as it is. Fused projections are stored split.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradus.core.errors import ArtifactError, did_you_mean
from gradus.model.config import ModelConfig
from gradus.model.rope import hub_rope, rope_from_hub
from gradus.model.rows import RowSource, copy_rows
from gradus.model.tensor_files import TensorFiles, save_tensors
from gradus.model.transformer import Transformer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

# Inside a block: our parameter and the Hub's names of its row parts, in order.
_BLOCK_NAMES: dict[str, list[str]] = {
    "attention_norm": ["input_layernorm"],
    "qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "query_norm": ["self_attn.q_norm"],
    "key_norm": ["self_attn.k_norm"],
    "out": ["self_attn.o_proj"],
    "mlp_norm": ["post_attention_layernorm"],
    "gate_up": ["mlp.gate_proj", "mlp.up_proj"],
    "down": ["mlp.down_proj"],
}
_OUTER_NAMES = {"embedding": "model.embed_tokens", "norm": "model.norm", "unembedding": "lm_head"}


def hub_names(name: str) -> list[str]:
    """The Hub's tensor names for one of our parameters, in row order."""
    if name in _OUTER_NAMES:
        return [_OUTER_NAMES[name] + ".weight"]
    _, layer, last = name.split(".")
    return [f"model.layers.{layer}.{part}.weight" for part in _BLOCK_NAMES[last]]


def to_hub(model: Transformer, parameters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """All weights by the Hub's names; parts of fused parameters are views.

    parameters: whole tensors by our names, where only some are asked for or the model holds rows of them alone.
    """
    splits = model.row_splits()
    tensors: dict[str, Tensor] = {}
    for name, parameter in (dict(model.named_parameters()) if parameters is None else parameters).items():
        rows = splits.get(name, [parameter.shape[0]])
        tensors |= zip(hub_names(name), torch.split(parameter.detach(), rows), strict=True)
    return tensors


@torch.no_grad()
def from_hub(model: Transformer, tensors: Mapping[str, RowSource], where: str, left_out: Collection[str] = ()) -> None:
    """Copy weights by the Hub's names into the model, of sharded parameters the rows held here.

    left_out: parameters that keep what they hold. ArtifactError names what is missing or does not fit.
    """
    splits = model.row_splits()
    problems, used = [], set()
    for name, parameter in model.named_parameters():
        if name in left_out:
            continue
        begin = 0
        for hub_name, count in zip(hub_names(name), splits.get(name, [parameter.shape[0]]), strict=True):
            used.add(hub_name)
            found = tensors.get(hub_name)
            shape = (count, *parameter.shape[1:])
            if found is None:
                problems.append(f"{hub_name} is missing{did_you_mean(hub_name, set(tensors) - used)}")
            elif tuple(found.shape) != shape:
                problems.append(f"{hub_name} has shape {tuple(found.shape)}, expected {shape}")
            else:
                copy_rows(parameter, found, begin)
            begin += count
    # Some exporters store a tied head a second time.
    extra = set(tensors) - used - ({"lm_head.weight"} if model.config.tie_embeddings else set())
    problems += [f"{name} belongs to no part of the model" for name in sorted(extra)]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ArtifactError(f"{where}: the weights do not fit {CONFIG_FILE}: {shown}")


def hub_config(config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """config.json as transformers, vLLM and llama.cpp read it."""
    c = config
    return {
        "architectures": ["Qwen3ForCausalLM" if c.qk_norm else "LlamaForCausalLM"],
        "model_type": "qwen3" if c.qk_norm else "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": str(dtype).removeprefix("torch."),
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "hidden_size": c.width,
        "intermediate_size": c.mlp_width,
        "max_position_embeddings": c.context,
        "num_attention_heads": c.num_heads,
        "num_hidden_layers": c.depth,
        "num_key_value_heads": c.num_kv_heads,
        "rms_norm_eps": c.norm_eps,
        **hub_rope(c.rope_base, c.rope_scaling),
        "tie_word_embeddings": c.tie_embeddings,
        "vocab_size": c.vocab_size,
    }


def config_from_hub(table: Mapping[str, Any], where: str) -> ModelConfig:
    """The config of a folder of the two classes above; what this decoder cannot compute is refused."""
    kind = table.get("model_type")
    if kind not in {"qwen3", "llama"}:
        raise ArtifactError(f'{where}: model_type is {kind!r}; expected "qwen3" or "llama"')
    base, scaling, unknown = rope_from_hub(table)
    expected = {"attention_bias": False, "hidden_act": "silu", "mlp_bias": False, "use_sliding_window": False}
    problems = [
        f"{key} is {table[key]!r}, expected {value!r}"
        for key, value in expected.items()
        if key in table and table[key] != value
    ]
    problems += unknown
    if problems:
        raise ArtifactError(f"{where}: this decoder cannot compute that model: {'; '.join(problems)}")
    try:
        heads = table["num_attention_heads"]
        return ModelConfig(
            depth=table["num_hidden_layers"],
            width=table["hidden_size"],
            num_heads=heads,
            num_kv_heads=table.get("num_key_value_heads") or heads,
            head_dim=table.get("head_dim") or table["hidden_size"] // heads,
            mlp_width=table["intermediate_size"],
            vocab_size=table["vocab_size"],
            context=table["max_position_embeddings"],
            rope_base=base,
            rope_scaling=scaling,
            norm_eps=table.get("rms_norm_eps", 1e-6),
            tie_embeddings=table.get("tie_word_embeddings", False),
            qk_norm=kind == "qwen3",
        )
    except KeyError as missing:
        raise ArtifactError(f"{where}: the key {missing} is missing") from None


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
    tensors = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in to_hub(model).items()}
    save_tensors(folder / WEIGHTS_FILE, tensors)
    text = config_text(model.config, next(iter(tensors.values())).dtype, token_ids)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def config_text(config: ModelConfig, dtype: torch.dtype, token_ids: Mapping[str, int] | None = None) -> str:
    """What stands in config.json for weights stored in `dtype`; token_ids as for `save_model`."""
    return json.dumps(hub_config(config, dtype) | dict(token_ids or {}), indent=2, sort_keys=True) + "\n"


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
    return config_from_hub(table, str(path))


def load_model(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    prepare: Callable[[Transformer], None] | None = None,
) -> Transformer:
    """The model in a folder, its weights and its computing in `dtype`, ready to decode.

    For training load fp32 and set `compute_dtype`. prepare: as for `build_model`. Raises ArtifactError where files
    are missing, damaged or do not fit each other.
    """
    config = load_config(folder)
    with TensorFiles(folder, WEIGHTS_FILE) as tensors:
        with torch.device("meta"):
            model = Transformer(config)
        model.to(dtype)
        if prepare is not None:
            prepare(model)
        model.to_empty(device=device)
        from_hub(model, tensors, str(folder / WEIGHTS_FILE))
    model.compute_dtype = dtype
    return model
