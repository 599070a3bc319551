"""An engine from a model folder: config.json, model.safetensors and the tokenizer's files."""

from __future__ import annotations

from pathlib import Path

import torch

from gradus.conversation.formats.table import conversation_format
from gradus.engine.decoding import MAX_BATCH
from gradus.engine.engine import Engine
from gradus.model.frozen import freeze
from gradus.model.weights import load_model
from gradus.tokenizer.loading import load_tokenizer
from gradus.tools.toolbox import ToolBox


def load_engine(
    folder: Path | str,
    *,
    tokenizer_folder: Path | str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    form: str = "hermes",
    int8: bool = False,
    toolbox: ToolBox | None = None,
    max_batch: int = MAX_BATCH,
) -> Engine:
    """The engine of a model folder; ArtifactError, ConfigError or DataError where parts lack or do not fit.

    tokenizer_folder: where the tokenizer lies, None beside the model (a training checkpoint has none).
    dtype: what it computes in; fp32 gives the same answers in every batch, bf16 is faster. int8: weights in 8 bits, on
    a CPU, with dtype bf16: twice as fast again, and not exactly the same model. toolbox: tools
    to run, None for all that gradus has.
    """
    folder = Path(folder)
    tokenizer = load_tokenizer(tokenizer_folder or folder)
    model = load_model(folder, device=device, dtype=dtype)
    freeze(model, int8=int8)
    return Engine(model, tokenizer, conversation_format(form, tokenizer), toolbox or ToolBox(), max_batch)
