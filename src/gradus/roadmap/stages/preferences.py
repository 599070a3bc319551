"""Stage `preferences`: pairs of a better and a worse answer from files and the Hub, valid and each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator

from gradus.core.artifact import Artifact
from gradus.core.home import RAW
from gradus.data.conversation_presets import PAIRS
from gradus.data.conversation_sources import AnyPoolSource, PoolPreset, PoolSource
from gradus.roadmap.place import Place
from gradus.roadmap.pool_sources import commits, few_rows, source_bytes, source_digests, source_rows
from gradus.roadmap.progress import counted
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings

if TYPE_CHECKING:
    from gradus.conversation.messages import Pair
    from gradus.conversation.records import Imported, Quarantined

VERSION = 1
MAKES = "pairs"
INPUTS: tuple[Input, ...] = ()

_PAIR_BYTES = 2500  # a usual row of JSON, for plans


class Settings(StageSettings):
    """sources: as in `pool`. validation_fraction: share of questions held back by their hash.

    reject_artifacts: leave out pairs whose chosen answer holds an artifact (HTML tags, stock labels, hedges, ...).
    """

    sources: tuple[PoolSource, ...] = Field(min_length=1)
    validation_fraction: float = Field(default=0.05, ge=0.0, le=0.5)
    reject_artifacts: bool = False

    @field_validator("sources")
    @classmethod
    def _sources_hold_pairs(cls, sources: tuple[AnyPoolSource, ...]) -> tuple[AnyPoolSource, ...]:
        for source in sources:
            if isinstance(source, PoolPreset) and source.preset.makes != PAIRS:
                raise ValueError(f'"{source.name}" holds conversations; preferences take pairs')
        return sources

    def smoke(self) -> Self:
        """A few hundred rows of each source."""
        return self.model_copy(update={"sources": few_rows(self.sources)})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """One digest for each path and dataset."""
    return source_digests(settings.sources, roadmap_dir)


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Pairs by the files' sizes; a compressed file is taken at three times its size."""
    size, pairs = 0.0, 0.0
    notes: list[str] = []
    for source in settings.sources:
        here = source_bytes(source, stage, notes)
        size += here
        pairs += min(here / _PAIR_BYTES, source.max_rows or float("inf"))
    seconds = device.overhead_seconds("pool") + device.seconds("pool", size)
    facts = {"pairs": round(pairs * (1 - settings.validation_fraction))}
    return Estimate(seconds=seconds, memory_bytes=1.5e8 + pairs * 100, facts=facts, notes=tuple(notes))


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Read, convert, validate, drop repeats, divide, write; every row left out is counted by its reason."""
    from gradus.data.pool import write_pairs

    settings: Settings = stage.settings
    with place.progress.task("pairs", None, "read") as task:
        pairs = _pairs(source_rows(settings.sources, place.roadmap_dir, stage.seed, place.home / RAW), settings)
        counts = write_pairs(place.work, counted(pairs, task), settings.validation_fraction)
    rows: dict[str, Any] = {"pairs": counts["train"]["rows"], "validation_pairs": counts["validation"]["rows"]}
    return place.commit(rows | {"counts": counts, "commits": commits(settings.sources)})


def _pairs(rows: Iterable[Imported], settings: Settings) -> Iterator[Pair | Quarantined]:
    from gradus.conversation.messages import Conversation
    from gradus.conversation.records import Quarantined
    from gradus.posttrain.prompts import answer_artifacts

    for row in rows:
        if isinstance(row, Conversation):
            detail = "a conversation; preferences take pairs (prompt, chosen, rejected)"
            yield Quarantined(row.id, 0, detail, "conversation", row.source)
            continue
        if isinstance(row, Quarantined) or not settings.reject_artifacts:
            yield row
            continue
        found = answer_artifacts(row.chosen)
        if found:
            detail = f"artifact in the chosen answer: {found[0].kind}: {found[0].excerpt}"
            yield Quarantined(row.id, 0, detail, f"artifact_{found[0].kind}", row.source)
        else:
            yield row
