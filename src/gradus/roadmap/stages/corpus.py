"""Stage `corpus`: documents from files, the Hub and generators, normalised, each once, with a validation side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError, DataError, MissingPackageError
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest
from gradus.core.home import RAW
from gradus.core.machine import usable_cores
from gradus.core.quantity import Quantity, format_bytes
from gradus.core.settings import KeyPath, Problem
from gradus.data.benchmarks import FOLDER_VARIABLE, benchmark_files, benchmark_names, benchmarks_folder, sets_in
from gradus.data.decontaminate import DecontaminateSettings
from gradus.data.decontamination_index import DECONTAMINATE_VERSION
from gradus.data.files import DigestMemory
from gradus.data.filters.table import FilterEntry, filter_named, filter_settings, masker_named
from gradus.data.hub import HubSource
from gradus.data.minhash import MinHashSettings
from gradus.data.portions import LEAST_BYTES
from gradus.data.presets import PresetSource
from gradus.data.remote_settings import Transport
from gradus.data.shard_tasks import ShardTask
from gradus.data.sources import (
    AnySource,
    Source,
    SyntheticSource,
    digest_memory,
    shard_tasks,
    source_digest,
    source_limit,
    source_lineage,
)
from gradus.roadmap.place import Place
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage, StageSettings

VERSION = 2
MAKES = "corpus"
INPUTS = (Input("extends", ("corpus",), required=False),)

SMOKE_DOCUMENTS = 1500
# A document's usual size, for plans: of the generators, and of web text (FineWeb-Edu: 4,753 bytes).
_SYNTHETIC_BYTES = 420
_WEB_BYTES = 4000
_PROGRAM_BYTES = 1.45e8  # resident in a process that reads texts, for plans
LINEAGE = "sources.json"


Decontaminate = Literal["auto"] | tuple[str, ...] | DecontaminateSettings


class Settings(StageSettings):
    """With `extends`, the documents of that earlier corpus come first and stay as they are, and the sources are added.

    sources: tables of kind "files", "manifest", "hub", "preset" or "synthetic". validation_fraction: share of
    documents held back by hash.

    filters: names, or tables of a name and settings, in the order they are asked: english, gopher, c4, fineweb, length,
    lines, symbols, perplexity, or "package.module:name". mask: what to replace in texts, such as "pii".
    dedup: "exact" keeps the first of equal texts, "minhash" also the longest of texts that are nearly the same.
    unique_urls: keep the first of the texts of one web address. minhash: what counts as nearly the same.
    decontaminate: evaluation sets, by name or file, whose items no document may hold: "auto" takes every set in the
    folder that GRADUS_BENCHMARKS names, [] none. A table says more.
    min_characters: shorter documents are dropped and counted.
    """

    sources: tuple[Source, ...] = Field(min_length=1)
    normalise: bool = True
    filters: tuple[FilterEntry, ...] = ()
    mask: tuple[FilterEntry, ...] = ()
    dedup: Literal["exact", "minhash", "none"] = "exact"
    minhash: MinHashSettings = MinHashSettings()
    unique_urls: bool = False
    decontaminate: Decontaminate = "auto"
    validation_fraction: float = Field(default=0.01, ge=0.0, le=0.5)
    min_characters: int = Field(default=1, ge=1)

    @field_validator("filters")
    @classmethod
    def _known_filters(cls, entries: tuple[FilterEntry, ...]) -> tuple[FilterEntry, ...]:
        return _checked(entries, filter_settings)

    @field_validator("decontaminate")
    @classmethod
    def _known_sets(cls, sets: Decontaminate) -> Decontaminate:
        if isinstance(sets, tuple) and sets:
            DecontaminateSettings(sets=sets)
        return sets

    @field_validator("mask")
    @classmethod
    def _known_maskers(cls, entries: tuple[FilterEntry, ...]) -> tuple[FilterEntry, ...]:
        return _checked(entries, masker_named)

    def smoke(self) -> Self:
        """At most so many documents of each source, and a validation side that is surely not empty."""
        sources = tuple(_at_most(source, SMOKE_DOCUMENTS) for source in self.sources)
        return self.model_copy(update={"sources": sources, "validation_fraction": max(self.validation_fraction, 0.05)})


def _checked(entries: tuple[FilterEntry, ...], check: Callable[[FilterEntry], object]) -> tuple[FilterEntry, ...]:
    for entry in entries:
        try:
            check(entry)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return entries


def evaluation_sets(settings: Settings, roadmap_dir: Path) -> DecontaminateSettings | None:
    """The sets that are looked for, None where there are none: of generated text nothing needs to be known."""
    chosen = settings.decontaminate
    if isinstance(chosen, DecontaminateSettings):
        return chosen
    if isinstance(chosen, tuple):
        return DecontaminateSettings(sets=chosen) if chosen else None
    folder = benchmarks_folder(None, roadmap_dir)
    if folder is None or _is_generated(settings):
        return None
    sets = sets_in(folder)
    return DecontaminateSettings(sets=sets) if sets else None


def _is_generated(settings: Settings) -> bool:
    return all(isinstance(source, SyntheticSource) for source in settings.sources)


def _sets_digest(looked_for: DecontaminateSettings, roadmap_dir: Path) -> str:
    """What decides which items are looked for, from the files themselves."""
    memory = DigestMemory(digest_memory())
    folder = benchmarks_folder(looked_for.folder, roadmap_dir)
    content = {
        name: [memory.file_digest(path)[1] for path in benchmark_files(name, folder, roadmap_dir)]
        for name in benchmark_names(looked_for.sets)
    }
    memory.save()
    return digest([DECONTAMINATE_VERSION, content, looked_for.model_copy(update={"folder": None})])


def _at_most(source: AnySource, documents: int) -> AnySource:
    """The source with a limit; remote shards are streamed, so that little is fetched of them."""
    if isinstance(source, SyntheticSource):
        return source.model_copy(update={"documents": min(source.documents, documents)})
    asked = source.limit.value if source.limit and source.limit.unit == "documents" else documents
    changes: dict[str, Any] = {"limit": Quantity(float(min(asked, documents)), "documents")}
    if isinstance(source, Transport):
        changes["raw"] = "stream"
    return source.model_copy(update=changes)


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """One digest a source: its files' contents, its shards as the Hub lists them, or the generators' code.

    And one of every filter and masker: its version, and the models and packages that it rests on.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for index, source in enumerate(settings.sources):
        try:
            found[f"sources[{index}]"] = source_digest(source, roadmap_dir)
        except DataError as error:
            problems.append(Problem(_key(source, index), str(error)))
    for index, entry in enumerate(settings.filters):
        try:
            found[f"filters[{index}]"] = filter_named(entry, roadmap_dir).fingerprint
        except (ConfigError, DataError, MissingPackageError) as error:
            problems.append(Problem(("filters", index), str(error)))
    for index, entry in enumerate(settings.mask):
        found[f"mask[{index}]"] = masker_named(entry).fingerprint
    looked_for = evaluation_sets(settings, roadmap_dir)
    if looked_for is not None:
        try:
            found["decontaminate"] = _sets_digest(looked_for, roadmap_dir)
        except DataError as error:
            problems.append(Problem(("decontaminate",), str(error)))
    if problems:
        raise SourceError(problems)
    return found


