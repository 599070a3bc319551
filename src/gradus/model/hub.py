"""Our parameters and settings by the names of Hub classes, and back; and which runtimes compute a model.

| model | class |
|---|---|
| norms on queries and keys | Qwen3ForCausalLM |
| without them | LlamaForCausalLM |
| experts, router "softmax" | Qwen3MoeForCausalLM |
| experts, router "sigmoid", shared expert | Dots1ForCausalLM |
| activation "relu2" | ApertusForCausalLM |
| sliding windows, with or without experts (router "softmax") | MellumForCausalLM |

Apertus has the activation xIELU: alpha_p x^2 + beta x above zero, alpha_n (expm1(x) - x) + beta x below, each alpha
behind a softplus (Huang 2024, "Deriving activation functions using integration"). With alpha_p = 1 and
alpha_n = beta = 0 that is relu(x)^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradus.core.errors import ArtifactError, ConfigError
from gradus.model.config import ModelConfig
from gradus.model.rope import hub_rope, rope_from_hub

CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "dots1": "Dots1ForCausalLM",
    "apertus": "ApertusForCausalLM",
    "mellum": "MellumForCausalLM",
}
# Inside a block: our parameter and the Hub's names of its row parts, in order.
BLOCK_NAMES: dict[str, list[str]] = {
    "attention_norm": ["input_layernorm.weight"],
    "qkv": ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"],
    "query_norm": ["self_attn.q_norm.weight"],
    "key_norm": ["self_attn.k_norm.weight"],
    "out": ["self_attn.o_proj.weight"],
    "mlp_norm": ["post_attention_layernorm.weight"],
    "gate_up": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    "down": ["mlp.down_proj.weight"],
    "router": ["mlp.gate.weight"],
    "router_bias": ["mlp.gate.e_score_correction_bias"],
    "shared_gate_up": ["mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight"],
    "shared_down": ["mlp.shared_experts.down_proj.weight"],
}
_APERTUS_NAMES = BLOCK_NAMES | {
    "attention_norm": ["attention_layernorm.weight"],
    "mlp_norm": ["feedforward_layernorm.weight"],
    "up": ["mlp.up_proj.weight"],
}
_EXPERT_NAMES = {"expert_gate_up": ["gate_proj", "up_proj"], "expert_down": ["down_proj"]}
_OUTER_NAMES = {"embedding": "model.embed_tokens", "norm": "model.norm", "unembedding": "lm_head"}
# The tensors of xIELU that make it relu(x)^2, and their shapes. softplus(-1000) is zero in every precision.
XIELU: dict[str, tuple[float, tuple[int, ...]]] = {
    "alpha_p": (math.log(math.expm1(1.0)), (1,)),
    "alpha_n": (-1000.0, (1,)),
    "beta": (0.0, ()),
    "eps": (-1e-6, ()),
}
_SLIDING, _FULL = "sliding_attention", "full_attention"


def hub_names(config: ModelConfig, name: str) -> list[str]:
    """The Hub's tensor names for one of our parameters, in row order."""
    if name in _OUTER_NAMES:
        return [_OUTER_NAMES[name] + ".weight"]
    layer, last = name.split(".")[1], name.rpartition(".")[2]
    inside = (_APERTUS_NAMES if config.activation == "relu2" else BLOCK_NAMES).get(last)
    if inside is None:
        experts = range(config.num_experts or 0)
        inside = [f"mlp.experts.{i}.{part}.weight" for i in experts for part in _EXPERT_NAMES[last]]
    return [f"model.layers.{layer}.{part}" for part in inside]


def hub_constants(config: ModelConfig) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Tensors that a class has and this decoder does not: their one value and their shape, by the Hub's names."""
    if model_type(config) != "apertus":
        return {}
    layers = range(config.depth)
    return {f"model.layers.{layer}.mlp.act_fn.{name}": value for layer in layers for name, value in XIELU.items()}


def model_type(config: ModelConfig) -> str | None:
    """The class of the Hub that computes these choices, as config.json names it; None where none does."""
    if config.classless_choices:
        return None
    if config.activation == "relu2":
        return "apertus"
    if config.window_pattern is not None:
        return "mellum"
    if config.num_experts is None:
        return "qwen3" if config.qk_norm else "llama"
    return "qwen3_moe" if config.router == "softmax" else "dots1"


