"""The GGUF files of an export: each written, read back, and run by llama.cpp where it is installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradus.core.machine import package_version
from gradus.engine.llamacpp_library import has_llamacpp
from gradus.model.portable import portable_form
from gradus.model.transformer import Transformer
from gradus.release.gguf_file import read_gguf, require_gguf, split_name, write_gguf
from gradus.release.k_quants import K_QUANTS, tensor_types, write_k_quant
from gradus.release.llamacpp_reader import llamacpp_reader
from gradus.release.parity import OwnReader, Reader, Reference, loss_text, measure_loss, prove_equal
from gradus.release.settings import MOST_NATS, GgufType
from gradus.tokenizer.tokenizer import Tokenizer

_PROOF_FILE = "proof.gguf"


def gguf_name(name: str, kind: GgufType) -> str:
    """The file name of a model in a type, as the Hub's readers know them: NAME-Q8_0.gguf."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    return f"{stem}-{kind.upper()}.gguf"


def export_gguf(
    work: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    name: str,
    kinds: tuple[GgufType, ...],
    reference: Reference,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write a file for each type; returns the files with their types, and the figures of all who read them.

    Errors: MissingPackageError; ConfigError for a tokenizer or a shape that GGUF has no form for; ExportError.
    """
    require_gguf()
    split_name(tokenizer)
    portable = portable_form(model)
    assert portable is not None, "who calls has asked for the reach of the model"
    longest = max(len(reference.text.row), model.config.context)
    proof = work / _PROOF_FILE
    checks = []
    if has_llamacpp():
        write_gguf(proof, portable, tokenizer, "f32", name)
        checks.append(_prove(proof, reference, longest, say))
    else:
        say('llama.cpp is not installed here, so it was not asked: pip install "gradus[llamacpp]", and export again')
    files = []
    for kind in kinds:
        path = work / gguf_name(name, kind)
        facts: dict[str, Any] = {"file": path.name, "type": kind}
        if kind in K_QUANTS:
            write_k_quant(proof, path, kind)
            facts["matrices"] = tensor_types(path)
            types = ", ".join(f"{count} of {name}" for name, count in facts["matrices"].items())
            say(f"{path.name}: matrices are {types}")
        else:
            write_gguf(path, portable, tokenizer, kind, name)
        back = OwnReader(f"gguf {package_version('gguf')}", read_gguf(path, portable.config), tokenizer)
        checks.append(_compare(path, kind, back, reference, say))
        if has_llamacpp():
            with llamacpp_reader(path, longest) as reader:
                checks.append(_compare(path, kind, reader, reference, say))
        files.append({**facts, "bytes": path.stat().st_size})
    proof.unlink(missing_ok=True)
    return files, checks


def _prove(path: Path, reference: Reference, longest: int, say: Callable[[str], None]) -> dict[str, Any]:
    """That llama.cpp computes this model, by a file in fp32 that does not stay."""
    with llamacpp_reader(path, longest) as reader:
        figures = prove_equal(reference, reader)
    say(f"{figures['reader']}: logits equal to {figures['largest_difference']:.1e} in fp32, greedy text too")
    return {"file": "the model in fp32", **figures}


def _compare(
    path: Path, kind: GgufType, reader: Reader, reference: Reference, say: Callable[[str], None]
) -> dict[str, Any]:
    figures = {"file": path.name, "type": kind}
    if kind == "f32":
        return figures | prove_equal(reference, reader)
    figures |= measure_loss(reference, reader, MOST_NATS[kind])
    say(loss_text(figures))
    return figures
