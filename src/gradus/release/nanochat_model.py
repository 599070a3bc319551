"""A checkpoint of nanochat (model_NNNNNN.pt with meta_NNNNNN.json) as a model of ours, of the same function.

Our decoder has nearly all of nanochat's parts. What differs moves into the weights:
- nanochat normalises the embedding: its rows are stored normalised;
- its norms have no weights: ours are one, and those of queries and keys are its factor of 1.2;
- it turns queries and keys the other way round: the halves of each head's rows are swapped;
- it pads the vocabulary: the padding is dropped.
The function is the same, training from there on is not: our norm weights learn, and the embedding is not normalised
anew.
The .pt file is read with torch's weights-only unpickler, which builds tensors and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from gradus.core.errors import ArtifactError, ConfigError
from gradus.model.config import ModelConfig, model_config
from gradus.model.kernels import rms_norm
from gradus.model.transformer import Transformer
from gradus.model.weights import from_stored
from gradus.release.transformers_model import with_mean_rows

TOKENIZER_PICKLE = "tokenizer.pkl"
_MODEL = re.compile(r"model_(\d{6})\.pt")
_SIZES = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
# What nanochat's code fixes (nanochat/gpt.py).
_ROPE_BASE, _SOFTCAP, _HEAD_SCALE = 100_000.0, 15.0, 1.2
_EPS = torch.finfo(torch.float32).eps
_HEAD = ("transformer.wte.weight", "lm_head.weight")
_IN_LAYERS = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_TABLES = ("embedding", "unembedding", "value_embedding")  # our last names of what has a row for each token
_TILE = 128  # short windows are a quarter of the context, in whole tiles


def nanochat_steps(folder: Path) -> list[int]:
    """The steps of nanochat checkpoints in a folder, ascending; [] where it is no such folder."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(found[1]) for name in names if (found := _MODEL.fullmatch(name)))


def refuse_pickled_tokenizer(folder: Path) -> None:
    """Errors: ArtifactError where the tokenizer is only there as nanochat keeps it, which is never opened."""
    if (folder / "tokenizer.json").is_file():
        return
    where = f" ({TOKENIZER_PICKLE} would have to be unpickled, which can run a stranger's code)"
    raise ArtifactError(
        f"{folder}: no tokenizer.json beside the checkpoint{where if (folder / TOKENIZER_PICKLE).exists() else ''}; "
        "where you trust your own tokenizer.pkl, write one as docs/continuing.md shows and put it into this folder"
    )


def read_nanochat_model(folder: Path, own_tokens: int, vocab_size: int) -> Transformer:
    """The newest checkpoint of a folder in fp32, its vocabulary grown to `vocab_size`.

    own_tokens: of the tokenizer beside it. Errors: ArtifactError for what is missing, damaged, or of another version of
    nanochat, and where the tokenizer is not the checkpoint's.
    """
    step = nanochat_steps(folder)[-1]
    config = _config(folder / f"meta_{step:06d}.json")
    if own_tokens != config.vocab_size:
        raise ArtifactError(
            f"{folder}: tokenizer.json has {own_tokens:,} tokens and the checkpoint {config.vocab_size:,}; expected "
            "the tokenizer that it was trained with"
        )
    path = folder / f"model_{step:06d}.pt"
    tensors = _ours(_state(path), config, str(path))
    missing = max(0, vocab_size - config.vocab_size)
    if missing:
        config = config.model_copy(update={"vocab_size": vocab_size})
        tables = [name for name in tensors if name.rpartition(".")[2] in _TABLES]
        tensors |= {name: with_mean_rows(tensors[name], missing) for name in tables}
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cpu")
    from_stored(model, tensors, str(path))
    return model


