"""A model folder of transformers (Qwen3ForCausalLM, LlamaForCausalLM) as a model of ours.

Weights come from model.safetensors, or from several files with their index; files that need unpickling are refused.
The vocabulary may have to grow by the control tokens of conversations: a new row of embedding and head is the mean of
the others, so that a new token begins as an average one (Hewitt 2021, "Initializing new word embeddings").
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gradus.core.errors import ArtifactError
from gradus.model.transformer import Transformer
from gradus.model.weights import WEIGHTS_FILE, from_hub, load_config

INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


def read_transformers_model(folder: Path, vocab_size: int) -> Transformer:
    """The model of a folder in fp32, its vocabulary at least `vocab_size`.

    Errors: ArtifactError for what is missing, damaged, or not computed by this decoder.
    """
    config = load_config(folder)
    tensors = _tensors(folder)
    missing = vocab_size - config.vocab_size
    if missing > 0:
        config = config.model_copy(update={"vocab_size": vocab_size})
        for name in _VOCABULARY:
            if name in tensors:
                tensors[name] = _grown(tensors[name], missing)
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cpu")
    from_hub(model, tensors, str(folder))
    return model


def _grown(rows: Tensor, count: int) -> Tensor:
    """(V, D) to (V + count, D): new rows are the mean of the others."""
    mean = rows.float().mean(dim=0, keepdim=True)
    return torch.cat([rows.float(), mean.expand(count, -1)])


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Errors: ArtifactError where there are none, or the index is damaged."""
    whole, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if whole.is_file():
        return [whole]
    if not index.is_file():
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        hint = (
            f"; {pickled[0]} would have to be unpickled, which can run a stranger's code: save the model again with "
            "save_pretrained(..., safe_serialization=True)"
            if pickled
            else ""
        )
        raise ArtifactError(f"{folder}: no {WEIGHTS_FILE} and no {INDEX_FILE}{hint}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ArtifactError(f"{index}: not an index of weights") from None
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise ArtifactError(f"{folder}: the index names {name}, which is not there; download the model again")
    return [folder / name for name in names]


def _tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            tensors |= load_file(path)
        except SafetensorError as error:
            raise ArtifactError(f"{path}: damaged: {error}; download the model again") from None
    return tensors
