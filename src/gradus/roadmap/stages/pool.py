"""Stage `pool`: conversations from files and the Hub in any shape that gradus reads, valid, filtered, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError, DataError
from gradus.core.fingerprint import digest, file_digest
from gradus.core.home import RAW
from gradus.core.settings import Problem
from gradus.data.conversation_filters import FilterEntry, checked_filters, outside_fingerprints
from gradus.data.conversation_presets import PAIRS
from gradus.data.conversation_sources import (
    AnyPoolSource,
    PoolFiles,
    PoolHub,
    PoolPreset,
    PoolSource,
    read_pool_source,
)
from gradus.roadmap.place import Place
from gradus.roadmap.progress import counted
from gradus.roadmap.sources import file_sources, matching_files
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings

if TYPE_CHECKING:
    from gradus.conversation.messages import Conversation
    from gradus.conversation.records import Imported, Quarantined

VERSION = 2
MAKES = "pool"
INPUTS: tuple[Input, ...] = ()

SMOKE_ROWS = 300
_ROW_BYTES = 1500  # a usual row of JSON, for plans
RECORD_ENDINGS = {".json", ".jsonl", ".ndjson", ".parquet"}


class Settings(StageSettings):
    """sources: tables with a path each, or of kind "hub" or "preset". filters: what goes besides what breaks a rule.

    calls_may_end: take conversations that end with calls whose results are not recorded (BFCL, xLAM): a model learns
    to call from them, not to answer. validation_fraction: share of questions held back by their hash.
    """

    sources: tuple[PoolSource, ...] = Field(min_length=1)
    filters: tuple[FilterEntry, ...] = ()
    calls_may_end: bool = False
    validation_fraction: float = Field(default=0.01, ge=0.0, le=0.5)

    @field_validator("filters")
    @classmethod
    def _filters_are_known(cls, filters: tuple[FilterEntry, ...]) -> tuple[FilterEntry, ...]:
        try:
            checked_filters(filters)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return filters

    @field_validator("sources")
    @classmethod
    def _sources_hold_conversations(cls, sources: tuple[AnyPoolSource, ...]) -> tuple[AnyPoolSource, ...]:
        for source in sources:
            if isinstance(source, PoolPreset) and source.preset.makes == PAIRS:
                raise ValueError(f'"{source.name}" holds preference pairs; a pool takes conversations')
        return sources

    def smoke(self) -> Self:
        """A few hundred rows of each source, enough of them held back."""
        few = few_rows(self.sources)
        fraction = max(self.validation_fraction, 0.05) if self.validation_fraction else 0.0
        return self.model_copy(update={"sources": few, "validation_fraction": fraction})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """One digest for each path, dataset and filter from outside."""
    problems: list[Problem] = []
    found: dict[str, str] = {}
    try:
        found |= source_digests(settings.sources, roadmap_dir)
    except SourceError as error:
        problems += error.problems
    try:
        found |= outside_fingerprints(settings.filters, roadmap_dir)
    except ConfigError as error:
        problems.append(Problem(("filters",), str(error)))
    if problems:
        raise SourceError(problems)
    return found


def few_rows(found: tuple[AnyPoolSource, ...]) -> tuple[AnyPoolSource, ...]:
    """The same sources with a few hundred rows each, for a smoke walk."""
    return tuple(s.model_copy(update={"max_rows": min(s.max_rows or SMOKE_ROWS, SMOKE_ROWS)}) for s in found)


def source_digests(sources: tuple[AnyPoolSource, ...], roadmap_dir: Path) -> dict[str, str]:
    """One digest for each path and dataset. Errors: SourceError with all that cannot be read."""
    entries = [
        (("sources", i, "path"), source.path) for i, source in enumerate(sources) if isinstance(source, PoolFiles)
    ]
    problems: list[Problem] = []
    found: dict[str, str] = {}
    try:
        found |= file_sources(entries, roadmap_dir)
    except SourceError as error:
        problems += error.problems
    for index, source in enumerate(sources):
        try:
            if not isinstance(source, PoolFiles):
                found[f"sources[{index}]"] = _dataset_digest(source, roadmap_dir)
            elif golden := _golden_digest(source, roadmap_dir):
                found[f"{source.path} (golden answers)"] = golden
        except DataError as error:
            key = "name" if isinstance(source, PoolPreset) else "repo"
            problems.append(Problem(("sources", index, key), str(error)))
    if problems:
        raise SourceError(problems)
    return found


def _dataset_digest(source: PoolHub | PoolPreset, roadmap_dir: Path) -> str:
    from gradus.data.sources import source_digest

    resolved = source.resolved() if isinstance(source, PoolPreset) else source
    # What a preset means may change with a version of gradus.
    return digest([source_digest(resolved.hub_source(), roadmap_dir), resolved])


def _golden_digest(source: PoolFiles, roadmap_dir: Path) -> str:
    """Of files beside a source's own that belong to its rows; '' where there are none."""
    from gradus.conversation.records import golden_answer_file

    beside = [golden_answer_file(path) for path in record_files(source.path, roadmap_dir)]
    found = [file_digest(path) for path in beside if path is not None]
    return digest(found) if found else ""


