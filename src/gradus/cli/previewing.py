"""`gradus data preview`: what filters would take from conversations, before anything is written."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gradus.core.errors import DataError
from gradus.core.settings import load_settings
from gradus.core.terminal import harmless
from gradus.data.conversation_filters import conversation_filters
from gradus.data.conversation_sources import AnyPoolSource, PoolFiles, PoolPreset
from gradus.data.pool_preview import preview_filters
from gradus.roadmap.models import resolve_stage
from gradus.roadmap.pool_sources import RECORD_ENDINGS, pool_rows
from gradus.roadmap.sources import matching_files
from gradus.roadmap.table import text_table

if TYPE_CHECKING:
    from gradus.conversation.messages import Conversation
    from gradus.conversation.records import Quarantined

DEFAULT_FILTERS = ("artifacts", "length", "thinking")
PRESET_PREFIX = "preset:"
_SHOWN_CHARACTERS = 100


def print_preview(
    source: str, home: Path, filters: Sequence[str], samples: int, max_rows: int | None, calls_may_end: bool, json: bool
) -> None:
    """Judge every conversation of a pool, files or a ready set by each filter. Errors: ConfigError, DataError."""
    judges = conversation_filters(filters or DEFAULT_FILTERS, Path())
    rows = islice(_rows(source, home), max_rows)
    found = preview_filters(rows, judges, samples, calls_may_end=calls_may_end)
    if json:
        typer.echo(json_format.dumps(found, indent=1, ensure_ascii=False))
    else:
        typer.echo("\n".join(_lines(source, found)))


def _rows(source: str, home: Path) -> Iterator[Conversation | Quarantined]:
    if source.startswith(PRESET_PREFIX):
        table = {"kind": "preset", "name": source.removeprefix(PRESET_PREFIX)}
        return _read(load_settings(PoolPreset, table, where=source))
    if matching_files(source, Path()):
        return _read(PoolFiles(path=source))
    if RECORD_ENDINGS & set(Path(source).suffixes):
        raise DataError(f"{source}: no such file, and no file matches it")
    from gradus.data.corpus import SPLITS
    from gradus.data.pool import read_pool

    folder = resolve_stage(source, home, "pool").path
    return (row for split in SPLITS for row in read_pool(folder, split))


def _read(source: AnyPoolSource) -> Iterator[Conversation | Quarantined]:
    return pool_rows((source,), Path())


def _lines(name: str, found: dict[str, Any]) -> list[str]:
    sound = max(1, found["sound"])
    unsound = ", ".join(f"{count:,} {reason}" for reason, count in found["unsound"].items())
    lines = [
        f"{name}: {found['read']:,} rows, {found['sound']:,} sound conversations"
        + (f" (the rest: {unsound})" if unsound else ""),
        f"all filters together would keep {found['kept']:,} ({found['kept'] / sound:.1%})",
        "",
    ]
    rows = [
        [filter_name, f"{counts['removed']:,}", f"{counts['removed'] / sound:.1%}", f"{counts['alone']:,}"]
        for filter_name, counts in found["filters"].items()
    ]
    lines += [text_table(["filter", "removes", "of sound", "it alone"], rows, right=(1, 2, 3)), ""]
    if len(found["by_source"]) > 1:
        rows = [
            [
                source,
                f"{counts['sound']:,}",
                f"{counts.get('kept', 0):,}",
                f"{counts.get('kept', 0) / counts['sound']:.1%}",
            ]
            for source, counts in found["by_source"].items()
        ]
        lines += [text_table(["source", "sound", "kept", ""], rows, right=(1, 2, 3)), ""]
    for reason, samples in found["samples"].items():
        lines.append(f"{reason}:")
        for sample in samples:
            lines.append(f"  {sample['place']}  {_short(sample['excerpt'])}")
            lines.append(f"    {sample['detail']}")
    return [harmless(line) for line in lines]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
