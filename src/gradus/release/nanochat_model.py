"""Checkpoints of nanochat (model_NNNNNN.pt with meta_NNNNNN.json): recognised, read without unpickling, judged.

Torch-free: the shape comes from the meta file. No family here computes nanochat's network yet, so the verdict is an
error that says what it would take.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gradus.core.errors import ArtifactError

_MODEL = re.compile(r"model_(\d{6})\.pt")
_SHAPE = ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
# What nanochat's network does and the portable family does not (nanochat/gpt.py).
_FEATURES = (
    "a norm after the embedding",
    "norms without learned weights",
    "queries and keys scaled by 1.2 after their norm",
    "ReLU^2 feed-forward without a gate",
    "a scale for each residual and for the first embedding",
    "value embeddings on alternating layers",
    "smear and backout",
    "logits capped by tanh",
)


def nanochat_steps(folder: Path) -> list[int]:
    """The steps of nanochat checkpoints in a folder, ascending; [] where it is no such folder."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(found[1]) for name in names if (found := _MODEL.fullmatch(name)))


def refuse_nanochat(folder: Path) -> None:
    """Errors: ArtifactError, always: for a damaged folder what is wrong, else which parts no family here computes."""
    step = nanochat_steps(folder)[-1]
    shape = nanochat_shape(folder / f"meta_{step:06d}.json")
    raise ArtifactError(
        f"{folder}: a nanochat checkpoint (step {step:,}, {shape['n_layer']} layers, width {shape['n_embd']}), whose "
        f"network no family here computes: it has {', '.join(_FEATURES)}. Train from its text instead, or take a "
        "checkpoint of transformers (Qwen3 or Llama)"
    )


def nanochat_shape(meta: Path) -> dict[str, int]:
    """The sizes in a meta file. Errors: ArtifactError."""
    try:
        table: dict[str, Any] = json.loads(meta.read_text(encoding="utf-8"))["model_config"]
        return {key: int(table[key]) for key in _SHAPE}
    except FileNotFoundError:
        raise ArtifactError(f"{meta}: missing beside its model; copy both files") from None
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{meta}: not the meta file of a nanochat checkpoint") from None
