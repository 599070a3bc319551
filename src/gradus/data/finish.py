"""The last pass over a corpus: what the whole has decided about one portion becomes shards.

`<number>.fates.npy` in the folder of the build says what each prepared document is; this writes
`train/<number>-<part>.parquet` and `validation/...`, and everything that was left out to `drops/<number>.parquet`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gradus.core.files import fsync_file, write_atomic
from gradus.data.corpus import CORPUS_SCHEMA, DROPS, NEAR_DUPLICATE, ROW_GROUP_DOCUMENTS, SPLITS, Split
from gradus.data.drops import DropLog, Dropped, excerpt_of
from gradus.data.holdout import holdout_position
from gradus.data.prepared import DROP_SCHEMA, FATES, Left, PortionFiles, drop_rows
from gradus.data.worker import Report

# A row group ends early at this much text, so that memory is bounded whatever the documents' size.
_ROW_GROUP_BYTES = 1 << 22
_SHARD_BYTES = 1 << 28

Row = dict[str, Any]


class Fate(IntEnum):
    """What the whole corpus decides about a prepared document; NOT_TAKEN stands behind its source's limit."""

    KEPT = 0
    DUPLICATE = 1
    DUPLICATE_URL = 2
    NEAR_DUPLICATE = 3
    NOT_TAKEN = 4


# The reason that drops are counted by, and one sentence about it.
_REASONS = {
    Fate.DUPLICATE: ("duplicate", "same text as a document that is kept"),
    Fate.DUPLICATE_URL: ("duplicate_url", "same address as a document that is kept"),
    Fate.NEAR_DUPLICATE: (NEAR_DUPLICATE, "most of its text is in a document that is kept"),
}


def finish_portion(job: dict[str, Any], report: Report) -> dict[str, Any]:
    """Job "finish": {folder, number, out, validation_fraction, last} to the counts of what was written.

    last: the position after which nothing of the portion is taken, or None. The result: {number, least, drops,
    train: {documents, bytes, by_source}, validation: ...}; lengths stand in `<number>.<split>.lengths.npy`.
    """
    files, out = PortionFiles(Path(job["folder"]), job["number"]), Path(job["out"])
    if files["finished.json"].exists():
        done: dict[str, Any] = json.loads(files["finished.json"].read_text(encoding="utf-8"))
        return done
    writers = {split: ShardWriter(out / split, files.number) for split in SPLITS}
    least = 1.0
    with _DropWriter(out / DROPS / f"{files.number:05d}.parquet") as drops:
        drops.copy(files["drops.arrow"], job["last"])
        for row, fate in _prepared(files):
            if fate == Fate.KEPT:
                position = holdout_position(row["id"])
                split: Split = "validation" if position < job["validation_fraction"] else "train"
                if split == "train":
                    least = min(least, position)
                writers[split].add(row)
            elif fate != Fate.NOT_TAKEN:
                reason, detail = _REASONS[Fate(fate)]
                excerpt = excerpt_of(row["text"])  # many wait to be written, and need not hold their texts
                drops.add(Left(Dropped(reason, row["place"], detail, excerpt, row["source"]), 0, row["id"]))
    done = {"number": files.number, "least": least, "drops": drops.log.to_json()}
    for split, writer in writers.items():
        counts, lengths = writer.close()
        np.save(files[f"{split}.lengths.npy"], lengths, allow_pickle=False)
        done[split] = counts
    write_atomic(files["finished.json"], json.dumps(done))
    return done


def _prepared(files: PortionFiles) -> Iterator[tuple[Row, int]]:
    """Every prepared document with its fate, a batch in memory at a time."""
    fates: NDArray[np.uint8] = np.load(files[FATES], allow_pickle=False)
    with pa.OSFile(str(files["arrow"])) as file, pa.ipc.open_file(file) as reader:
        first = 0
        for number in range(reader.num_record_batches):
            rows = reader.get_batch(number).to_pylist()
            yield from zip(rows, fates[first : first + len(rows)].tolist(), strict=True)
            first += len(rows)


class _DropWriter:
    """Everything of a portion that was left out, one row each, with the counts and first samples."""

    def __init__(self, path: Path) -> None:
        self.log = DropLog()
        self._path = path
        self._pending: list[Left] = []

    def __enter__(self) -> _DropWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(
            self._path, DROP_SCHEMA, compression="zstd", use_dictionary=["reason", "source"]
        )
        return self

    def __exit__(self, *reason: object) -> None:
        self._flush()
        self._writer.close()
        fsync_file(self._path)

    def copy(self, path: Path, last: int | None) -> None:
        """What the first pass left out, up to position `last`."""
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                for row in reader.get_batch(number).to_pylist():
                    if last is not None and row["position"] > last:
                        return
                    one = Dropped(row["reason"], row["place"], row["detail"], row["excerpt"], row["source"])
                    self.add(Left(one, row["position"], row["id"]))

    def add(self, left: Left) -> None:
        self.log.add(left.dropped.source, left.dropped)
        self._pending.append(left)
        if len(self._pending) >= ROW_GROUP_DOCUMENTS:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_batch(drop_rows(self._pending))
            self._pending = []


class ShardWriter:
    """Parquet shards of one side of one portion, written a row group at a time."""

    def __init__(self, folder: Path, portion: int) -> None:
        self._folder, self._portion = folder, portion
        self._rows: list[Row] = []
        self._rows_bytes = self._shard_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._paths: list[Path] = []
        self._by_source: dict[str, dict[str, int]] = {}
        self._lengths: Counter[int] = Counter()

    def add(self, row: Row) -> None:
        """Append a row with the columns of CORPUS_SCHEMA; others are ignored."""
        size = len(row["text"].encode("utf-8"))
        self._rows.append(row)
        self._rows_bytes += size
        counts = self._by_source.setdefault(row["source"], {"documents": 0, "bytes": 0})
        counts["documents"] += 1
        counts["bytes"] += size
        self._lengths[size] += 1
        if len(self._rows) >= ROW_GROUP_DOCUMENTS or self._rows_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._paths.append(self._folder / f"{self._portion:05d}-{len(self._paths):03d}.parquet")
            self._writer = pq.ParquetWriter(
                self._paths[-1],
                CORPUS_SCHEMA,
                compression="zstd",
                compression_level=3,
                use_dictionary=["source"],
                write_statistics=False,
            )
        columns = {name: [row[name] for row in self._rows] for name in CORPUS_SCHEMA.names}
        self._writer.write_table(pa.table(columns, schema=CORPUS_SCHEMA), row_group_size=ROW_GROUP_DOCUMENTS)
        self._shard_bytes += self._rows_bytes
        self._rows, self._rows_bytes = [], 0
        if self._shard_bytes >= _SHARD_BYTES:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            fsync_file(self._paths[-1])
            self._writer, self._shard_bytes = None, 0

    def close(self) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """Finish; {documents, bytes, shards, by_source}, and (2, lengths): each length in bytes and how often."""
        self._flush()
        self._close_shard()
        lengths = np.array(sorted(self._lengths.items()), dtype=np.int64).reshape(-1, 2).T
        return {
            "documents": self._lengths.total(),
            "bytes": int((lengths[0] * lengths[1]).sum()),
            "shards": len(self._paths),
            "by_source": dict(sorted(self._by_source.items())),
        }, lengths
