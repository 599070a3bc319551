"""The GGUF file of a model that llama.cpp is to answer with: written and compared once, then found by its name.

The name tells the artifact, the checkpoint and the type of the weights. A file gets it last, once llama.cpp has been
seen to compute the model with it, so that what a kill leaves is not taken for one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gradus.conversation.formats.table import conversation_format
from gradus.core.artifact import MANIFEST, open_artifact
from gradus.core.errors import ConfigError
from gradus.core.files import disk_full_error, fsync_file, fsync_folder, is_disk_full
from gradus.core.fingerprint import digest, file_digest
from gradus.core.lock import exclusive_lock
from gradus.engine.llamacpp_library import require_llamacpp
from gradus.model.config import ModelConfig
from gradus.model.portable import portable_form
from gradus.model.reach import reach
from gradus.model.weights import load_config, load_model
from gradus.release.check_text import make_check_text, own_documents
from gradus.release.gguf_file import require_gguf, split_name, write_gguf
from gradus.release.llamacpp_reader import llamacpp_reader
from gradus.release.parity import GREEDY_TOKENS, make_reference, measure_loss, prove_equal
from gradus.release.settings import MOST_NATS, GgufType
from gradus.tokenizer.loading import load_tokenizer

_VERSION = 1  # of what is written
_CHECK_TOKENS, _CHECK_BEGINNINGS = 512, 4


def cached_gguf(folder: Path, tokenizer_folder: Path, kind: GgufType, cache: Path, say: Callable[[str], None]) -> Path:
    """The file of a model folder in a type, from the cache or made now.

    Errors: MissingPackageError without llama.cpp or gguf; ConfigError for a model that llama.cpp does not run or a
    shape that the type cannot hold; ExportError where llama.cpp computes another model; GradusError on a full disk.
    """
    require_llamacpp()
    require_gguf()
    config = load_config(folder)
    _check_reach(config)
    file = cache / f"{_identity(folder, tokenizer_folder)}-{kind}.gguf"
    if file.is_file():
        return file
    cache.mkdir(parents=True, exist_ok=True)
    work = cache / f".{file.name}.work"
    with exclusive_lock(
        cache / f".{file.name}.lock", "", lambda text: say("another process writes this file; waiting")
    ):
        if file.is_file():
            return file
        shutil.rmtree(work, ignore_errors=True)  # what a kill left
        work.mkdir()
        try:
            say(f"writing the model for llama.cpp in {kind}, once: {file}")
            _write(folder, tokenizer_folder, kind, work / file.name, say)
            fsync_file(work / file.name)
            os.replace(work / file.name, file)
            fsync_folder(cache)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise disk_full_error(error, cache) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return file


def _check_reach(config: ModelConfig) -> None:
    reached = reach(config)
    if not reached.has_gguf:
        raise ConfigError(
            f"llama.cpp does not run this model ({reached.llamacpp.removeprefix('no: ')}); use the backend torch"
        )


def _identity(folder: Path, tokenizer_folder: Path) -> str:
    """A name of what the model is: by its artifact, or by the bytes of its files."""
    folder, base = folder.resolve(), tokenizer_folder.resolve().parent
    if (base / MANIFEST).is_file() and folder.is_relative_to(base):
        of = [open_artifact(base, verify=False).fingerprint, folder.relative_to(base).as_posix()]
    else:
        files = [path for path in sorted(folder.iterdir()) if path.suffix in {".json", ".safetensors"}]
        of = [file_digest(path) for path in [*files, tokenizer_folder / "tokenizer.json"]]
    return digest([_VERSION, *of])[:24]


def _write(folder: Path, tokenizer_folder: Path, kind: GgufType, path: Path, say: Callable[[str], None]) -> None:
    """Write the file, and have llama.cpp compute the model with it."""
    tokenizer = load_tokenizer(tokenizer_folder)
    conversation_format("hermes", tokenizer)
    split_name(tokenizer)
    model = load_model(folder)
    portable = portable_form(model)
    assert portable is not None, "its reach was looked at"
    write_gguf(path, portable, tokenizer, kind, folder.name)
    text = make_check_text(
        tokenizer, own_documents(), "the files of gradus itself", length=_CHECK_TOKENS, context=model.config.context,
        num_beginnings=_CHECK_BEGINNINGS, chats=True,
    )  # fmt: skip
    reference = make_reference(model, tokenizer, text)
    longest = max(len(text.row), *(len(beginning) + GREEDY_TOKENS for beginning in text.beginnings))
    with llamacpp_reader(path, longest) as reader:
        if kind == "f32":
            difference = prove_equal(reference, reader)["largest_difference"]
            say(f"{reader.name} computes it: logits equal to {difference:.1e}, greedy text too")
        else:
            cost = measure_loss(reference, reader, MOST_NATS[kind])["kl_nats"]
            say(f"{reader.name} computes it: rounding costs {cost:.2g} nats a token")
