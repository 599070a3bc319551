"""`gradus index` and `gradus search`: one's own documents made searchable, and a look at what a search finds."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from gradus.core.errors import ConfigError, DataError
from gradus.core.quantity import format_bytes
from gradus.core.terminal import harmless
from gradus.data.drops import DropLog
from gradus.data.titled_texts import titled_texts
from gradus.tools.search_index import SearchIndex, build_index
from gradus.tools.web_search import results_text


def make_index(documents: str, out: Path, as_json: bool) -> None:
    """Write the index and say what is in it. Errors: DataError where no document has text."""
    from gradus.roadmap.progress import QuietProgress, counted, live_progress

    if out.is_dir():
        raise ConfigError(f"{out}: a folder; --out names the file to write")
    drops = DropLog()
    progress = QuietProgress() if as_json else live_progress()
    with progress.task("indexing", None, "documents") as task:
        facts = build_index(out, counted(titled_texts(documents, Path(), drops), task))
    if not facts.documents:
        raise DataError(f'"{documents}": no document has text (dropped {drops.summary()})')
    size = out.stat().st_size
    if as_json:
        found = {"index": str(out), "bytes": size, **facts.to_json(), "dropped": dict(drops.by_reason)}
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    left_out = [f"{facts.empty:,} without text"] if facts.empty else []
    left_out += [f"{facts.repeated:,} repeated"] if facts.repeated else []
    left_out += [drops.summary()] if drops.total else []
    typer.echo(
        f"{out}: {facts.documents:,} documents in {facts.passages:,} passages, {format_bytes(size)}"
        + (f"; left out: {', '.join(left_out)}" if left_out else "")
    )


def print_hits(file: Path, query: str, number: int, as_json: bool) -> None:
    """The passages that a query finds, best first; --json prints what a model is given."""
    hits = SearchIndex(file).search(query, number)
    if as_json:
        typer.echo(results_text(hits))
        return
    for place, hit in enumerate(hits, start=1):
        lines = "\n".join(f"  {line}" for line in hit.text.splitlines())
        typer.echo(harmless(f"[{place}] {hit.title} ({hit.url})\n{lines}\n"))
    if not hits:
        typer.echo("nothing found")
