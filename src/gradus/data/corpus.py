"""A corpus: the documents of some sources, normalised, each once, divided into train and validation.

On disk: `train/` and `validation/` with zstandard parquet shards (columns id, text, source, meta as JSON; row
groups of 1,024), `corpus.json` with the counts, `drops.json` with what was left out and why.
"""

from __future__ import annotations

import json
import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from gradus.core.errors import DataError
from gradus.core.files import fsync_file, write_atomic
from gradus.data.dedup import SeenHashes
from gradus.data.document import Document, document_id
from gradus.data.drops import DropLog, Dropped
from gradus.data.holdout import holdout_position
from gradus.data.lengths import length_statistics
from gradus.data.normalise import normalise_text
from gradus.data.sources import FilesSource, RawText, SyntheticSource, read_source

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")

ROW_GROUP_DOCUMENTS = 1024
# A row group ends early at this much text, so that memory is bounded whatever the documents' size.
_ROW_GROUP_BYTES = 1 << 25
_SHARD_BYTES = 1 << 28
_SCHEMA = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("source", pa.string()), ("meta", pa.string())])


def build_corpus(
    sources: Sequence[FilesSource | SyntheticSource],
    out: Path,
    *,
    roadmap_dir: Path,
    normalise: bool = True,
    dedup: Literal["exact", "none"] = "exact",
    validation_fraction: float = 0.01,
    min_characters: int = 1,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Read the sources in order and write the corpus into `out`; returns the counts (also in `corpus.json`).

    Exact duplicates keep the first. The validation side depends on a document's text alone; the seed is for
    synthetic sources. on_progress: called now and then with (documents read, UTF-8 bytes read).
    Errors: DataError, also where a side would be empty.
    """
    # The counts are written last and make the folder a corpus; those of an earlier build go first.
    (out / "corpus.json").unlink(missing_ok=True)
    for split in SPLITS:
        shutil.rmtree(out / split, ignore_errors=True)
    scratch = out / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    builder = _Builder(out, scratch, dedup == "exact", validation_fraction)
    for source in sources:
        limit = int(source.limit.value) if isinstance(source, FilesSource) and source.limit else None
        builder.begin_source(limit)
        for raw in read_source(source, roadmap_dir, seed):
            if isinstance(raw, Dropped):
                builder.drop(raw.source, raw)
                continue
            document = _document(raw, normalise, min_characters)
            if isinstance(document, Dropped):
                builder.drop(raw.source, document)
            elif not builder.add(document, raw.place):
                break
            if on_progress is not None and builder.num_read % 256 == 0:
                on_progress(builder.num_read, builder.bytes_read)
        builder.settle()
    counts = builder.finish()
    if on_progress is not None:
        on_progress(builder.num_read, builder.bytes_read)
    shutil.rmtree(scratch, ignore_errors=True)
    write_atomic(out / "corpus.json", json.dumps(counts, ensure_ascii=False, indent=1))
    builder.drops.write(out / "drops.json")
    return counts


def read_corpus(folder: Path, split: Split) -> Iterator[Document]:
    """The documents of one side, in the order they were written, one row group in memory at a time.

    Errors: DataError where `folder` holds no corpus or a shard is damaged.
    """
    for shard in corpus_shards(folder, split):
        try:
            with pq.ParquetFile(shard) as file:
                for group in range(file.num_row_groups):
                    for row in file.read_row_group(group).to_pylist():
                        yield Document(row["text"], row["id"], row["source"], json.loads(row["meta"]))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{shard}: damaged corpus shard ({error}); build the corpus again") from error


def corpus_shards(folder: Path, split: Split) -> list[Path]:
    """The shards of one side in their order. Errors: DataError where `folder` holds no corpus."""
    if not (folder / "corpus.json").is_file():
        raise DataError(f"{folder}: no corpus here (corpus.json is missing)")
    return sorted((folder / split).glob("*.parquet"))


def corpus_counts(folder: Path) -> dict[str, Any]:
    """The counts that `build_corpus` returned for this folder."""
    try:
        counts: dict[str, Any] = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no corpus here (corpus.json is missing)") from None
    return counts


def _document(raw: RawText, normalise: bool, min_characters: int) -> Document | Dropped:
    text = normalise_text(raw.text) if normalise else raw.text
    if not text.strip():
        return Dropped("empty", raw.place)
    if len(text) < min_characters:
        return Dropped("too_short", raw.place, f"{len(text)} characters, fewer than {min_characters}", text)
    try:
        identity = document_id(text)
    except UnicodeEncodeError as error:
        return Dropped("invalid_unicode", raw.place, f"lone surrogate at position {error.start}", text)
    return Document(text, identity, raw.source, raw.meta)


class _Builder:
    """Documents in, shards and counts out; holds one row group of documents."""

    def __init__(self, out: Path, scratch: Path, dedup: bool, validation_fraction: float) -> None:
        self.drops = DropLog()
        self.num_read = 0
        self.bytes_read = 0
        self._seen = SeenHashes(scratch / "hashes") if dedup else None
        self._fraction = validation_fraction
        self._writers = {split: _ShardWriter(out / split) for split in SPLITS}
        self._pending: list[tuple[Document, str]] = []
        self._pending_bytes = 0
        self._room: int | None = None
        self._least_position = 1.0  # of the documents in train

    def begin_source(self, limit: int | None) -> None:
        self._room = limit

    def drop(self, source: str, dropped: Dropped) -> None:
        self.num_read += 1
        self.drops.add(source, dropped)

    def add(self, document: Document, place: str) -> bool:
        """Take one document that stood at `place`; False when the source's limit is reached."""
        size = len(document.text.encode("utf-8"))
        self.num_read += 1
        self.bytes_read += size
        self._pending.append((document, place))
        self._pending_bytes += size
        # Near a limit every document is settled at once, since a duplicate does not count towards it.
        nearly_full = self._room is not None and len(self._pending) >= self._room
        if nearly_full or len(self._pending) >= ROW_GROUP_DOCUMENTS or self._pending_bytes >= _ROW_GROUP_BYTES:
            self.settle()
        return self._room is None or self._room > 0

    def settle(self) -> None:
        """Decide about the pending documents: duplicate, train or validation."""
        if not self._pending:
            return
        is_new = self._seen.add([document.id for document, _ in self._pending]).tolist() if self._seen else None
        for index, (document, place) in enumerate(self._pending):
            if is_new is not None and not is_new[index]:
                detail = f"same text as an earlier document, id {document.id}"
                self.drops.add(document.source, Dropped("duplicate", place, detail, document.text[:200]))
                continue
            if self._room is not None:
                self._room -= 1
            position = holdout_position(document.id)
            split: Split = "validation" if position < self._fraction else "train"
            if split == "train":
                self._least_position = min(self._least_position, position)
            self._writers[split].add(document)
        self._pending, self._pending_bytes = [], 0

    def finish(self) -> dict[str, Any]:
        written: dict[str, dict[str, Any]] = {split: writer.close() for split, writer in self._writers.items()}
        self._refuse_empty_sides({split: counts["documents"] for split, counts in written.items()})
        return {
            "read": self.num_read,
            "kept": sum(counts["documents"] for counts in written.values()),
            "dropped": dict(sorted(self.drops.by_reason.items())),
            **written,
        }

    def _refuse_empty_sides(self, documents: dict[str, int]) -> None:
        if not any(documents.values()):
            sample = self.drops.first_sample()
            raise DataError(
                f"the sources hold no usable document: {self.num_read} read, dropped {self.drops.summary()}"
                + (f" (first: {sample})" if sample else "")
            )
        if self._fraction > 0 and not documents["validation"]:
            raise DataError(
                f"validation_fraction = {self._fraction:g} holds out none of {documents['train']} documents; "
                f"set it above {self._least_position:.4f} for at least one, or to 0 for none; "
                'of a few long texts, split = "paragraphs" makes more documents'
            )
        if not documents["train"]:
            raise DataError(
                f"validation_fraction = {self._fraction:g} holds out all {documents['validation']} documents "
                "and leaves none to train on; set it lower"
            )


class _ShardWriter:
    """Parquet shards of one side, written a row group at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Document] = []
        self._rows_bytes = 0
        self._shard_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._paths: list[Path] = []
        self._by_source: dict[str, dict[str, int]] = {}
        self._lengths = array("q")

    def add(self, document: Document) -> None:
        size = len(document.text.encode("utf-8"))
        self._rows.append(document)
        self._rows_bytes += size
        counts = self._by_source.setdefault(document.source, {"documents": 0, "bytes": 0})
        counts["documents"] += 1
        counts["bytes"] += size
        self._lengths.append(size)
        if len(self._rows) >= ROW_GROUP_DOCUMENTS or self._rows_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._paths.append(self._folder / f"{len(self._paths):05d}.parquet")
            self._writer = pq.ParquetWriter(
                self._paths[-1],
                _SCHEMA,
                compression="zstd",
                compression_level=3,
                use_dictionary=["source"],
                write_statistics=False,
            )
        columns = {
            "id": [d.id for d in self._rows],
            "text": [d.text for d in self._rows],
            "source": [d.source for d in self._rows],
            "meta": [json.dumps(dict(d.meta)) for d in self._rows],
        }
        self._writer.write_table(pa.table(columns, schema=_SCHEMA), row_group_size=ROW_GROUP_DOCUMENTS)
        self._shard_bytes += self._rows_bytes
        self._rows, self._rows_bytes = [], 0
        if self._shard_bytes >= _SHARD_BYTES:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            fsync_file(self._paths[-1])
            self._writer, self._shard_bytes = None, 0

    def close(self) -> dict[str, Any]:
        """Finish the last shard; {documents, bytes, by_source, document_bytes}."""
        self._flush()
        self._close_shard()
        return {
            "documents": len(self._lengths),
            "bytes": sum(self._lengths),
            "shards": len(self._paths),
            "by_source": dict(sorted(self._by_source.items())),
            "document_bytes": length_statistics(self._lengths),
        }
