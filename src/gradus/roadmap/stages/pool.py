"""Stage `pool`: conversations from files in any shape that gradus reads, valid and each once, as a pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.settings import Settings as Table
from gradus.roadmap.place import Place
from gradus.roadmap.progress import counted
from gradus.roadmap.sources import file_sources, matching_files
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings

if TYPE_CHECKING:
    from gradus.conversation.messages import Conversation
    from gradus.conversation.records import Quarantined

VERSION = 1
MAKES = "pool"
INPUTS: tuple[Input, ...] = ()

SMOKE_ROWS = 300
_ROW_BYTES = 1500  # a usual row of JSON, for plans


class PoolSource(Table):
    """path: a file, pattern or folder. name: the label of its rows, by default the file's name.

    max_rows: rows to take at most, from the start. run_tools: recompute results of calculator marks in the
    rows (GSM8K) with the calculator that the model will be given.
    """

    path: str
    name: str | None = None
    max_rows: int | None = Field(default=None, ge=1)
    run_tools: bool = True


class Settings(StageSettings):
    """sources: tables with a path each. validation_fraction: share of questions held back by their hash."""

    sources: tuple[PoolSource, ...] = Field(min_length=1)
    validation_fraction: float = Field(default=0.01, ge=0.0, le=0.5)

    def smoke(self) -> Self:
        """A few hundred rows of each source, enough of them held back."""
        few = tuple(
            source.model_copy(update={"max_rows": min(source.max_rows or SMOKE_ROWS, SMOKE_ROWS)})
            for source in self.sources
        )
        return self.model_copy(update={"sources": few, "validation_fraction": max(self.validation_fraction, 0.05)})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """One digest for each path."""
    paths = [(("sources", i, "path"), source.path) for i, source in enumerate(settings.sources)]
    return file_sources(paths, roadmap_dir)


def record_files(path: str, roadmap_dir: Path) -> list[Path]:
    """The files that a path means; of a folder or pattern, those whose names say that they hold records."""
    files = matching_files(path, roadmap_dir)
    return files if len(files) == 1 else [f for f in files if {".json", ".jsonl", ".ndjson"} & set(f.suffixes)]


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Rows by the files' sizes; a compressed file is taken at three times its size."""
    size, rows = 0.0, 0.0
    for source in settings.sources:
        in_source = 0.0
        for file in record_files(source.path, stage.directory):
            in_source += file.stat().st_size * (3 if file.suffix in {".gz", ".zst"} else 1)
        size += in_source
        rows += min(in_source / _ROW_BYTES, source.max_rows or float("inf"))
    kept = rows * (1 - settings.validation_fraction)
    facts: dict[str, Any] = {"conversations": round(kept), "tokens_per_conversation": _ROW_BYTES / 4}
    seconds = device.overhead_seconds("pool") + device.seconds("pool", size)
    return Estimate(seconds=seconds, memory_bytes=1.5e8 + rows * 100, facts=facts)


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Read, convert, validate, drop repeats, divide, write; every row left out is counted by its reason."""
    from gradus.data.pool import write_pool
    from gradus.roadmap.stages.synthesize import pool_results

    settings: Settings = stage.settings
    with place.progress.task("rows", None, "read") as task:
        rows = counted(_rows(settings, place.roadmap_dir), task)
        counts = write_pool(place.work, rows, settings.validation_fraction)
    return place.commit(pool_results(counts))


def _rows(settings: Settings, roadmap_dir: Path) -> Iterator[Conversation | Quarantined]:
    from gradus.conversation.messages import Pair
    from gradus.conversation.records import Quarantined, import_records
    from gradus.tools.toolbox import ToolBox

    toolbox = ToolBox()
    for source in settings.sources:
        taken = 0
        for file in record_files(source.path, roadmap_dir):
            name = source.name or file.name
            for row in import_records(file, name, toolbox.run if source.run_tools else None):
                if source.max_rows is not None and taken >= source.max_rows:
                    break
                taken += 1
                if isinstance(row, Pair):
                    yield Quarantined(name, 0, "a preference pair; a pool takes conversations")
                else:
                    yield row
