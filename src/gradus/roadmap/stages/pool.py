"""Stage `pool`: conversations from files and the Hub in any shape that gradus reads, valid, filtered, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError
from gradus.core.home import RAW
from gradus.core.settings import Problem
from gradus.data.conversation_filters import FilterEntry, checked_filters, outside_fingerprints
from gradus.data.conversation_presets import PAIRS
from gradus.data.conversation_sources import AnyPoolSource, PoolPreset, PoolSource
from gradus.roadmap.place import Place
from gradus.roadmap.pool_sources import commits, few_rows, pool_rows, source_bytes, source_digests
from gradus.roadmap.progress import counted
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings

VERSION = 2
MAKES = "pool"
INPUTS: tuple[Input, ...] = ()

_ROW_BYTES = 1500  # a usual row of JSON, for plans


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


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Read, convert, validate, filter, drop repeats, divide, write; every row left out is counted by its reason."""
    from gradus.data.conversation_filters import conversation_filters
    from gradus.data.drops import dropped_text
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
    dropped = f"; dropped {dropped_text(counts['dropped'])}" if counts["dropped"] else ""
    place.progress.line(f"  kept {counts['kept']:,} of {counts['read']:,} rows{dropped}")
    return place.commit(pool_results(counts) | {"commits": commits(settings.sources)})
