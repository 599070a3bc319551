"""Exporting a model: write its files, have other programs read them, refuse whatever is not the same model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gradus.conversation.formats.hermes import HermesFormat
from gradus.core.artifact import MANIFEST, SCRATCH
from gradus.core.errors import ArtifactError, ConfigError
from gradus.engine.llamacpp_library import require_llamacpp
from gradus.model.cost import parameters
from gradus.model.reach import Reach, reach
from gradus.model.transformer import Transformer
from gradus.model.weights import load_model
from gradus.release.check_text import check_length, make_check_text, own_documents
from gradus.release.gguf_export import export_gguf
from gradus.release.k_quants import K_QUANTS, k_quants_note
from gradus.release.model_card import model_card
from gradus.release.ollama import MODELFILE, modelfile
from gradus.release.origin import Origin
from gradus.release.parity import OwnReader, Reference, loss_text, make_reference, measure_loss, prove_equal
from gradus.release.settings import MOST_NATS, ExportSettings
from gradus.release.transformers_folder import TransformersReader, write_transformers_folder
from gradus.tokenizer.loading import load_tokenizer
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.tokenizer import Tokenizer

CARD_FILE = "README.md"


def export_model(
    folder: Path, tokenizer_folder: Path, settings: ExportSettings, origin: Origin, work: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Write a model for other programs into the folder `work`; returns what was measured, for the manifest.

    Errors: ConfigError for a form that this model has not; MissingPackageError; ExportError where a program that reads
    it computes another model. On any error nothing that was written stays in `work`.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    lacking = [name for name in SPECIAL_TOKENS if name not in tokenizer.special_tokens]
    if lacking:
        raise ArtifactError(f"{tokenizer_folder}: the tokenizer lacks {', '.join(lacking)}; import the model first")
    model = load_model(folder)
    reached = reach(model.config)
    if settings.wants_gguf and not reached.has_gguf:
        raise ConfigError(
            f"{origin.name}: llama.cpp and Ollama do not run this model ({reached.llamacpp.removeprefix('no: ')}); "
            'export it with formats = ["transformers"]'
        )
    if settings.wants_gguf:
        if set(settings.gguf_types) & set(K_QUANTS):
            require_llamacpp()
        if note := k_quants_note(model.config, settings.gguf_types):
            say(note)
    _sweep(work)
    try:
        results = _written(model, tokenizer, settings, origin, work, say, reached)
    except BaseException:
        _sweep(work)
        raise
    return results


def _written(
    model: Transformer, tokenizer: Tokenizer, settings: ExportSettings, origin: Origin, work: Path,
    say: Callable[[str], None], reached: Reach,
) -> dict[str, Any]:  # fmt: skip
    documents, source = list(origin.documents), origin.text
    if not documents:
        documents, source = own_documents(), "the files of gradus itself"
    length = check_length(model.config, settings.check_tokens)
    text = make_check_text(
        tokenizer, documents, source, length=length, context=model.config.context,
        num_beginnings=settings.prompts, chats=origin.trained == "chat",
    )  # fmt: skip
    say(f"reading {length:,} tokens and answering {settings.prompts} beginnings, to compare")
    reference = make_reference(model, tokenizer, text)
    template = HermesFormat(tokenizer).chat_template
    checks: list[dict[str, Any]] = []
    if "transformers" in settings.formats:
        write_transformers_folder(work, model, tokenizer, template, getattr(torch, settings.dtype))
        if settings.dtype != "float32":
            rounded = load_model(work)
            own = OwnReader(f"weights in {settings.dtype}", rounded, tokenizer)
            checks.append({"file": "model.safetensors", **measure_loss(reference, own, MOST_NATS[settings.dtype])})
            say(loss_text(checks[-1]))
            checks.append(_check_folder(work, tokenizer, make_reference(rounded, tokenizer, text), say))
        else:
            checks.append(_check_folder(work, tokenizer, reference, say))
    files: list[dict[str, Any]] = []
    if settings.wants_gguf:
        name = settings.title or origin.name
        files, found = export_gguf(work, model, tokenizer, name, settings.gguf_types, reference, say)
        checks += found
        if "ollama" in settings.formats:
            is_chat = origin.trained == "chat"
            (work / MODELFILE).write_text(
                modelfile(files[0]["file"], settings, model.config.context, is_chat), encoding="utf-8"
            )
    results: dict[str, Any] = {
        "class": reached.kind,
        "reach": asdict(reached),
        "parameters": parameters(model.config).total,
        "trained": origin.trained,
        "check_text": source,
        "gguf": files,
        "checks": checks,
    }
    card = model_card(model.config, tokenizer, settings, origin, results)
    (work / CARD_FILE).write_text(card, encoding="utf-8")
    return results


def _check_folder(work: Path, tokenizer: Tokenizer, reference: Reference, say: Callable[[str], None]) -> dict[str, Any]:
    """The folder in transformers; the figures."""
    reader = TransformersReader(work)
    say(f"{reader.name} reads it as {reader.class_name}")
    figures = {"file": "model.safetensors", "class": reader.class_name, **prove_equal(reference, reader)}
    reader.check_template(HermesFormat(tokenizer))
    say(f"logits equal to {figures['largest_difference']:.1e}, greedy text too")
    return figures


def _sweep(work: Path) -> None:
    """Take back what was written."""
    for path in work.iterdir():
        if path.name in {SCRATCH, MANIFEST}:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