def hub_config(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """config.json as transformers, vLLM and llama.cpp read it.

    ConfigError for a model that no class computes: it has no form that other programs load without its code.
    """
    c = config
    kind = model_type(c)
    if kind is None:
        raise ConfigError(
            f'family "{c.family}": no class of the Hub computes {", ".join(c.classless_choices)}; '
            'train with family = "portable" for a model that other programs load'
        )
    return {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": dtype,
        "head_dim": c.head_dim,
        "hidden_act": "xielu" if kind == "apertus" else "silu",
        "hidden_size": c.width,
        "intermediate_size": c.mlp_width,
        "max_position_embeddings": c.context,
        "num_attention_heads": c.num_heads,
        "num_hidden_layers": c.depth,
        "num_key_value_heads": c.num_kv_heads,
        "rms_norm_eps": c.norm_eps,
        **_rope_table(c, kind),
        "tie_word_embeddings": c.tie_embeddings,
        "vocab_size": c.vocab_size,
        **_expert_table(c, kind),
        **(_window_table(c) if kind == "mellum" else {}),
    }


def _rope_table(config: ModelConfig, kind: str) -> dict[str, Any]:
    """Rotary positions. Apertus and Mellum have defaults of their own for what config.json leaves out."""
    table = hub_rope(config.rope_base, config.rope_scaling)
    if kind not in {"apertus", "mellum"}:
        return table
    fields = {"rope_type": "default", "rope_theta": config.rope_base} | table.get("rope_scaling", {})
    # Apertus: older readers take the base from beside the table.
    return {"rope_parameters": {_FULL: fields, _SLIDING: fields}} if kind == "mellum" else {"rope_parameters": fields}


def _window_table(config: ModelConfig) -> dict[str, Any]:
    """The keys of Mellum. `window_pattern` is ours: layer_types say the same, layer by layer."""
    c = config
    layers = range(c.depth)
    return {
        "sliding_window": c.window,
        "window_pattern": c.window_pattern,
        "layer_types": [_FULL if window is None else _SLIDING for window in c.windows],
        "mlp_layer_types": ["sparse" if c.has_experts(layer) else "dense" for layer in layers],
    }


def _expert_table(config: ModelConfig, kind: str) -> dict[str, Any]:
    """The keys of the classes with experts. `balance` is ours: how training goes on."""
    c = config
    if c.num_experts is None:
        return {}
    table: dict[str, Any] = {
        "num_experts_per_tok": c.experts_per_token,
        "moe_intermediate_size": c.expert_width,
        "norm_topk_prob": True,
        "router_aux_loss_coef": c.balance_weight,
        "balance": c.balance,
    }
    if c.capacity_factor is not None:
        table["capacity_factor"] = c.capacity_factor  # ours as well
    if kind == "dots1":
        groups = {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0, "sliding_window": None}
        experts = {"n_routed_experts": c.num_experts, "n_shared_experts": c.shared_experts}
        return table | groups | experts | {"first_k_dense_replace": c.dense_layers}
    table["num_experts"] = c.num_experts
    if kind == "qwen3_moe":
        table |= {"decoder_sparse_step": 1, "mlp_only_layers": list(range(c.dense_layers))}
    return table


def config_from_hub(table: Mapping[str, Any], where: str) -> ModelConfig:
    """The config of a folder of the classes above; what this decoder cannot compute is refused."""
    kind = table.get("model_type")
    if kind not in CLASSES:
        expected = ", ".join(f'"{known}"' for known in CLASSES)
        raise ArtifactError(f"{where}: model_type is {kind!r}; expected one of {expected}")
    rope_table, problems = _flat_rope(table) if kind == "mellum" else (table, [])
    problems += _uncomputable(table, kind)
    base, scaling, rope_problems = rope_from_hub(rope_table)
    if problems + rope_problems:
        raise ArtifactError(f"{where}: this decoder cannot compute that model: {'; '.join(problems + rope_problems)}")
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
            norm_eps=table.get("rms_norm_eps", 1e-5 if kind == "apertus" else 1e-6),
            tie_embeddings=table.get("tie_word_embeddings", False),
            qk_norm=kind != "llama",
            activation="relu2" if kind == "apertus" else "swiglu",
            **_expert_settings(table, kind),
            **(_window_settings(table) if kind == "mellum" else {}),
        )
    except KeyError as missing:
        raise ArtifactError(f"{where}: the key {missing} is missing") from None
    except ValueError as error:
        raise ArtifactError(f"{where}: this decoder cannot compute that model: {error}") from None


