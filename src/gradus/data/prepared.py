"""Prepared portions: the files that the first pass over a corpus leaves to the later ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gradus.data.drops import Dropped, excerpt_of

# Endings of a portion's files: what later passes decide about its documents by, and what they decided.
KEPT_FACTS, FATES = "kept.npy", "fates.npy"
KEPT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.large_string()),
        ("source", pa.string()),
        ("meta", pa.string()),
        ("place", pa.string()),
        ("url", pa.string()),
    ]
)
DROP_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("source", pa.string()),
        ("place", pa.string()),
        ("detail", pa.string()),
        ("id", pa.string()),
        ("excerpt", pa.string()),
        ("position", pa.int64()),
    ]
)
KEPT_DTYPE = np.dtype([("bytes", "<u8"), ("position", "<u8")])
"""Of a kept document: UTF-8 size of its text, and its position among all that was read, dropped ones too."""


@dataclass(frozen=True, slots=True)
class PortionFiles:
    """A portion's files in the folder of a build, by their endings."""

    folder: Path
    number: int

    def __getitem__(self, ending: str) -> Path:
        return self.folder / f"{self.number:05d}.{ending}"


def read_columns(files: PortionFiles, *names: str) -> list[list[str]]:
    """Columns of what is kept of a portion."""
    columns: list[list[str]] = [[] for _ in names]
    places = [KEPT_SCHEMA.get_field_index(name) for name in names]
    options = pa.ipc.IpcReadOptions(included_fields=places)
    with pa.OSFile(str(files["arrow"])) as file, pa.ipc.open_file(file, options=options) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            for column, name in zip(columns, names, strict=True):
                column += batch.column(batch.schema.get_field_index(name)).to_pylist()
    return columns


@dataclass(frozen=True, slots=True)
class Left:
    """A text that was left out, with its position and, where it has one, its id."""

    dropped: Dropped
    position: int
    id: str = ""


def drop_rows(left: Sequence[Left]) -> pa.RecordBatch:
    """Rows of DROP_SCHEMA."""
    columns = {
        "reason": [one.dropped.reason for one in left],
        "source": [one.dropped.source for one in left],
        "place": [one.dropped.place for one in left],
        "detail": [one.dropped.detail for one in left],
        "id": [one.id for one in left],
        "excerpt": [excerpt_of(one.dropped.excerpt) for one in left],
        "position": [one.position for one in left],
    }
    return pa.RecordBatch.from_pydict(columns, schema=DROP_SCHEMA)
