"""Stage `preferences`: pairs of a better and a worse answer from files, valid and each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.roadmap.place import Place
from gradus.roadmap.progress import counted
from gradus.roadmap.sources import file_sources
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings
from gradus.roadmap.stages.pool import SMOKE_ROWS, PoolSource, record_files

if TYPE_CHECKING:
    from gradus.conversation.messages import Pair
    from gradus.conversation.records import Quarantined

VERSION = 1
MAKES = "pairs"
INPUTS: tuple[Input, ...] = ()

_PAIR_BYTES = 2500  # a usual row of JSON, for plans


class Settings(StageSettings):
    """sources: tables with a path each, as in `pool`. validation_fraction: share of questions held back by their hash.

    reject_artifacts: leave out pairs whose chosen answer holds an artifact (HTML tags, stock labels, hedges, ...).
    """

    sources: tuple[PoolSource, ...] = Field(min_length=1)
    validation_fraction: float = Field(default=0.05, ge=0.0, le=0.5)
    reject_artifacts: bool = False

    def smoke(self) -> Self:
        """A few hundred rows of each source, enough of them held back."""
        few = tuple(
            source.model_copy(update={"max_rows": min(source.max_rows or SMOKE_ROWS, SMOKE_ROWS)})
            for source in self.sources
        )
        return self.model_copy(update={"sources": few})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """One digest for each path."""
    paths = [(("sources", i, "path"), source.path) for i, source in enumerate(settings.sources)]
    return file_sources(paths, roadmap_dir)


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Pairs by the files' sizes; a compressed file is taken at three times its size."""
    size, pairs = 0.0, 0.0
    for source in settings.sources:
        files = record_files(source.path, stage.directory)
        here = sum(file.stat().st_size * (3.0 if file.suffix in {".gz", ".zst"} else 1.0) for file in files)
        size += here
        pairs += min(here / _PAIR_BYTES, source.max_rows or float("inf"))
    seconds = device.overhead_seconds("pool") + device.seconds("pool", size)
    facts = {"pairs": round(pairs * (1 - settings.validation_fraction))}
    return Estimate(seconds=seconds, memory_bytes=1.5e8 + pairs * 100, facts=facts)


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Read, convert, validate, drop repeats, divide, write; every row left out is counted by its reason."""
    from gradus.data.pool import write_pairs

    settings: Settings = stage.settings
    with place.progress.task("pairs", None, "read") as task:
        counts = write_pairs(
            place.work, counted(_pairs(settings, place.roadmap_dir), task), settings.validation_fraction
        )
    rows: dict[str, Any] = {"pairs": counts["train"]["rows"], "validation_pairs": counts["validation"]["rows"]}
    return place.commit(rows | {"counts": counts})


def _pairs(settings: Settings, roadmap_dir: Path) -> Iterator[Pair | Quarantined]:
    from gradus.conversation.artifacts import find_artifacts
    from gradus.conversation.messages import Pair
    from gradus.conversation.records import Quarantined, import_records

    for source in settings.sources:
        taken = 0
        for file in record_files(source.path, roadmap_dir):
            name = source.name or file.name
            for row in import_records(file, name):
                if source.max_rows is not None and taken >= source.max_rows:
                    break
                taken += 1
                if not isinstance(row, Pair):
                    reason = row if isinstance(row, Quarantined) else None
                    yield reason or Quarantined(
                        name, 0, "a conversation; preferences take pairs (prompt, chosen, rejected)"
                    )
                    continue
                found = find_artifacts(row.chosen[-1].content) if settings.reject_artifacts and row.chosen else []
                if found:
                    yield Quarantined(name, 0, f"artifact in the chosen answer: {found[0].kind}: {found[0].excerpt}")
                else:
                    yield row