def record_files(path: str, roadmap_dir: Path) -> list[Path]:
    """The files that a path means; of a folder or pattern, those whose names say that they hold records.

    Golden answers (BFCL) are left out: they are read with their questions.
    """
    files = matching_files(path, roadmap_dir)
    if len(files) == 1:
        return files
    from gradus.conversation.records import golden_answer_file

    named = [file for file in files if RECORD_ENDINGS & {suffix.lower() for suffix in file.suffixes}]
    golden = {golden_answer_file(file) for file in named}
    return [file for file in named if file not in golden]


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Rows by the files' sizes; a compressed file is taken at three times its size."""
    size, rows = 0.0, 0.0
    notes: list[str] = []
    for source in settings.sources:
        in_source = source_bytes(source, stage, notes)
        taken = min(in_source / _ROW_BYTES, source.max_rows or float("inf"))
        size += taken * _ROW_BYTES
        rows += taken
    kept = rows * (1 - settings.validation_fraction)
    facts: dict[str, Any] = {"conversations": round(kept), "tokens_per_conversation": _ROW_BYTES / 4}
    seconds = device.overhead_seconds("pool") + device.seconds("pool", size)
    return Estimate(seconds=seconds, memory_bytes=1.5e8 + rows * 100, facts=facts, notes=tuple(notes))


def source_bytes(source: AnyPoolSource, stage: Stage, notes: list[str]) -> float:
    """About how many bytes of JSON a source is."""
    if isinstance(source, PoolFiles):
        return sum(
            file.stat().st_size * (3 if file.suffix in {".gz", ".zst", ".parquet"} else 1)
            for file in record_files(source.path, stage.directory)
        )
    from gradus.data.sources import shard_tasks

    resolved = source.resolved() if isinstance(source, PoolPreset) else source
    tasks = shard_tasks(resolved.hub_source(), stage.directory, stage.seed)
    label, commit = tasks[0].label, tasks[0].location.partition("@")[2][:40]
    if isinstance(source, PoolPreset):
        notes.append(f"{label}: {source.preset.licence}")
    if resolved.revision == "main":
        notes.append(f'{label}: "main" is now {commit}; write revision = "{commit}" to stay with it')
    return float(sum(task.text_bytes or 0 for task in tasks))


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Read, convert, validate, filter, drop repeats, divide, write; every row left out is counted by its reason."""
    from gradus.data.conversation_filters import conversation_filters
    from gradus.data.pool import write_pool
    from gradus.roadmap.stages.synthesize import pool_results

    settings: Settings = stage.settings
    filters = conversation_filters(settings.filters, place.roadmap_dir)
    with place.progress.task("rows", None, "read") as task:
        rows = counted(pool_rows(settings.sources, place.roadmap_dir, stage.seed, place.home / RAW), task)
        counts = write_pool(
            place.work,
            rows,
            settings.validation_fraction,
            filters=[judge for _, judge in filters],
            calls_may_end=settings.calls_may_end,
        )
    place.progress.line(f"  kept {counts['kept']:,} of {counts['read']:,} rows{_dropped_text(counts['dropped'])}")
    return place.commit(pool_results(counts) | {"commits": commits(settings.sources)})


def _dropped_text(dropped: dict[str, int]) -> str:
    """What was left out, most frequent first."""
    listed = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return "; dropped " + ", ".join(f"{count:,} {reason}" for reason, count in listed) if listed else ""


def commits(found: tuple[AnyPoolSource, ...]) -> dict[str, str]:
    """The commit that was read of each dataset."""
    from gradus.data.hub import hub_listing

    datasets = [s.resolved() if isinstance(s, PoolPreset) else s for s in found if not isinstance(s, PoolFiles)]
    return {dataset.repo: hub_listing(dataset.hub_source()).commit for dataset in datasets}


def pool_rows(
    found: tuple[AnyPoolSource, ...], roadmap_dir: Path, seed: int = 0, raw_dir: Path | None = None
) -> Iterator[Conversation | Quarantined]:
    """The conversations of some sources, in their order; preference pairs are quarantined."""
    from gradus.conversation.messages import Pair
    from gradus.conversation.records import Quarantined

    for row in source_rows(found, roadmap_dir, seed, raw_dir):
        if isinstance(row, Pair):
            detail = "a preference pair; a pool takes conversations"
            yield Quarantined(row.id, 0, detail, "preference_pair", row.source)
        else:
            yield row


def source_rows(
    found: tuple[AnyPoolSource, ...], roadmap_dir: Path, seed: int = 0, raw_dir: Path | None = None
) -> Iterator[Imported]:
    """All rows of some sources, in their order: conversations, preference pairs, and what cannot be read."""
    from gradus.tools.toolbox import ToolBox

    toolbox = ToolBox()
    for source in found:
        files = record_files(source.path, roadmap_dir) if isinstance(source, PoolFiles) else []
        yield from read_pool_source(source, files, seed, toolbox.run, raw_dir)
