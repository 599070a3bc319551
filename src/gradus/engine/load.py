"""An engine from a model folder: config.json, model.safetensors and the tokenizer's files."""

from __future__ import annotations

from pathlib import Path

import torch

from gradus.conversation.formats.table import conversation_format
from gradus.core.artifact import MANIFEST, remedy
from gradus.core.errors import ArtifactError, ConfigError
from gradus.core.machine import bf16_instructions
from gradus.engine.compiled import compile_steps
from gradus.engine.decoding import MAX_BATCH
from gradus.engine.engine import Engine
from gradus.engine.llamacpp import LlamaCppModel
from gradus.model.cost import parameters
from gradus.model.frozen import freeze, packs_bf16
from gradus.model.mps import mps_problem
from gradus.model.precision import Backend, DecodePrecision
from gradus.model.weights import load_config, load_model
from gradus.tokenizer.loading import load_tokenizer
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tools.toolbox import ToolBox

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FEW_PARAMETERS = 4_000_000  # which a processor's cache holds: narrow weights gain nothing


def load_engine(
    folder: Path | str,
    *,
    tokenizer_folder: Path | str | None = None,
    device: torch.device | str = "cpu",
    precision: DecodePrecision = "fp32",
    form: str = "hermes",
    toolbox: ToolBox | None = None,
    max_batch: int = MAX_BATCH,
    compile: bool = False,
) -> Engine:
    """The engine of a model folder; ArtifactError, ConfigError or DataError where parts lack or do not fit.

    tokenizer_folder: where the tokenizer lies, None beside the model (a training checkpoint has none). precision: of
    the weights; fp32 gives the same answers in every batch. toolbox: tools to run, None for all that gradus has.
    compile: decoding steps are compiled (compiled.py), which takes a while; answers are then the same up to rounding.
    """
    folder, device = Path(folder), _usable(device)
    try:
        tokenizer = load_tokenizer(tokenizer_folder or folder)
        precision = settled_precision(precision, folder, device)
        model = load_model(folder, device=device, dtype=_DTYPES.get(precision, torch.float32))
    except ArtifactError as error:
        if (folder.parent / MANIFEST).is_file():  # a walk made it, and can again
            raise ArtifactError(f"{error}; {remedy(folder.parent)}") from error
        raise
    freeze(model, int8=precision == "int8")
    if compile:
        compile_steps(model)
    return Engine(model, tokenizer, conversation_format(form, tokenizer), toolbox or ToolBox(), max_batch)


def _usable(asked: torch.device | str) -> torch.device:
    """The device of a name. Errors: ConfigError where there is none of that name, or none here."""
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda", "mps"}:
        raise ConfigError(f'no device "{asked}"; expected cpu, cuda, cuda:1 or mps')
    problem = mps_problem() if device.type == "mps" else None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            problem = f"torch sees {found or 'no'} CUDA device{'' if found == 1 else 's'} here"
    if problem:
        raise ConfigError(f"device {asked}: {problem}; take cpu")
    return device


def load_gguf_engine(
    file: Path,
    tokenizer: Tokenizer,
    *,
    form: str = "hermes",
    toolbox: ToolBox | None = None,
    max_batch: int = MAX_BATCH,
) -> Engine:
    """The engine of a GGUF file, which llama.cpp computes on the processor.

    Errors: MissingPackageError without llama.cpp; GenerationError where it does not load the file; ConfigError and
    DataError where file and tokenizer do not fit.
    """
    return Engine(LlamaCppModel(file), tokenizer, conversation_format(form, tokenizer), toolbox or ToolBox(), max_batch)


def settled_precision(
    asked: DecodePrecision, folder: Path, device: torch.device | str = "cpu", backend: Backend = "torch"
) -> DecodePrecision:
    """What "auto" means for this model on this machine: the fastest whose answers are the model's own, never int8.

    By what the machine can do and the model's size, not by a clock: the same every time. Errors: as `load_engine`.
    """
    if asked != "auto":
        return asked
    kind = _usable(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    is_small = parameters(load_config(folder)).total < _FEW_PARAMETERS
    packs = backend == "llamacpp" or packs_bf16()
    return "bf16" if kind == "cpu" and not is_small and packs and bf16_instructions() else "fp32"
