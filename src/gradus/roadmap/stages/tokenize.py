"""Stage `tokenize`: a corpus as token shards, with the tokenizer beside them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradus.core.artifact import Artifact
from gradus.roadmap.place import Place
from gradus.roadmap.progress import Task
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings

VERSION = 1
MAKES = "tokens"
INPUTS = (Input("corpus", ("corpus",)), Input("tokenizer", ("tokenizer",)))
TOKENIZER_FOLDER = "tokenizer"

_BYTES_PER_SECOND = 8e6


class Settings(StageSettings):
    """Nothing to choose: the corpus and the tokenizer decide."""


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Tokens from the corpus's bytes and the tokenizer's bytes per token."""
    corpus, tokenizer = inputs.one("corpus"), inputs.one("tokenizer")
    size = float(corpus.get("bytes", 0)) + float(corpus.get("validation_bytes", 0))
    per_token = float(tokenizer.get("bytes_per_token", 3.0))
    facts: dict[str, Any] = {
        "tokens": round(float(corpus.get("bytes", 0)) / per_token),
        "bytes": corpus.get("bytes", 0),
    }
    if "vocab_size" in tokenizer:
        facts["vocab_size"] = tokenizer["vocab_size"]
    return Estimate(seconds=1 + size / _BYTES_PER_SECOND, tokens=facts["tokens"], memory_bytes=4e8, facts=facts)


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Encode both sides; results are the counts of each."""
    from gradus.data.corpus import SPLITS, read_corpus
    from gradus.data.tokenise import write_token_shards
    from gradus.tokenizer.loading import load_tokenizer

    corpus, folder = inputs["corpus"], inputs["tokenizer"].file(TOKENIZER_FOLDER)
    tokenizer = load_tokenizer(folder)
    counts: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        documents = int(corpus.results["documents" if split == "train" else "validation_documents"])
        if documents == 0:
            continue
        with place.progress.task(f"{split} documents", documents) as task:
            counts[split] = write_token_shards(
                read_corpus(corpus.path, split),
                tokenizer,
                place.work,
                split=split,
                on_progress=_shown(task),
            )
    shutil.copytree(folder, place.work / TOKENIZER_FOLDER, dirs_exist_ok=True)
    train = counts["train"]
    results: dict[str, Any] = {
        "tokens": train["tokens"],
        "documents": train["documents"],
        "bytes": train["bytes"],
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": round(train["bytes"] / max(1, train["tokens"]), 4),
        "counts": counts,
    }
    if "validation" in counts:
        results["validation_tokens"] = counts["validation"]["tokens"]
        results["validation_bytes"] = counts["validation"]["bytes"]
    return place.commit(results)


def _shown(task: Task) -> Callable[[int, int], None]:
    def show(documents: int, size: int) -> None:
        task.update(documents, info=f"{size / 1e6:,.1f} MB")

    return show
