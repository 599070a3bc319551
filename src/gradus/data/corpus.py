"""A corpus on disk: the documents of some sources, normalised, each once, divided into train and validation.

`train/` and `validation/` hold zstandard parquet shards (columns id, text, source, meta as JSON; row groups of 1,024),
`drops/` everything that was left out and why, `exact/` and `near/` what later corpora that extend this one compare
with, `corpus.json` the counts, written last, `drops.json` a summary. build.py makes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from gradus.core.errors import DataError
from gradus.data.document import Document

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
DROPS, EXACT, NEAR = "drops", "exact", "near"
NEAR_DUPLICATE = "near_duplicate"
COUNTS = "corpus.json"

ROW_GROUP_DOCUMENTS = 1024
CORPUS_SCHEMA = pa.schema(
    [("id", pa.string()), ("text", pa.large_string()), ("source", pa.string()), ("meta", pa.string())]
)


def read_corpus(folder: Path, split: Split) -> Iterator[Document]:
    """The documents of one side, in the order they were written, one row group in memory at a time.

    Errors: DataError where `folder` holds no corpus or a shard is damaged.
    """
    for shard in corpus_shards(folder, split):
        yield from read_corpus_shard(shard)


def corpus_shards(folder: Path, split: Split) -> list[Path]:
    """The shards of one side in their order. Errors: DataError where `folder` holds no corpus."""
    if not (folder / COUNTS).is_file():
        raise _no_corpus(folder)
    return sorted((folder / split).glob("*.parquet"))


def read_corpus_shard(shard: Path) -> Iterator[Document]:
    """The documents of one shard. Errors: DataError where it is damaged."""
    with damage_told(shard), pq.ParquetFile(shard) as file:
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group).to_pylist():
                yield Document(row["text"], row["id"], row["source"], json.loads(row["meta"]))


@contextmanager
def damage_told(shard: Path) -> Iterator[None]:
    """DataError for what parquet says of a shard that is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard}: damaged corpus shard ({error}); build the corpus again") from error


def corpus_counts(folder: Path) -> dict[str, Any]:
    """The counts that `build_corpus` returned for this folder."""
    try:
        counts: dict[str, Any] = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _no_corpus(folder) from None
    return counts


def _no_corpus(folder: Path) -> DataError:
    return DataError(f"{folder}: no corpus here ({COUNTS} is missing)")
