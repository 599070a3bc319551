"""What the sources of a pool are to a stage: their fingerprints, their size for plans, their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gradus.core.errors import DataError
from gradus.core.fingerprint import digest, file_digest
from gradus.core.settings import Problem
from gradus.data.conversation_sources import AnyPoolSource, PoolFiles, PoolHub, PoolPreset, read_pool_source
from gradus.roadmap.sources import file_sources, matching_files
from gradus.roadmap.stage import SourceError, Stage

if TYPE_CHECKING:
    from gradus.conversation.messages import Conversation
    from gradus.conversation.records import Imported, Quarantined

SMOKE_ROWS = 300
RECORD_ENDINGS = {".json", ".jsonl", ".ndjson", ".parquet"}


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
