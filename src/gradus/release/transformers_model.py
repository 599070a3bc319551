"""A model folder of transformers, of the classes in model/hub.py, as a model of ours.

Weights come from model.safetensors, or from several files with their index; files that need unpickling are refused.
The vocabulary may have to grow by the control tokens of conversations: a new row of embedding and head is the mean of
the others, so that a new token begins as an average one (Hewitt 2021, "Initializing new word embeddings").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gradus.core.errors import ArtifactError
from gradus.model.rows import RowSource
from gradus.model.tensor_files import TensorFiles, index_file
from gradus.model.transformer import Transformer
from gradus.model.weights import WEIGHTS_FILE, from_stored, load_config

_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


def read_transformers_model(folder: Path, vocab_size: int) -> Transformer:
    """The model of a folder in fp32, its vocabulary at least `vocab_size`.

    Errors: ArtifactError for what is missing, damaged, or not computed by this decoder.
    """
    config = load_config(folder)
    _refuse_pickled(folder)
    missing = max(0, vocab_size - config.vocab_size)
    with torch.device("meta"):
        model = Transformer(config.model_copy(update={"vocab_size": config.vocab_size + missing}))
    model.to_empty(device="cpu")
    with TensorFiles(folder, WEIGHTS_FILE) as files:
        tensors: Mapping[str, RowSource] = files
        if missing:
            grown = {name: with_mean_rows(files[name][...], missing) for name in _VOCABULARY if name in files}
            tensors = {**files, **grown}
        from_stored(model, tensors, str(folder))
    return model


def with_mean_rows(rows: Tensor, count: int) -> Tensor:
    """(V, D) to (V + count, D): new rows are the mean of the others."""
    mean = rows.float().mean(dim=0, keepdim=True)
    return torch.cat([rows.float(), mean.expand(count, -1)])


def _refuse_pickled(folder: Path) -> None:
    """Errors: ArtifactError where the weights are only there as files that run code when they are opened."""
    if (folder / WEIGHTS_FILE).is_file() or (folder / index_file(WEIGHTS_FILE)).is_file():
        return
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickled:
        raise ArtifactError(
            f"{folder}: no {WEIGHTS_FILE}; {pickled[0]} would have to be unpickled, which can run a stranger's code: "
            "save the model again with save_pretrained(..., safe_serialization=True)"
        )
