"""Stage `tokenize`: a corpus as token shards, with the tokenizer beside them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gradus.core.artifact import Artifact
from gradus.core.errors import DataError
from gradus.core.files import inherit_files
from gradus.core.machine import usable_cores
from gradus.roadmap.place import Place
from gradus.roadmap.progress import Task
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings

VERSION = 2
MAKES = "tokens"
INPUTS = (
    Input("corpus", ("corpus",)),
    Input("tokenizer", ("tokenizer",)),
    Input("extends", ("tokens",), required=False),
)
TOKENIZER_FOLDER = "tokenizer"

_BYTES_PER_SECOND = 8e6
Job = Callable[[dict[str, Any], Callable[[int, int], None]], dict[str, Any]]


class Settings(StageSettings):
    """The corpus and the tokenizer decide. With `extends`, tokens of the corpus that this one extends, those stay as
    they are and only what is new is encoded.
    """


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
    """Encode both sides, a task for each shard of the corpus; results are the counts of each."""
    from gradus.data.corpus import SPLITS, corpus_shards
    from gradus.data.tokenise import tokenise_shards
    from gradus.tokenizer.loading import load_tokenizer

    corpus, folder = inputs["corpus"], inputs["tokenizer"].file(TOKENIZER_FOLDER)
    tokenizer = load_tokenizer(folder)
    earlier = inputs.get("extends")
    generation = 1
    if earlier is not None:
        _refuse_other_lineage(stage, corpus, earlier)
        inherit_files(earlier.path, place.work, SPLITS + tuple(f"{split}.jsonl" for split in SPLITS))
        generation = int(earlier.results["generations"]) + 1
    counts: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        documents = int(corpus.results["documents" if split == "train" else "validation_documents"])
        if documents == 0:
            continue
        shards = corpus_shards(corpus.path, split)
        if earlier is not None:
            before = earlier.results["shards"].get(split, 0)
            documents -= earlier.results["counts"].get(split, {}).get("documents", 0)
            shards = shards[before:]
        on_ray = place.machine.corpora == "ray"
        processes = min(place.machine.threads or usable_cores(), max(1, len(shards)))
        with place.progress.task(f"{split} documents", documents) as task:
            counts[split], notices = tokenise_shards(
                shards,
                folder,
                place.work,
                split=split,
                filters=corpus.fingerprint,
                generation=generation,
                threads=None if processes == 1 and not on_ray else 1,
                run_jobs=partial(
                    _run, processes=processes, on_ray=on_ray, log=place.scratch / "workers.log", task=task
                ),
            )
        for notice in notices:
            place.progress.line(notice)
    shutil.copytree(folder, place.work / TOKENIZER_FOLDER, dirs_exist_ok=True)
    train = counts["train"]
    results: dict[str, Any] = {
        "tokens": train["tokens"],
        "documents": train["documents"],
        "bytes": train["bytes"],
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": round(train["bytes"] / max(1, train["tokens"]), 4),
        "generations": generation,
        "shards": {split: len(corpus_shards(corpus.path, split)) for split in SPLITS if split in counts},
        "counts": counts,
    }
    if "validation" in counts:
        results["validation_tokens"] = counts["validation"]["tokens"]
        results["validation_bytes"] = counts["validation"]["bytes"]
    return place.commit(results)


def _refuse_other_lineage(stage: Stage, corpus: Artifact, earlier: Artifact) -> None:
    """The corpus must extend the one that the earlier tokens are of, and nothing else."""
    if _as_one(corpus.manifest.parents.get("extends")) != _as_one(earlier.manifest.parents["corpus"]):
        raise DataError(
            f'{stage.place} stage "{stage.name}": the tokens to extend are of another corpus than the one that '
            f'"{corpus.manifest.name}" extends; name the tokens of that corpus, or leave "extends" out'
        )


def _as_one(parents: str | list[str] | None) -> str | None:
    return parents[0] if isinstance(parents, list) else parents


def _run(
    job: Job, jobs: Iterable[dict[str, Any]], *, processes: int, on_ray: bool, log: Path, task: Task
) -> Iterator[dict[str, Any]]:
    from gradus.data.worker import run_jobs

    def show(documents: int, size: int) -> None:
        task.update(documents, info=f"{size / 1e6:,.1f} MB")

    return run_jobs(job, jobs, processes, log, show, on_ray)
