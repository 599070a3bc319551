"""Stage `corpus`: documents from files and generators, normalised, each once, with a validation side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.errors import DataError
from gradus.core.quantity import Quantity
from gradus.core.settings import Problem
from gradus.data.sources import FilesSource, Source, SyntheticSource, expand_files, source_digest
from gradus.roadmap.place import Place
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings

VERSION = 1
MAKES = "corpus"
INPUTS: tuple[Input, ...] = ()

SMOKE_DOCUMENTS = 1500
_DOCUMENT_BYTES = 420  # a synthetic document's usual size, for plans


class Settings(StageSettings):
    """sources: tables of kind "files" or "synthetic". validation_fraction: share of documents held back by hash.

    dedup: "exact" keeps the first of equal texts. min_characters: shorter documents are dropped and counted.
    """

    sources: tuple[Source, ...] = Field(min_length=1)
    normalise: bool = True
    dedup: Literal["exact", "none"] = "exact"
    validation_fraction: float = Field(default=0.01, ge=0.0, le=0.5)
    min_characters: int = Field(default=1, ge=1)

    def smoke(self) -> Self:
        """At most so many documents of each source, and a validation side that is surely not empty."""
        sources = tuple(_at_most(source, SMOKE_DOCUMENTS) for source in self.sources)
        return self.model_copy(update={"sources": sources, "validation_fraction": max(self.validation_fraction, 0.05)})


def _at_most(source: FilesSource | SyntheticSource, documents: int) -> FilesSource | SyntheticSource:
    if isinstance(source, SyntheticSource):
        return source.model_copy(update={"documents": min(source.documents, documents)})
    limit = min(source.limit.value, documents) if source.limit else documents
    return source.model_copy(update={"limit": Quantity(float(limit), "documents")})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """One digest a source: its files' contents, or the generators' code."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for index, source in enumerate(settings.sources):
        try:
            found[f"sources[{index}]"] = source_digest(source, roadmap_dir)
        except DataError as error:
            problems.append(Problem(("sources", index, "path"), str(error)))
    if problems:
        raise SourceError(problems)
    return found


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Bytes from the files' sizes; a compressed file is taken at three times its size."""
    documents, size = 0.0, 0.0
    for source in settings.sources:
        if isinstance(source, SyntheticSource):
            documents += source.documents
            size += source.documents * _DOCUMENT_BYTES
        else:
            size += _files_bytes(source, stage.directory)
    facts: dict[str, Any] = {
        "bytes": size * (1 - settings.validation_fraction),
        "validation_bytes": size * settings.validation_fraction,
    }
    if documents:
        facts["documents"] = documents
    return Estimate(seconds=1 + size / device.data_bytes_per_second, memory_bytes=2e8, facts=facts)


def _files_bytes(source: FilesSource, roadmap_dir: Path) -> float:
    total = 0.0
    for file in expand_files(source, roadmap_dir):
        packed = file.path.suffix in {".gz", ".zst", ".parquet"}
        total += file.path.stat().st_size * (3 if packed else 1)
    return total


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Read, normalise, deduplicate, divide, write; results are the counts."""
    from gradus.data.corpus import build_corpus

    settings: Settings = stage.settings
    with place.progress.task("documents", None, "read") as task:
        counts = build_corpus(
            settings.sources,
            place.work,
            roadmap_dir=place.roadmap_dir,
            normalise=settings.normalise,
            dedup=settings.dedup,
            validation_fraction=settings.validation_fraction,
            min_characters=settings.min_characters,
            seed=stage.seed,
            on_progress=lambda documents, size: task.update(documents, info=f"{size / 1e6:,.1f} MB"),
        )
    train, validation = counts["train"], counts["validation"]
    return place.commit(
        {
            "documents": train["documents"],
            "bytes": train["bytes"],
            "validation_documents": validation["documents"],
            "validation_bytes": validation["bytes"],
            "counts": counts,
        }
    )
