"""Stage `tokenize`: a corpus as token shards with the tokenizer beside them, or appended to those of another stage."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError
from gradus.core.machine import usable_cores
from gradus.data.worker import Job, run_jobs
from gradus.roadmap.place import Place
from gradus.roadmap.progress import Task
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings

VERSION = 2
MAKES = "tokens"
INPUTS = (
    Input("corpus", ("corpus",)),
    Input("tokenizer", ("tokenizer", "import")),
    Input("extends", ("tokens",), required=False),
)
TOKENIZER_FOLDER = "tokenizer"

# A process takes about half a second to start.
_LEAST_BYTES_A_PROCESS = 8_000_000


class Settings(StageSettings):
    """Nothing to choose: the corpus and the tokenizer decide.

    With `extends`, the shards of that stage are taken over as they are; what the corpus has besides is the next
    generation of the set.
    """


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Tokens from the corpus's bytes and the tokenizer's bytes per token."""
    corpus, tokenizer = inputs.one("corpus"), inputs.one("tokenizer")
    size = float(corpus.get("bytes", 0)) + float(corpus.get("validation_bytes", 0))
    per_token = float(tokenizer.get("bytes_per_token", 3.0))
    tokens = float(corpus.get("bytes", 0)) / per_token
    facts: dict[str, Any] = {
        "tokens": round(tokens),
        "bytes": corpus.get("bytes", 0),
        "validation_tokens": round(float(corpus.get("validation_bytes", 0)) / per_token),
    }
    if corpus.get("documents"):
        facts["tokens_per_document"] = round(tokens / float(corpus["documents"]), 1)
    if "vocab_size" in tokenizer:
        facts["vocab_size"] = tokenizer["vocab_size"]
    cores = min(device.cores, max(1, int(size // _LEAST_BYTES_A_PROCESS)))
    seconds = device.overhead_seconds("tokenize") + device.seconds("tokenize", size, cores)
    memory = 2.2e8 if cores == 1 else 1.5e8 + 2.2e8 * cores
    return Estimate(seconds=seconds, tokens=facts["tokens"], memory_bytes=memory, facts=facts)


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Encode both sides, a task for each shard of the corpus; results are the counts of each, of all generations."""
    from gradus.data.corpus import SPLITS, corpus_shards
    from gradus.data.shards import TokenStore
    from gradus.data.token_writer import adopt_set
    from gradus.data.tokenise import tokenise_shards
    from gradus.tokenizer.loading import load_tokenizer

    corpus, folder = inputs["corpus"], inputs["tokenizer"].file(TOKENIZER_FOLDER)
    tokenizer = load_tokenizer(folder)
    before = inputs.get("extends")
    if before is not None and load_tokenizer(before.file(TOKENIZER_FOLDER)).digest != tokenizer.digest:
        raise ConfigError(f'stage "{stage.name}": the shards to extend hold ids of another tokenizer; use the same one')
    # A corpus that extends the one of the earlier tokens begins with its shards.
    grown = before is not None and corpus.parent("extends") == before.parent("corpus")
    on_ray = place.machine.corpora == "ray"
    counts: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        kept = before is not None and split in before.results["counts"]
        if before is not None and kept:
            adopt_set(before.path, place.work, split)
        shards = corpus_shards(corpus.path, split)
        documents = int(corpus.results["documents" if split == "train" else "validation_documents"])
        if before is not None and grown:
            shards = shards[int(before.results["shards"].get(split, 0)) :]
            documents -= int(before.results["counts"].get(split, {}).get("documents", 0))
        if documents == 0 and not kept:
            continue
        size = int(corpus.results["bytes" if split == "train" else "validation_bytes"])
        worth = min(len(shards), size // _LEAST_BYTES_A_PROCESS)
        processes = max(1, min(place.machine.threads or usable_cores(), worth))
        with place.progress.task(f"{split} documents", documents) as task:
            counts[split], notices = tokenise_shards(
                shards,
                folder,
                place.work,
                split=split,
                filters=corpus.fingerprint,
                generation=1 if before is None or not kept else int(before.results["generations"][split]) + 1,
                encoder=place.machine.encoder,
                threads=None if processes == 1 and not on_ray else 1,
                run_jobs=partial(
                    _run, processes=processes, on_ray=on_ray, log=place.scratch / "workers.log", task=task
                ),
            )
        for notice in notices:
            place.progress.line(f"  note: {notice}")
    shutil.copytree(folder, place.work / TOKENIZER_FOLDER, dirs_exist_ok=True)
    train = counts["train"]
    results: dict[str, Any] = {
        "tokens": train["tokens"],
        "documents": train["documents"],
        "bytes": train["bytes"],
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": round(train["bytes"] / max(1, train["tokens"]), 4),
        "tokens_per_document": round(train["tokens"] / max(1, train["documents"]), 1),
        "generations": {split: TokenStore(place.work, split).generation for split in SPLITS if split in counts},
        "shards": {split: len(corpus_shards(corpus.path, split)) for split in SPLITS if split in counts},
        # What a longer context can be learned from: a later stage is refused by it before anything is trained.
        "longest_document": {split: TokenStore(place.work, split).longest for split in SPLITS if split in counts},
        # How many of them it can be learned from, for its plan.
        "tokens_by_length": TokenStore(place.work, "train").tokens_by_length(),
        "counts": counts,
    }
    if "validation" in counts:
        results["validation_tokens"] = counts["validation"]["tokens"]
        results["validation_bytes"] = counts["validation"]["bytes"]
    return place.commit(results)


def _run(
    job: Job, jobs: Iterable[dict[str, Any]], *, processes: int, on_ray: bool, log: Path, task: Task
) -> Iterator[dict[str, Any]]:
    def show(documents: int, size: int) -> None:
        task.update(documents, info=f"{size / 1e6:,.1f} MB")

    return run_jobs(job, jobs, processes, log, show, on_ray)