def _uncomputable(table: Mapping[str, Any], kind: str) -> list[str]:
    """What differs from the one form of these classes that this decoder computes."""
    expected: dict[str, Any] = {
        "attention_bias": False, "hidden_act": "xielu" if kind == "apertus" else "silu", "mlp_bias": False,
        "use_sliding_window": False, "decoder_sparse_step": 1, "n_group": 1, "topk_group": 1,
        "routed_scaling_factor": 1.0,
    }  # fmt: skip
    if kind in {"qwen3_moe", "dots1"} or (kind == "mellum" and "sparse" in _mlp_types(table)):
        expected["norm_topk_prob"] = True
    if kind == "dots1":
        expected["sliding_window"] = None
    if kind == "mellum":
        expected["num_nextn_predict_layers"] = expected["num_mtp_layers"] = None
    # The defaults of the Hub's classes.
    missing_means: dict[str, Any] = {"norm_topk_prob": kind == "mellum", "sliding_window": 4096}
    problems = [
        f"{key} is {found!r}, expected {value!r}"
        for key, value in expected.items()
        if (found := table.get(key, missing_means.get(key, value))) != value
    ]
    dense = list(table.get("mlp_only_layers") or [])
    if dense != list(range(len(dense))):
        problems.append(f"mlp_only_layers is {dense!r}, expected the first layers")
    if kind == "mellum":
        mlp_types, layer_types = _mlp_types(table), _layer_types(table)
        if mlp_types != sorted(mlp_types):
            problems.append(f"mlp_layer_types is {mlp_types!r}, expected those that are dense first")
        if layer_types[-1:] != [_FULL] or not set(layer_types) <= {_FULL, _SLIDING}:
            problems.append(f"layer_types is {layer_types!r}, expected {_SLIDING} and {_FULL}, the last of them full")
    return problems


def _layer_types(table: Mapping[str, Any]) -> list[str]:
    return list(table.get("layer_types") or [_FULL] * int(table.get("num_hidden_layers", 1)))


def _mlp_types(table: Mapping[str, Any]) -> list[str]:
    return list(table.get("mlp_layer_types") or ["sparse"] * int(table.get("num_hidden_layers", 1)))


def _flat_rope(table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A table with the one rotary setting that all layers of a Mellum have, and why there is none."""
    nested = dict(table.get("rope_parameters") or {_SLIDING: {"rope_theta": 1e4}, _FULL: {"rope_theta": 5e5}})
    used = [nested.get(kind) for kind in sorted(set(_layer_types(table)))]
    problems = [] if all(fields == used[0] for fields in used) else ["rope_parameters differ by the type of layer"]
    return {**table, "rope_parameters": used[0]}, problems


def _window_settings(table: Mapping[str, Any]) -> dict[str, Any]:
    spelled = "".join("S" if kind == _SLIDING else "L" for kind in _layer_types(table))
    return {"window": table["sliding_window"], "window_pattern": table.get("window_pattern", spelled)}


def _expert_settings(table: Mapping[str, Any], kind: str) -> dict[str, Any]:
    has_experts = "sparse" in _mlp_types(table) if kind == "mellum" else kind in {"qwen3_moe", "dots1"}
    if not has_experts:
        return {}
    settings = {
        "experts_per_token": table["num_experts_per_tok"],
        "expert_width": table["moe_intermediate_size"],
        "capacity_factor": table.get("capacity_factor"),
        "balance_weight": table.get("router_aux_loss_coef", ModelConfig.model_fields["balance_weight"].default),
    }
    if kind == "dots1":
        return settings | {
            "num_experts": table["n_routed_experts"],
            "shared_experts": table.get("n_shared_experts") or 0,
            "dense_layers": table.get("first_k_dense_replace", 0),
            "router": "sigmoid",
            "balance": table.get("balance", "bias"),
        }
    dense = _mlp_types(table).count("dense") if kind == "mellum" else len(table.get("mlp_only_layers") or [])
    return settings | {
        # transformers writes a Mellum's own name for it.
        "num_experts": table.get("num_local_experts") or table["num_experts"],
        "dense_layers": dense,
        "balance": table.get("balance", "loss"),
    }
