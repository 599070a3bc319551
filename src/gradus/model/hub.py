"""Our parameters and settings by the names of Hub classes, and back.

| model | class |
|---|---|
| norms on queries and keys | Qwen3ForCausalLM |
| without them | LlamaForCausalLM |
| experts, router "softmax" | Qwen3MoeForCausalLM |
| experts, router "sigmoid", shared expert | Dots1ForCausalLM |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradus.core.errors import ArtifactError, ConfigError
from gradus.model.config import ModelConfig
from gradus.model.rope import hub_rope, rope_from_hub

_CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "dots1": "Dots1ForCausalLM",
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
_EXPERT_NAMES = {"expert_gate_up": ["gate_proj", "up_proj"], "expert_down": ["down_proj"]}
_OUTER_NAMES = {"embedding": "model.embed_tokens", "norm": "model.norm", "unembedding": "lm_head"}


def hub_names(config: ModelConfig, name: str) -> list[str]:
    """The Hub's tensor names for one of our parameters, in row order."""
    if name in _OUTER_NAMES:
        return [_OUTER_NAMES[name] + ".weight"]
    layer, last = name.split(".")[1], name.rpartition(".")[2]
    inside = BLOCK_NAMES.get(last)
    if inside is None:
        experts = range(config.num_experts or 0)
        inside = [f"mlp.experts.{i}.{part}.weight" for i in experts for part in _EXPERT_NAMES[last]]
    return [f"model.layers.{layer}.{part}" for part in inside]


def _model_type(config: ModelConfig) -> str:
    if config.num_experts is None:
        return "qwen3" if config.qk_norm else "llama"
    return "qwen3_moe" if config.router == "softmax" else "dots1"


def hub_config(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """config.json as transformers, vLLM and llama.cpp read it.

    ConfigError for a family that no class computes: such a model has no form that other programs load.
    """
    c = config
    if c.family != "portable":
        raise ConfigError(
            f'family "{c.family}": no class of the Hub computes this model, so it cannot be exported to other '
            'programs; train with family = "portable" for a model that can'
        )
    kind = _model_type(c)
    return {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": dtype,
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
        **_expert_table(c, kind),
    }


def _expert_table(config: ModelConfig, kind: str) -> dict[str, Any]:
    """The keys of the two classes with experts. `balance` is ours: how training goes on."""
    c = config
    table = {
        "num_experts_per_tok": c.experts_per_token,
        "moe_intermediate_size": c.expert_width,
        "norm_topk_prob": True,
        "router_aux_loss_coef": c.balance_weight,
        "balance": c.balance,
    }
    if c.capacity_factor is not None:
        table["capacity_factor"] = c.capacity_factor  # ours as well
    if kind == "qwen3_moe":
        layers = {"decoder_sparse_step": 1, "mlp_only_layers": list(range(c.dense_layers))}
        return table | layers | {"num_experts": c.num_experts}
    if kind == "dots1":
        groups = {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0, "sliding_window": None}
        experts = {"n_routed_experts": c.num_experts, "n_shared_experts": c.shared_experts}
        return table | groups | experts | {"first_k_dense_replace": c.dense_layers}
    return {}


def config_from_hub(table: Mapping[str, Any], where: str) -> ModelConfig:
    """The config of a folder of the classes above; what this decoder cannot compute is refused."""
    kind = table.get("model_type")
    if kind not in _CLASSES:
        expected = ", ".join(f'"{known}"' for known in _CLASSES)
        raise ArtifactError(f"{where}: model_type is {kind!r}; expected one of {expected}")
    problems = _uncomputable(table, kind)
    if problems:
        raise ArtifactError(f"{where}: this decoder cannot compute that model: {'; '.join(problems)}")
    base, scaling, _ = rope_from_hub(table)
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
            qk_norm=kind != "llama",
            **_expert_settings(table, kind),
        )
    except KeyError as missing:
        raise ArtifactError(f"{where}: the key {missing} is missing") from None
    except ValueError as error:
        raise ArtifactError(f"{where}: this decoder cannot compute that model: {error}") from None


def _uncomputable(table: Mapping[str, Any], kind: str) -> list[str]:
    """What differs from the one form of these classes that this decoder computes."""
    expected: dict[str, Any] = {
        "attention_bias": False, "hidden_act": "silu", "mlp_bias": False, "use_sliding_window": False,
        "decoder_sparse_step": 1, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0,
    }  # fmt: skip
    if kind in {"qwen3_moe", "dots1"}:
        expected["norm_topk_prob"] = True
    if kind == "dots1":
        expected["sliding_window"] = None
    missing_means = {"norm_topk_prob": False, "sliding_window": 4096}  # the defaults of the Hub's classes
    problems = [
        f"{key} is {found!r}, expected {value!r}"
        for key, value in expected.items()
        if (found := table.get(key, missing_means.get(key, value))) != value
    ]
    dense = list(table.get("mlp_only_layers") or [])
    if dense != list(range(len(dense))):
        problems.append(f"mlp_only_layers is {dense!r}, expected the first layers")
    return problems + rope_from_hub(table)[2]


def _expert_settings(table: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if kind not in {"qwen3_moe", "dots1"}:
        return {}
    settings = {
        "experts_per_token": table["num_experts_per_tok"],
        "expert_width": table["moe_intermediate_size"],
        "capacity_factor": table.get("capacity_factor"),
        "balance_weight": table.get("router_aux_loss_coef", ModelConfig.model_fields["balance_weight"].default),
    }
    if kind == "qwen3_moe":
        dense_layers = len(table.get("mlp_only_layers") or [])
        return settings | {
            "num_experts": table["num_experts"],
            "dense_layers": dense_layers,
            "balance": table.get("balance", "loss"),
        }
    return settings | {
        "num_experts": table["n_routed_experts"],
        "shared_experts": table.get("n_shared_experts") or 0,
        "dense_layers": table.get("first_k_dense_replace", 0),
        "router": "sigmoid",
        "balance": table.get("balance", "bias"),
    }
