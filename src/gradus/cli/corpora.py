"""`gradus data`: what is in a corpus, what two corpora share, and where one document went."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Any

import typer

from gradus.core.artifact import Artifact
from gradus.core.errors import ArtifactError
from gradus.core.quantity import format_bytes
from gradus.core.terminal import harmless
from gradus.data.accounts import (
    DroppedRow,
    Whereabouts,
    compare_corpora,
    find_document,
    sample_documents,
    sample_drops,
)
from gradus.data.corpus import SPLITS, Split
from gradus.data.document import Document
from gradus.roadmap.models import resolve_stage
from gradus.roadmap.status import differences
from gradus.roadmap.table import text_table
from gradus.roadmap.trace import Tokens, Training, finished_stages, follow_document

_BAR_CELLS = 30
_SHOWN_STEPS = 8


def print_stats(name: str, home: Path, as_json: bool) -> None:
    """Sources, drops and lengths of a corpus."""
    artifact = _corpus(name, home)
    counts = artifact.results["counts"]
    if as_json:
        typer.echo(json_format.dumps(counts, indent=1, ensure_ascii=False))
        return
    typer.echo("\n".join(stats_lines(name, counts)))


def stats_lines(name: str, counts: dict[str, Any]) -> list[str]:
    """The tables and bars of `gradus data stats`."""
    kept, read = counts["kept"], counts["read"]
    size = sum(counts[split]["bytes"] for split in SPLITS)
    lines = [f"{name}: {kept:,} documents of {read:,} read ({kept / read:.1%}), {format_bytes(size)} of text", ""]
    sources: dict[str, list[int]] = {}
    for split in SPLITS:
        for source, values in counts[split]["by_source"].items():
            row = sources.setdefault(source, [0, 0, 0])
            row[0] += values["documents"]
            row[1] += values["bytes"]
            row[2] += values["documents"] if split == "validation" else 0
    rows = [
        [
            source,
            f"{documents:,}",
            f"{held:,}",
            format_bytes(bytes_),
            f"{bytes_ / max(1, size):.1%}",
            _bar(bytes_ / max(1, size)),
        ]
        for source, (documents, bytes_, held) in sorted(sources.items(), key=lambda item: -item[1][1])
    ]
    lines += [text_table(["source", "documents", "held back", "bytes", "share", ""], rows, right=(1, 2, 3, 4)), ""]
    dropped = counts["dropped"]
    if dropped:
        rows = [
            [reason, f"{number:,}", f"{number / read:.1%}", _bar(number / read)]
            for reason, number in sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
        ]
        lines += [text_table(["dropped as", "texts", "of read", ""], rows, right=(1, 2)), ""]
    if counts.get("masked"):
        lines += ["masked: " + ", ".join(f"{number:,} {kind}" for kind, number in counts["masked"].items()), ""]
    lengths = counts["train"]["document_bytes"]
    if lengths["count"]:
        lines += [_length_plot(lengths), ""]
        quantiles = ", ".join(f"{key} {format_bytes(value)}" for key, value in lengths["quantiles"].items())
        lines.append(f"length: {quantiles}")
    return lines


def _length_plot(lengths: dict[str, Any]) -> str:
    edges, numbers = lengths["histogram"]["edges"], lengths["histogram"]["counts"]
    used = [int(index) for index, number in enumerate(numbers) if number]
    most = max(numbers)
    rows = [
        [f"{format_bytes(edges[i])} to {format_bytes(edges[i + 1])}", f"{numbers[i]:,}", _bar(numbers[i] / most)]
        for i in range(used[0], used[-1] + 1)
    ]
    return text_table(["train documents of", "number", ""], rows, right=(1,))


def _bar(fraction: float) -> str:
    """A bar in eighths of a cell, at least a sliver for anything above 0."""
    eighths = int(0.5 + fraction * _BAR_CELLS * 8)
    if fraction > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def print_inspection(
    name: str, home: Path, count: int, seed: int, source: str | None, dropped: str | None, held_back: bool, full: bool
) -> None:
    """Some documents of a corpus, or of what it left out."""
    folder = _corpus(name, home).path
    if dropped is not None:
        for row in sample_drops(folder, count, seed, None if dropped == "any" else dropped):
            typer.echo(_dropped_text(row) + "\n")
        return
    side: Split = "validation" if held_back else "train"
    for document in sample_documents(folder, side, count, seed, source):
        typer.echo(_document_text(document, full) + "\n")


def print_diff(one: str, two: str, home: Path, as_json: bool) -> None:
    """What two corpora share and how their settings differ."""
    first, second = _corpus(one, home), _corpus(two, home)
    shared = compare_corpora(first.path, second.path)
    changed = differences(first.manifest.settings, second.manifest.settings)
    if as_json:
        typer.echo(json_format.dumps({"documents": shared, "settings": changed}, indent=1, ensure_ascii=False))
        return
    for line in changed:
        typer.echo(line)
    columns = ("both", "only in the first", "only in the second")
    rows = [[source, *(f"{counts.get(key, 0):,}" for key in columns)] for source, counts in shared.items()]
    rows.append(["total", *(f"{sum(c.get(key, 0) for c in shared.values()):,}" for key in columns)])
    typer.echo(text_table(["source", "both", f"only {one}", f"only {two}"], rows, right=(1, 2, 3)))


def print_trace(name: str, key: str, home: Path) -> None:
    """Where the document with an id, or that stood at a place, went. Errors: ArtifactError where it is unknown."""
    artifact = _corpus(name, home)
    found = list(find_document(artifact.path, key))
    if not found:
        raise ArtifactError(
            f'{name}: no text with id or place "{key}", neither kept nor dropped; a place is a file as the corpus '
            "names it, such as books.jsonl:12 (see gradus data inspect)"
        )
    stages = list(finished_stages(home))
    for one in found:
        if isinstance(one, DroppedRow):
            typer.echo(_dropped_text(one) + "\n")
            continue
        typer.echo(_kept_text(one))
        for place in follow_document(artifact, one, stages):
            typer.echo(f"  {_followed_text(place)}")
        typer.echo()


def _kept_text(found: Whereabouts) -> str:
    document = found.document
    where = f"kept in {found.side}: {found.shard} row {found.row:,}, document {found.number:,} of the side"
    return f"{_document_text(document, full=False)}\n  {where}"


def _followed_text(place: Tokens | Training) -> str:
    if isinstance(place, Tokens):
        end = place.start + place.length
        where = f"shard {place.shard}, tokens {place.start:,} to {end:,}"
        return f"{place.stage}: document {place.document:,}, {where} ({place.length:,})"
    if place.steps is None:
        return f"{place.stage}: in {len(place.rows)} rows, which are drawn by the weights of the sources"
    if not place.steps:
        return f"{place.stage}: not reached in {place.num_steps:,} steps"
    several = len({epoch for epoch, _ in place.steps}) > 1
    steps = [f"{step:,}" + (f" (epoch {epoch + 1})" if several else "") for epoch, step in place.steps]
    more = f" and {len(steps) - _SHOWN_STEPS} more" if len(steps) > _SHOWN_STEPS else ""
    return f"{place.stage}: trained on at step {', '.join(steps[:_SHOWN_STEPS])}{more} of {place.num_steps:,}"


def _document_text(document: Document, full: bool) -> str:
    meta = ", ".join(f"{key} {value}" for key, value in document.meta.items())
    text = document.text if full or len(document.text) <= 600 else f"{document.text[:600]} ..."
    head = f"{document.id}  {document.source}  {meta}\n"
    return harmless(head + "\n".join(f"  {line}" for line in text.split("\n")))


def _dropped_text(row: DroppedRow) -> str:
    head = f"{row.id or '-'}  {row.source}  {row.place}\n  dropped as {row.reason}"
    return harmless(head + (f": {row.detail}" if row.detail else "") + (f"\n  {row.excerpt}" if row.excerpt else ""))


def _corpus(name: str, home: Path) -> Artifact:
    return resolve_stage(name, home, "corpus")
