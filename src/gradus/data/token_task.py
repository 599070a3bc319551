"""Writing the shards of one task of an append (token_writer.py), and the marker that says they are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.files import fsync_file, fsync_folder, write_atomic
from gradus.data.token_manifest import SetFacts, ShardEntry, SourceCounts

PENDING = "pending"
_MOST_SOURCES = 1 << 16


@dataclass(frozen=True, slots=True)
class TokenTask:
    """One task of an append: what its writer has to know, as JSON between processes.

    number: in the whole set. source_shard, filters: go into the manifest. append: identity of the append.
    """

    folder: str
    split: str
    number: int
    facts: SetFacts
    shard_tokens: int
    append: str
    source_shard: str = ""
    filters: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TokenTask:
        """The task of such values."""
        return cls(**{**values, "facts": SetFacts(**values["facts"])})


def marker_path(task: TokenTask) -> Path:
    """The file that says a task is finished, with the entries of its shards."""
    return Path(task.folder) / task.split / PENDING / f"{task.number:05d}.json"


def finished_task(task: TokenTask) -> list[ShardEntry] | None:
    """The entries of a finished task's shards; None where it is not finished or was another append's."""
    path = marker_path(task)
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["append"] != task.append:
        return None
    entries = [ShardEntry.from_json(line) for line in content["entries"]]
    for entry in entries:
        for suffix, expected in entry.files.items():
            file = Path(task.folder) / task.split / f"{entry.name}.{suffix}"
            if not file.is_file() or file.stat().st_size != expected["bytes"]:
                return None
    return entries


class TaskWriter:
    """Writes the shards of one task; `finish` says that they are whole. As a context manager, closes its files."""

    def __init__(self, task: TokenTask) -> None:
        self._task = task
        self._shards = Path(task.folder) / task.split
        # A marker of an earlier attempt must not vouch for files that are now written again.
        marker_path(task).unlink(missing_ok=True)
        self._first = [] if task.facts.separator is None else [np.array([task.facts.separator], dtype=np.int32)]
        self._entries: list[ShardEntry] = []
        self._shard: _OpenShard | None = None

    def add(
        self,
        ids: Sequence[NDArray[Any]],
        sources: Sequence[str],
        text_bytes: Sequence[int],
        masks: Sequence[NDArray[np.bool_]] | None = None,
    ) -> None:
        """Append documents; masks: one per document in the "documents" layout, absent in a stream."""
        if not ids:
            return
        if self._shard is None:
            name = f"{self._task.number:05d}-{len(self._entries):03d}"
            self._shard = _OpenShard(self._shards / name, self._task.facts)
        pieces = [part for document in ids for part in (*self._first, document)]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids)) + len(self._first)
        tokens = np.concatenate(pieces, dtype=self._task.facts.dtype, casting="unsafe")
        mask = None if masks is None else np.concatenate(list(masks))
        self._shard.write(tokens, lengths, sources, text_bytes, mask)
        if self._shard.num_tokens >= self._task.shard_tokens:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._entries.append(self._shard.close(self._task))
            self._shard = None

    def __enter__(self) -> TaskWriter:
        return self

    def __exit__(self, *reason: object) -> None:
        if self._shard is not None:
            self._shard.abandon()

    def finish(self) -> list[ShardEntry]:
        """End the last shard and mark the task as finished; durable when this returns."""
        self._close_shard()
        fsync_folder(self._shards)
        content = {"append": self._task.append, "entries": [entry.to_json() for entry in self._entries]}
        write_atomic(marker_path(self._task), json.dumps(content, ensure_ascii=False))
        return self._entries


class _OpenShard:
    """The files of the shard that is being written, with their checksums and the counts of its sources."""

    def __init__(self, stem: Path, facts: SetFacts) -> None:
        self._stem, self._facts = stem, facts
        self._files: dict[str, FileIO] = {}
        self._hashes: dict[str, Any] = {}
        self._bytes: dict[str, int] = {}
        self._sources: dict[str, list[int]] = {}
        self.num_tokens = 0
        self._num_documents = 0

    def write(
        self,
        tokens: NDArray[Any],
        lengths: NDArray[np.int64],
        sources: Sequence[str],
        text_bytes: Sequence[int],
        mask: NDArray[np.bool_] | None,
    ) -> None:
        starts = self.num_tokens + np.cumsum(lengths) - lengths
        self._append("bin", tokens)
        self._append("idx", starts.astype("<u8"))
        self._append("src", self._numbers(sources, lengths.tolist(), text_bytes))
        if mask is not None:
            self._append("mask", mask.astype(np.uint8))
        self.num_tokens += len(tokens)
        self._num_documents += len(lengths)

    def _numbers(self, sources: Sequence[str], lengths: Sequence[int], sizes: Sequence[int]) -> NDArray[Any]:
        """Each document's place in the shard's list of sources; counts them."""
        numbers = []
        places = {name: place for place, name in enumerate(self._sources)}
        for source, length, size in zip(sources, lengths, sizes, strict=True):
            place = places.setdefault(source, len(places))
            counts = self._sources.setdefault(source, [0, 0, 0])
            counts[0] += 1
            counts[1] += length
            counts[2] += size
            numbers.append(place)
        if len(places) > _MOST_SOURCES:
            raise DataError(f"{self._stem}: more than {_MOST_SOURCES:,} sources; give the files one name")
        return np.array(numbers, dtype="<u2")

    def _append(self, suffix: str, values: NDArray[Any]) -> None:
        if suffix not in self._files:
            self._files[suffix] = self._stem.with_suffix(f".{suffix}").open("wb", buffering=0)
            self._hashes[suffix], self._bytes[suffix] = hashlib.sha256(), 0
        content = np.ascontiguousarray(values).view(np.uint8).data
        self._hashes[suffix].update(content)
        written = 0
        while written < len(content):
            written += self._files[suffix].write(content[written:])
        self._bytes[suffix] += written

    def abandon(self) -> None:
        """Close the files as they are; nothing says that they are whole."""
        for file in self._files.values():
            file.close()

    def close(self, task: TokenTask) -> ShardEntry:
        """End the shard (with one more separator in a stream); its manifest entry."""
        self._append("idx", np.array([self.num_tokens], dtype="<u8"))
        if self._facts.separator is not None:
            self._append("bin", np.array([self._facts.separator], dtype=self._facts.dtype))
        for file in self._files.values():
            file.close()
            fsync_file(Path(file.name))
        files = {
            suffix: {"bytes": self._bytes[suffix], "sha256": self._hashes[suffix].hexdigest()}
            for suffix in sorted(self._files)
        }
        by_source = tuple(SourceCounts(name, *counts) for name, counts in self._sources.items())
        return ShardEntry(
            self._stem.name,
            task.number,
            self._num_documents,
            self.num_tokens,
            by_source,
            files,
            task.source_shard,
            task.filters,
        )
