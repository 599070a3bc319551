"""From a document of a corpus to the tokens it became and the training steps that saw it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradus.core.artifact import MANIFEST, Artifact, open_artifact
from gradus.core.home import RUNS
from gradus.core.quantity import parse_quantity
from gradus.core.run_record import read_run_record, walked_runs
from gradus.data.accounts import Whereabouts
from gradus.data.bookmark import read_bookmark
from gradus.data.order import RowOrder
from gradus.data.plans import Packing, ShardPlans
from gradus.data.shards import TokenStore
from gradus.model.config import ModelConfig
from gradus.roadmap.scaling import stage_law
from gradus.roadmap.stages.pretrain import BOOKMARK
from gradus.roadmap.training import TrainingSettings


@dataclass(frozen=True, slots=True)
class Tokens:
    """Where a document stands in a token shard set. document: its number; start: of its first token in the shard."""

    stage: str
    shard: str
    document: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Training:
    """When a stage trained on a document: rows of its pack plan, and (epoch, step) of each that was reached.

    steps is None where rows are drawn by weight, which has no epochs over all rows.
    """

    stage: str
    rows: tuple[int, ...]
    steps: tuple[tuple[int, int], ...] | None
    num_steps: int


def follow_document(
    corpus: Artifact, found: Whereabouts, stages: Sequence[tuple[str, Artifact]]
) -> Iterator[Tokens | Training]:
    """What became of a document of a corpus. stages: all that are finished (`finished_stages`)."""
    for name, tokens in stages:
        if tokens.kind != "tokens" or tokens.parent("corpus") != corpus.fingerprint:
            continue
        store = TokenStore(tokens.path, found.side)
        document = _first_document(corpus, tokens, found.side, stages) + found.number
        shard = next(s for s in reversed(store.shards) if s.first_document <= document)
        start, end = shard.bounds[document - shard.first_document : document - shard.first_document + 2].tolist()
        yield Tokens(name, shard.name, document, start, end - start)
        if found.side == "train":
            for trained_name, trained in stages:
                if trained.kind == "pretrain" and trained.parent("tokens") == tokens.fingerprint:
                    yield _training(trained_name, trained, tokens, document, stages)


def _training(
    name: str, trained: Artifact, tokens: Artifact, document: int, stages: Sequence[tuple[str, Artifact]]
) -> Training:
    settings: dict[str, Any] = trained.manifest.settings
    store = TokenStore(tokens.path, "train", settings["generation"])
    plans = ShardPlans(store, Packing(settings["context"], settings["packing"], settings["weights"] is not None))
    rows_per_step = _rows_per_step(trained, store, plans)
    first_row = 0
    if settings["continue_data"]:
        before = next(a for _, a in stages if a.fingerprint == trained.parent("from"))
        first_row = read_bookmark(before.file(BOOKMARK)).row
    num_steps = (read_bookmark(trained.file(BOOKMARK)).row - first_row) // rows_per_step
    if document >= store.num_documents:
        return Training(name, (), (), num_steps)  # it was appended after the generation that this stage pins
    rows = tuple(dict.fromkeys(plans.rows_of_document(document).tolist()))
    if settings["weights"] is not None:
        return Training(name, rows, None, num_steps)
    order = RowOrder(
        plans.num_rows, trained.manifest.seed, rows_per_step, 1, generation=store.generation, first_row=first_row
    )
    epochs = range(first_row // plans.num_rows, order.place(num_steps) // plans.num_rows + 1)
    steps = sorted((epoch, order.step_of_row(row, epoch)) for row in rows for epoch in epochs)
    return Training(name, rows, tuple((e, s) for e, s in steps if 0 <= s < num_steps), num_steps)


def _rows_per_step(trained: Artifact, store: TokenStore, plans: ShardPlans) -> int:
    """Packed rows of a step as it was made: with `scaling` the horizon law says how many, and not the settings."""
    settings = trained.manifest.settings
    batch_tokens = settings["batch_tokens"]
    if settings.get("scaling") == "auto":
        config = ModelConfig(**trained.results["model"])
        law = stage_law(parse_quantity(settings["horizon"]), config, store.num_tokens, plans.mean_context)
        batch_tokens = law.batch_tokens
    return TrainingSettings(batch_tokens=batch_tokens).rows_of_step(settings["context"])


def _first_document(corpus: Artifact, tokens: Artifact, side: str, stages: Sequence[tuple[str, Artifact]]) -> int:
    """Documents of other corpora that stand before this one's in a set that extends another."""
    before = next((a for _, a in stages if a.fingerprint == tokens.parent("extends")), None)
    if before is None or corpus.parent("extends") == before.parent("corpus"):
        return 0
    return int(before.results["counts"].get(side, {}).get("documents", 0))


def finished_stages(home: Path) -> Iterator[tuple[str, Artifact]]:
    """(ROADMAP/STAGE, artifact) of every finished stage of all roadmaps, each artifact once."""
    seen: set[str] = set()
    for name in walked_runs(home):
        for stage in read_run_record(home / RUNS / name)["stages"]:
            folder = home / RUNS / name / stage["name"]
            if (folder / MANIFEST).is_file():
                artifact = open_artifact(folder.resolve(), verify=False)
                if artifact.fingerprint not in seen:
                    seen.add(artifact.fingerprint)
                    yield f"{name}/{stage['name']}", artifact
