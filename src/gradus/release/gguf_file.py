"""A model as a GGUF file, for llama.cpp and what is built on it; and the weights of such a file as a model of ours.

Names, keys and layouts are those of llama.cpp's own conversion. Norms and routers are in fp32 in every file; below 8
bits the embedding and the head have 8. K-quants are made by llama.cpp (k_quants.py): the gguf package only reads them.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradus.conversation.formats.hermes_template import HERMES_TEMPLATE
from gradus.core.errors import ConfigError, MissingPackageError
from gradus.model.config import ModelConfig
from gradus.model.hub import XIELU, model_type
from gradus.model.transformer import Transformer
from gradus.release.settings import GgufType
from gradus.tokenizer.patterns import GPT2_PATTERN, PATTERNS
from gradus.tokenizer.specials import END_OF_TEXT, IM_END
from gradus.tokenizer.tokenizer import Tokenizer, plain_pattern

if TYPE_CHECKING:
    import gguf

_ARCHITECTURES = {"qwen3_moe": "qwen3moe"}  # others have the name of their class
# llama.cpp's name of a split pattern; its own expressions, which every export compares by their ids.
SPLITS = {PATTERNS["qwen2"]: "qwen2", PATTERNS["cl100k"]: "llama-bpe", GPT2_PATTERN: "gpt-2"}
_OUTER = {"embedding": "token_embd", "norm": "output_norm", "unembedding": "output"}
# Inside a layer: our parameter and the names of its row parts.
_INNER = {
    "attention_norm": ["attn_norm"], "qkv": ["attn_q", "attn_k", "attn_v"], "query_norm": ["attn_q_norm"],
    "key_norm": ["attn_k_norm"], "out": ["attn_output"], "mlp_norm": ["ffn_norm"], "gate_up": ["ffn_gate", "ffn_up"],
    "up": ["ffn_up"], "down": ["ffn_down"], "router": ["ffn_gate_inp"],
    "shared_gate_up": ["ffn_gate_shexp", "ffn_up_shexp"], "shared_down": ["ffn_down_shexp"],
}  # fmt: skip
_OWN_HEAD = {"dots1", "apertus", "mellum"}  # classes whose head llama.cpp wants by itself, tied or not
_LOW_BITS = {"q4_0", "q4_1", "q5_0", "q5_1"}


def require_gguf() -> None:
    """Errors: MissingPackageError."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingPackageError("gguf", "export")


def split_name(tokenizer: Tokenizer) -> str:
    """llama.cpp's name of how a tokenizer splits text. Errors: ConfigError where it has none."""
    pattern = plain_pattern(json.loads(tokenizer.to_json()))
    if pattern not in SPLITS:
        known = ", ".join(f'"{name}"' for name, text in PATTERNS.items() if text in SPLITS)
        raise ConfigError(
            "llama.cpp has no split like this tokenizer's, and would read other ids; only a tokenizer with pattern "
            f"{known} can go there: the model itself must be trained with one"
        )
    return SPLITS[pattern]


def write_gguf(path: Path, model: Transformer, tokenizer: Tokenizer, kind: GgufType, name: str) -> None:
    """Write a model in portable form. Errors: ConfigError where its rows do not divide into blocks of that type."""
    import gguf

    config = model.config
    architecture = _architecture(config)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    for tensor_name, tensor in _named_tensors(model):
        stored = _stored_type(tensor_name, tensor, kind)
        block = gguf.GGML_QUANT_SIZES[stored][0]
        if tensor.shape[-1] % block:
            raise ConfigError(
                f"{tensor_name} has rows of {tensor.shape[-1]} values, and {kind} packs {block} together; choose f16"
            )
        rows = gguf.quants.quantize(tensor.float().contiguous().numpy(), stored)
        writer.add_tensor(tensor_name, rows, raw_dtype=stored)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read_gguf(path: Path, config: ModelConfig) -> Transformer:
    """The weights of such a file, in fp32, as a model of this shape."""
    import gguf

    found: dict[str, Tensor] = {}
    for entry in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(entry.data, entry.tensor_type)
        found[entry.name] = torch.from_numpy(values.copy()).reshape(entry.shape.tolist()[::-1])
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parts = [_turned_back(part, found[part], config) for part in _names(config, name)]
            if name.endswith("expert_gate_up"):
                parameter.copy_(torch.cat(parts, dim=1).flatten(0, 1))
            else:
                parameter.copy_(torch.cat([part.reshape(-1, *parameter.shape[1:]) for part in parts]))
    return model


def _architecture(config: ModelConfig) -> str:
    kind = model_type(config)
    assert kind is not None, "a model in portable form has a class"
    return _ARCHITECTURES.get(kind, kind)


def _names(config: ModelConfig, name: str) -> list[str]:
    """The tensor names of one of our parameters."""
    if name in _OUTER:
        return [f"{_OUTER[name]}.weight"]
    layer, last = name.split(".")[1], name.rpartition(".")[2]
    if last == "router_bias":
        return [f"blk.{layer}.exp_probs_b.bias"]
    if last == "expert_gate_up":
        return [f"blk.{layer}.ffn_gate_exps.weight", f"blk.{layer}.ffn_up_exps.weight"]
    if last == "expert_down":
        return [f"blk.{layer}.ffn_down_exps.weight"]
    return [f"blk.{layer}.{part}.weight" for part in _INNER[last]]