def _config(meta: Path) -> ModelConfig:
    """Our config of a meta file's sizes."""
    try:
        table: dict[str, Any] = json.loads(meta.read_text(encoding="utf-8"))["model_config"]
        size = {key: int(table[key]) for key in _SIZES}
        # Checkpoints from before there were windows attend to everything.
        pattern = str(table.get("window_pattern", "L")).upper()
    except FileNotFoundError:
        raise ArtifactError(f"{meta}: missing beside its model; copy both files") from None
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{meta}: not the meta file of a nanochat checkpoint") from None
    context, width = size["sequence_len"], size["n_embd"]
    # nanochat counts the tokens before the one that attends, ours counts that one too.
    window = -(-context // (4 * _TILE)) * _TILE + 1
    spec = {
        "family": "custom",
        "depth": size["n_layer"],
        "width": width,
        "num_heads": size["n_head"],
        "num_kv_heads": size["n_kv_head"],
        "head_dim": width // max(1, size["n_head"]),
        "mlp_width": 4 * width,
        "activation": "relu2",
        "rope_base": _ROPE_BASE,
        "norm_eps": _EPS,
        "residual_scalars": True,
        "value_embeddings": True,
        "smear": True,
        "backout": True,
        "softcap": _SOFTCAP,
    }
    if "S" in pattern:
        spec |= {"window_pattern": pattern, "window": window}
    try:
        return model_config(spec, size["vocab_size"], context)
    except ConfigError as error:
        raise ArtifactError(f"{meta}: {error}") from None


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pt file in fp32, by nanochat's names. Errors: ArtifactError."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path}: not a file of tensors alone, or damaged ({reason}); it is not opened") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ArtifactError(f"{path}: expected tensors by name, as nanochat saves them")
    # torch.compile puts a prefix before the names.
    return {str(name).removeprefix("_orig_mod."): tensor.float() for name, tensor in found.items()}


def _ours(state: Mapping[str, Tensor], config: ModelConfig, where: str) -> dict[str, Tensor]:
    """The weights by our names. Errors: ArtifactError naming what is missing or not known."""
    known = _their_names(config)
    problems = [f"{name} is missing" for name in known if name not in state]
    problems += [f"{name} is not known" for name in sorted(state.keys() - set(known))]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ArtifactError(f"{where}: saved by another version of nanochat than is read here: {shown}")
    if flat := [name for name in known if state[name].ndim == 0]:
        raise ArtifactError(f"{where}: {flat[0]} is a single number; the file is damaged")
    tables = {name: state[name][: config.vocab_size] for name in known if name in _HEAD or "value_embeds" in name}
    ones, heads = torch.ones(config.width), torch.full((config.head_dim,), _HEAD_SCALE)
    found = {
        "embedding": rms_norm(tables["transformer.wte.weight"], config.norm_eps),
        "unembedding": tables["lm_head.weight"],
        "norm": ones,
        "smear_gate": state["smear_gate.weight"],
        "smear_scale": state["smear_lambda"],
        "backout_scale": state["backout_lambda"],
    }
    for layer in range(config.depth):
        theirs = {kind: state[f"transformer.h.{layer}.{kind}.weight"] for kind in _IN_LAYERS}
        turned = [_swapped(theirs[f"attn.{kind}"], config.head_dim) for kind in ("c_q", "c_k")]
        ours = {
            "attention_norm": ones,
            "qkv": torch.cat([*turned, theirs["attn.c_v"]]),
            "query_norm": heads,
            "key_norm": heads,
            "out": theirs["attn.c_proj"],
            "mlp_norm": ones,
            "up": theirs["mlp.c_fc"],
            "down": theirs["mlp.c_proj"],
            "residual_scale": state["resid_lambdas"][layer : layer + 1],
            "start_scale": state["x0_lambdas"][layer : layer + 1],
        }
        if config.has_value_embedding(layer):
            ours["value_embedding"] = tables[f"value_embeds.{layer}.weight"]
            ours["value_gate"] = state[f"transformer.h.{layer}.attn.ve_gate.weight"]
        found |= {f"blocks.{layer}.{name}": tensor for name, tensor in ours.items()}
    return found


def _their_names(config: ModelConfig) -> list[str]:
    """What nanochat calls the weights of a model of this shape."""
    names = [*_HEAD, "resid_lambdas", "x0_lambdas", "smear_gate.weight", "smear_lambda", "backout_lambda"]
    for layer in range(config.depth):
        names += [f"transformer.h.{layer}.{kind}.weight" for kind in _IN_LAYERS]
        if config.has_value_embedding(layer):
            names += [f"value_embeds.{layer}.weight", f"transformer.h.{layer}.attn.ve_gate.weight"]
    return names


def _swapped(weight: Tensor, head_dim: int) -> Tensor:
    """Each head's two halves of rows in the other order. weight: (heads x head_dim, width)."""
    if weight.shape[0] % head_dim:
        return weight  # of another shape than the meta file says, which is told with its name
    first, second = weight.view(-1, 2, head_dim // 2, weight.shape[1]).unbind(1)
    return torch.stack([second, first], dim=1).view(weight.shape)
