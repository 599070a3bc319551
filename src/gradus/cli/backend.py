"""`--backend` and `--dtype`: a model found by its name, brought up by who is to compute it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gradus.core.errors import ConfigError
from gradus.core.home import GGUF_CACHE
from gradus.model.precision import Backend, DecodePrecision
from gradus.roadmap.models import ModelReference, resolve_model

if TYPE_CHECKING:
    from gradus.engine.engine import Engine
    from gradus.release.settings import GgufType
    from gradus.tools.toolbox import ToolBox

_TYPES: dict[DecodePrecision, GgufType] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "q8_0"}


def find_model(reference: str, home: Path) -> ModelReference:
    """The model that a reference means: a GGUF file, or as `resolve_model`. Errors: ArtifactError."""
    file = Path(reference).expanduser()
    return ModelReference(file, file, file.name) if is_gguf(file) else resolve_model(reference, home)


def is_gguf(path: Path) -> bool:
    """Whether a model is a file for llama.cpp."""
    return path.suffix == ".gguf" and not path.is_dir()


def open_engine(
    model: ModelReference,
    home: Path,
    *,
    backend: Backend | None,
    precision: DecodePrecision | None,
    usual: DecodePrecision,
    toolbox: ToolBox | None = None,
    device: str = "cpu",
    compile: bool = False,
) -> tuple[Engine, str]:
    """An engine on a model, and what its weights are in and who computes them.

    backend: None for llamacpp where the model is a GGUF file, else torch. precision: None for `usual`. compile: as of
    `load_engine`. Errors: ConfigError where these do not go together; as `load_engine`, `cached_gguf` and
    `load_gguf_engine`.
    """
    from gradus.engine.load import load_engine, load_gguf_engine, settled_precision

    if is_gguf(model.folder):
        if backend == "torch":
            raise ConfigError(f"--backend torch: {model.label} is a file for llama.cpp; name the model it was made of")
        if precision not in (None, "auto"):
            raise ConfigError(
                f"--dtype {precision}: {model.label} has the weights that it was exported with; leave --dtype out"
            )
    if backend == "llamacpp" or is_gguf(model.folder):
        if device != "cpu":
            raise ConfigError(f"--device {device}: llama.cpp computes on the processor here; use the backend torch")
        if compile:
            raise ConfigError("--compile: llama.cpp is compiled already; leave --compile out, or use the backend torch")
    if is_gguf(model.folder):
        from gradus.release.gguf_tokenizer import gguf_tokenizer

        return load_gguf_engine(model.folder, gguf_tokenizer(model.folder), toolbox=toolbox), "llama.cpp"
    settled = settled_precision(precision or usual, model.folder, device, backend or "torch")
    if backend != "llamacpp":
        found = load_engine(
            model.folder,
            tokenizer_folder=model.tokenizer,
            device=device,
            precision=settled,
            toolbox=toolbox,
            compile=compile,
        )
        return found, settled
    from gradus.release.gguf_cache import cached_gguf
    from gradus.tokenizer.loading import load_tokenizer

    def say(text: str) -> None:
        typer.echo(text, err=True)

    tokenizer = load_tokenizer(model.tokenizer)
    file = cached_gguf(model.folder, model.tokenizer, _TYPES[settled], home / GGUF_CACHE, say)
    return load_gguf_engine(file, tokenizer, toolbox=toolbox), f"{settled} by llama.cpp"