def _named_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by its name, in its shape: experts as (experts, rows, columns)."""
    c, splits = model.config, model.row_splits()
    for name, parameter in model.named_parameters():
        value, names = parameter.detach(), _names(c, name)
        if name.endswith("expert_gate_up"):
            value = value.view(c.num_experts or 0, 2, -1, c.width)
            yield from zip(names, (value[:, 0], value[:, 1]), strict=True)
        elif name.endswith("expert_down"):
            yield names[0], value.view(c.num_experts or 0, c.width, -1)
        else:
            sizes = splits.get(name, [len(value)])
            for part_name, part in zip(names, torch.split(value, sizes), strict=True):
                yield part_name, _turned(part_name, part, c)
    if c.tie_embeddings and model_type(c) in _OWN_HEAD:
        yield "output.weight", model.embedding.detach()


def _turned(name: str, rows: Tensor, config: ModelConfig) -> Tensor:
    """Llama's rotary pairs are neighbours in llama.cpp, (2 i, 2 i + 1), where ours and the Hub's are (i, i + D/2)."""
    if model_type(config) != "llama" or not name.endswith(("attn_q.weight", "attn_k.weight")):
        return rows
    return rows.view(-1, 2, config.head_dim // 2, config.width).transpose(1, 2).reshape(rows.shape)


def _turned_back(name: str, rows: Tensor, config: ModelConfig) -> Tensor:
    if model_type(config) != "llama" or not name.endswith(("attn_q.weight", "attn_k.weight")):
        return rows
    return rows.view(-1, config.head_dim // 2, 2, config.width).transpose(1, 2).reshape(rows.shape)


def _stored_type(name: str, tensor: Tensor, kind: GgufType) -> gguf.GGMLQuantizationType:
    import gguf

    if tensor.ndim == 1 or name.endswith("ffn_gate_inp.weight"):
        return gguf.GGMLQuantizationType.F32
    if kind in _LOW_BITS and name in {"token_embd.weight", "output.weight"}:
        return gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType[kind.upper()]


def _add_shape(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    c = config
    writer.add_block_count(c.depth)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.mlp_width)
    writer.add_head_count(c.num_heads)
    writer.add_head_count_kv(c.num_kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_vocab_size(c.vocab_size)
    if c.rope_scaling is not None:
        _add_yarn(writer, config)
    if c.activation == "relu2":
        for add, name in (
            (writer.add_xielu_alpha_p, "alpha_p"), (writer.add_xielu_alpha_n, "alpha_n"),
            (writer.add_xielu_beta, "beta"), (writer.add_xielu_eps, "eps"),
        ):  # fmt: skip
            add([XIELU[name][0]] * c.depth)
    if c.window is not None:
        writer.add_sliding_window(c.window)
        writer.add_sliding_window_pattern([window is not None for window in c.windows])
        writer.add_rope_freq_base_swa(c.rope_base)
    if c.num_experts is not None:
        _add_experts(writer, config)


def _add_yarn(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    import gguf

    scaling = config.rope_scaling
    assert scaling is not None
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(scaling.factor)
    writer.add_rope_scaling_orig_ctx_len(scaling.original_context)
    writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
    writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)
    if scaling.attention_factor is not None:
        # llama.cpp multiplies YaRN's own magnitude by this one.
        writer.add_rope_scaling_attn_factors(scaling.attention_factor / scaling.usual_magnitude)


def _add_experts(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    import gguf

    c = config
    assert c.num_experts is not None
    assert c.expert_width is not None
    writer.add_expert_count(c.num_experts)
    writer.add_expert_used_count(c.experts_per_token)
    writer.add_expert_feed_forward_length(c.expert_width)
    if model_type(c) == "dots1":
        writer.add_leading_dense_block_count(c.dense_layers)
        writer.add_expert_shared_count(c.shared_experts)
        writer.add_expert_weights_scale(1.0)
        writer.add_expert_weights_norm(True)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Vocabulary, merges, the control tokens' ids and kinds, and the chat template."""
    import gguf

    data: dict[str, Any] = json.loads(tokenizer.to_json())
    controls = {int(token["id"]): token for token in data["added_tokens"]}
    texts = {int(number): text for text, number in data["model"]["vocab"].items()}
    texts |= {number: token["content"] for number, token in controls.items()}
    names, kinds = [], []
    for number in range(vocab_size):
        names.append(texts.get(number, f"[PAD{number}]"))
        if number in controls:
            # As in Qwen's files: what a reader must see in an answer is no control token.
            hidden = controls[number]["special"]
            kinds.append(gguf.TokenType.CONTROL if hidden else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL if number in texts else gguf.TokenType.UNUSED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(tokenizer))
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.special(END_OF_TEXT))
    writer.add_eos_token_id(tokenizer.special(IM_END))
    writer.add_eot_token_id(tokenizer.special(IM_END))
    writer.add_pad_token_id(tokenizer.special(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_chat_template(HERMES_TEMPLATE)
