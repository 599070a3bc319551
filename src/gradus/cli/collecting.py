"""`gradus gc`: what in artifacts/ nothing needs any more, listed with its size, and deleted on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import typer

from gradus.cli.walking import print_json
from gradus.core.home import WORK_SUFFIX
from gradus.core.quantity import format_bytes
from gradus.roadmap.garbage import Collection, Held, collect_garbage
from gradus.roadmap.table import text_table


def collect(roadmaps: Sequence[str], home: Path, delete: bool, as_json: bool) -> None:
    """Print what nothing needs, and delete it where asked. Errors: as of `collect_garbage`."""
    found = collect_garbage(home, roadmaps, delete, lambda text: typer.echo(text, err=True))
    if as_json:
        rows = {"garbage": [_row(held) for held in found.garbage], "kept": [_row(held) for held in found.kept]}
        print_json({**rows, "freed_bytes": found.freed_bytes, "deleted": delete, "cache_bytes": found.caches})
    else:
        typer.echo(_text(found, delete))


def _row(held: Held) -> dict[str, str | int]:
    return {
        "artifact": held.path.name, "stage": held.stage, "started": held.started, "bytes": held.num_bytes,
        "needed": held.reason,
    }  # fmt: skip


def _text(found: Collection, delete: bool) -> str:
    lines = []
    if found.garbage:
        rows = [
            [_row(held)["artifact"], _stage(held), held.started, format_bytes(held.num_bytes)] for held in found.garbage
        ]
        lines += [
            text_table(
                ["artifact", "stage", "made on", "size"], [[str(cell) for cell in row] for row in rows], right=[3]
            ),
            "",
        ]
    size = format_bytes(sum(held.num_bytes for held in found.kept))
    lines.append(f"{len(found.kept)} artifacts are kept ({size}):")
    for reason, count in Counter(held.reason for held in found.kept).most_common():
        lines.append(f"  {count:,} {reason}")
    freed = format_bytes(found.freed_bytes)
    if not found.garbage and not found.freed_bytes:
        lines.append("nothing is left over")
    elif delete:
        lines.append(f"{len(found.garbage)} deleted, {freed} freed")
    else:
        lines.append(f"{len(found.garbage)} are left over; --delete deletes them and frees {freed}")
    lines += [
        f"{name}/ holds {format_bytes(size)} that are made again where they lack; delete them by hand"
        for name, size in found.caches.items()
    ]
    return "\n".join(lines)


def _stage(held: Held) -> str:
    unfinished = "unfinished" if held.path.name.endswith(WORK_SUFFIX) else "damaged"
    return held.stage or unfinished