def _key(source: AnySource, index: int) -> KeyPath:
    """The key that says what a source is."""
    if isinstance(source, HubSource):
        return ("sources", index, "repo")
    return ("sources", index, "name" if isinstance(source, PresetSource | SyntheticSource) else "path")


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Bytes from the shards' sizes; a compressed shard is taken at three times its size, and no more than a limit."""
    documents = synthetic = size = 0.0
    notes: list[str] = []
    for source in settings.sources:
        if isinstance(source, SyntheticSource):
            documents += source.documents
            synthetic += source.documents * _SYNTHETIC_BYTES
            continue
        tasks = shard_tasks(source, stage.directory, stage.seed)
        text = _text_bytes(source, tasks)
        size += text
        notes += _notes(source, tasks, text)
    whole = size + synthetic
    facts: dict[str, Any] = {
        "bytes": whole * (1 - settings.validation_fraction),
        "validation_bytes": whole * settings.validation_fraction,
    }
    if documents and not size:
        facts["documents"] = round(documents * (1 - settings.validation_fraction))
    unchecked = settings.decontaminate == "auto" and evaluation_sets(settings, stage.directory) is None
    if unchecked and not _is_generated(settings):
        notes.append(f"not decontaminated: set {FOLDER_VARIABLE} to the folder of the evaluation sets, or name sets")
    cores = min(device.cores, max(1, int(whole // LEAST_BYTES)))
    seconds = device.overhead_seconds("corpus") + device.seconds("corpus", size, cores)
    seconds += device.seconds("corpus/synthetic", synthetic, cores)
    seconds += sum(device.seconds(work, whole, cores) for work in judging(stage, device))
    return Estimate(seconds=seconds, memory_bytes=_memory_bytes(settings, cores), facts=facts, notes=tuple(notes))


def judging(stage: Stage, device: Device) -> list[str]:
    """What every text goes through besides being read and written, as the table of rates calls it."""
    assert device.host is not None, "plans are made with a device of the table"
    settings, known = stage.settings, device.host.rates
    filters = [f"filter/{entry if isinstance(entry, str) else entry.get('name')}" for entry in settings.filters]
    found = [name if name in known else "filter" for name in filters] + ["mask"] * len(settings.mask)
    if settings.dedup == "minhash":
        found.append("minhash")
    if evaluation_sets(settings, stage.directory) is not None:
        found.append("decontaminate")
    return found


def _memory_bytes(settings: Settings, cores: int) -> float:
    """Of the process that decides, which reads by itself on one core, and of those that read on several."""
    each = 3e7 * len(settings.filters) + (6e7 if settings.dedup == "minhash" else 0.0)
    return _PROGRAM_BYTES + (each if cores == 1 else (_PROGRAM_BYTES + each) * cores)


def _text_bytes(source: AnySource, tasks: list[ShardTask]) -> float:
    """About how much text a source gives; shards of unknown size give what the limit asks."""
    sizes = [task.text_bytes or 0 for task in tasks]
    limit = source_limit(source)
    bounds = [] if any(task.size is None for task in tasks) and limit.is_bound else [float(sum(sizes))]
    if limit.text_bytes is not None:
        bounds.append(float(limit.text_bytes))
    if limit.documents is not None and isinstance(source, Transport):
        bounds.append(float(limit.documents * _WEB_BYTES))
    return min(bounds, default=0.0)


def _notes(source: AnySource, tasks: list[ShardTask], text_bytes: float) -> list[str]:
    """For a source elsewhere: what its limit means, about how much is fetched, and what would pin it."""
    if not isinstance(source, Transport) or all(task.place == "local" for task in tasks):
        return []
    label = tasks[0].label
    notes = []
    if source.limit is not None and source.limit.unit == "tokens":
        wanted = format_bytes(source.text_limit.text_bytes or 0)
        notes.append(
            f"{label}: {source.limit} is read as {wanted} of text, at {source.bytes_per_token:g} bytes a token"
        )
    fetched = min(text_bytes / 3, float(sum(task.size or 0 for task in tasks)))
    if fetched:
        stored = {"stream": "stored nowhere", "delete": "each stored while it is read", "keep": "and kept"}[source.raw]
        notes.append(f"{label}: {len(tasks)} shards, about {format_bytes(fetched)} to fetch, {stored}")
    if isinstance(source, HubSource) and source.revision == "main":
        commit = tasks[0].location.partition("@")[2][:40]
        notes.append(f'{label}: "main" is now {commit}; write revision = "{commit}" to stay with it')
    return notes


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Read, normalise, deduplicate, divide, write; results are the counts."""
    from gradus.data.build import build_corpus
    from gradus.data.drops import dropped_text
    from gradus.data.prepare import PrepareSettings

    settings: Settings = stage.settings
    lineage = [source_lineage(source, place.roadmap_dir) for source in settings.sources]
    write_atomic(place.work / LINEAGE, json.dumps(lineage, ensure_ascii=False, indent=1))
    with place.progress.task("documents", None, "read") as task:
        counts = build_corpus(
            settings.sources,
            place.work,
            roadmap_dir=place.roadmap_dir,
            settings=PrepareSettings(
                normalise=settings.normalise,
                min_characters=settings.min_characters,
                filters=settings.filters,
                mask=settings.mask,
                minhash=settings.minhash if settings.dedup == "minhash" else None,
            ),
            dedup="none" if settings.dedup == "none" else "exact",
            unique_urls=settings.unique_urls,
            decontaminate=evaluation_sets(settings, place.roadmap_dir),
            extends=inputs["extends"].path if "extends" in inputs else None,
            validation_fraction=settings.validation_fraction,
            seed=stage.seed,
            processes=place.machine.threads or usable_cores(),
            on_ray=place.machine.corpora == "ray",
            raw_dir=place.home / RAW,
            on_progress=lambda documents, size: task.update(documents, info=f"{size / 1e6:,.1f} MB"),
        )
    train, validation = counts["train"], counts["validation"]
    if counts["dropped"]:
        dropped = dropped_text(counts["dropped"])
        place.progress.line(f"  kept {counts['kept']:,} of {counts['read']:,} documents; dropped {dropped}")
    return place.commit(
        {
            "documents": train["documents"],
            "bytes": train["bytes"],
            "validation_documents": validation["documents"],
            "validation_bytes": validation["bytes"],
            "commits": {str(entry["repo"]): str(entry["commit"]) for entry in lineage if "commit" in entry},
            "counts": counts,
        }
    )
