"""Token shards: documents as numbers on disk, read through memory maps.

A side (train, validation) is a folder of shards and a manifest `<side>.json`. Shard NNNNN has

    .bin    token ids, little-endian uint16 (vocabulary up to 65,536) or uint32, documents end to end
    .idx    uint64, where each document begins, and where the last one ends
    .src    uint16 per document, its source in the manifest's list
    .mask   uint8 per token, 1 where the token is trained; only in the "documents" layout

Layouts. "stream" (pretraining): every document is preceded by the end-of-text token and the shard ends with
one more, so each token's target is the next token of the stream. "documents" (conversations): documents as
they were rendered, and a token is a target where its mask says so. The manifest lists shards in order, each
entry chained to the one before by a hash, so that a changed or swapped shard shows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.files import fsync_file, write_atomic
from gradus.core.fingerprint import digest
from gradus.data.document import Document
from gradus.data.lengths import length_statistics
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

Layout = Literal["stream", "documents"]
FORMAT_VERSION = 1
# 256 MiB of uint16.
SHARD_TOKENS = 1 << 27
# Text that is encoded at a time; ids pass through Python lists at about ten times its size.
_BATCH_BYTES = 1 << 22


def write_token_shards(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    out: Path,
    *,
    split: str,
    shard_tokens: int = SHARD_TOKENS,
    batch_bytes: int = _BATCH_BYTES,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Encode documents into `out`/`split` in the stream layout; returns the manifest's counts.

    Holds about ten times `batch_bytes` (more for a single longer document). on_progress: called with
    (documents, UTF-8 bytes) done so far. An earlier side of the same name is replaced.
    """
    writer = TokenWriter(
        out, split, "stream", tokenizer, separator=tokenizer.special(END_OF_TEXT), shard_tokens=shard_tokens
    )
    batch: list[Document] = []
    sizes: list[int] = []
    num_documents = num_bytes = pending_bytes = 0

    def flush() -> None:
        ids = tokenizer.encode_batch([d.text for d in batch])
        writer.add(ids, [d.source for d in batch], sizes)
        batch.clear()
        sizes.clear()
        if on_progress is not None:
            on_progress(num_documents, num_bytes)

    for document in documents:
        size = len(document.text.encode("utf-8"))
        batch.append(document)
        sizes.append(size)
        num_documents, num_bytes, pending_bytes = num_documents + 1, num_bytes + size, pending_bytes + size
        if pending_bytes >= batch_bytes or len(batch) >= 4096:
            flush()
            pending_bytes = 0
    if batch:
        flush()
    return writer.close()


class TokenWriter:
    """Writes one side's shards and, last, its manifest."""

    def __init__(
        self,
        out: Path,
        split: str,
        layout: Layout,
        tokenizer: Tokenizer,
        *,
        separator: int | None = None,
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        self._out, self._split, self._layout = out, split, layout
        self._separator = separator
        self._shard_tokens = shard_tokens
        self._dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self._facts = {"vocab_size": tokenizer.vocab_size, "tokenizer": tokenizer.digest}
        self._sources: dict[str, int] = {}
        self._by_source: dict[str, dict[str, int]] = {}
        self._lengths: list[NDArray[np.int64]] = []
        self._shard: _OpenShard | None = None
        self._entries: list[dict[str, Any]] = []
        shutil.rmtree(out / split, ignore_errors=True)
        (out / split).mkdir(parents=True)
        _manifest_path(out, split).unlink(missing_ok=True)

    def add(
        self,
        ids: Sequence[NDArray[np.int32]],
        sources: Sequence[str],
        text_bytes: Sequence[int],
        masks: Sequence[NDArray[np.bool_]] | None = None,
    ) -> None:
        """Append documents; masks: one per document in the "documents" layout, absent in a stream."""
        if not ids:
            return
        pieces: list[NDArray[np.int32]] = []
        first = np.array([] if self._separator is None else [self._separator], dtype=np.int32)
        for document in ids:
            pieces += [first, document]
        lengths = np.array([len(first) + len(document) for document in ids], dtype=np.int64)
        for source, length, size in zip(sources, lengths.tolist(), text_bytes, strict=True):
            counts = self._by_source.setdefault(source, {"documents": 0, "tokens": 0, "bytes": 0})
            counts["documents"] += 1
            counts["tokens"] += length
            counts["bytes"] += size
        numbers = [self._sources.setdefault(source, len(self._sources)) for source in sources]
        if len(self._sources) > 1 << 16:
            raise DataError(f"{self._out}: more than 65,536 sources; give the files one name")
        if self._shard is None:
            self._shard = _OpenShard(self._out / self._split / f"{len(self._entries):05d}", self._dtype)
        mask = None if masks is None else np.concatenate(list(masks))
        self._shard.write(np.concatenate(pieces), lengths, np.array(numbers), mask)
        self._lengths.append(lengths)
        if self._shard.num_tokens >= self._shard_tokens:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is None:
            return
        entry = self._shard.close(self._separator)
        previous = self._entries[-1]["chain"] if self._entries else ""
        self._entries.append({**entry, "chain": digest([previous, entry])})
        self._shard = None

    def close(self) -> dict[str, Any]:
        """Finish the last shard and write the manifest; returns {documents, tokens, bytes, ...}."""
        self._close_shard()
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, dtype=np.int64)
        counts: dict[str, Any] = {
            "documents": len(lengths),
            "tokens": int(lengths.sum()),
            "bytes": sum(c["bytes"] for c in self._by_source.values()),
            "by_source": dict(sorted(self._by_source.items())),
            "document_tokens": length_statistics(lengths),
        }
        manifest = {
            "format_version": FORMAT_VERSION,
            "layout": self._layout,
            "dtype": self._dtype.name,
            **self._facts,
            "separator": self._separator,
            "sources": list(self._sources),
            "counts": counts,
            "shards": self._entries,
        }
        write_atomic(_manifest_path(self._out, self._split), json.dumps(manifest, ensure_ascii=False, indent=1))
        return counts


class _OpenShard:
    """The files of the shard that is being written, with their checksums."""

    def __init__(self, stem: Path, dtype: np.dtype[Any]) -> None:
        self._stem, self._dtype = stem, dtype
        self._files: dict[str, BinaryIO] = {}
        self._hashes: dict[str, Any] = {}
        self.num_tokens = 0
        self._num_documents = 0

    def write(
        self,
        tokens: NDArray[np.int32],
        lengths: NDArray[np.int64],
        sources: NDArray[np.int64],
        mask: NDArray[np.bool_] | None,
    ) -> None:
        starts = self.num_tokens + np.cumsum(lengths) - lengths
        self._append("bin", tokens.astype(self._dtype))
        self._append("idx", starts.astype("<u8"))
        self._append("src", sources.astype("<u2"))
        if mask is not None:
            self._append("mask", mask.astype(np.uint8))
        self.num_tokens += len(tokens)
        self._num_documents += len(lengths)

    def _append(self, suffix: str, values: NDArray[Any]) -> None:
        if suffix not in self._files:
            self._files[suffix] = self._stem.with_suffix(f".{suffix}").open("wb")
            self._hashes[suffix] = hashlib.sha256()
        content = values.tobytes()
        self._files[suffix].write(content)
        self._hashes[suffix].update(content)

    def close(self, separator: int | None) -> dict[str, Any]:
        """End the shard (with one more separator in a stream); its manifest entry."""
        self._append("idx", np.array([self.num_tokens], dtype="<u8"))
        if separator is not None:
            self._append("bin", np.array([separator], dtype=self._dtype))
        for file in self._files.values():
            file.close()
            fsync_file(Path(file.name))
        return {
            "name": self._stem.name,
            "documents": self._num_documents,
            "tokens": self.num_tokens,
            "sha256": {suffix: value.hexdigest() for suffix, value in sorted(self._hashes.items())},
        }


@dataclass(frozen=True, slots=True)
class Pieces:
    """Parts of documents as training sees them, end to end; arrays are (tokens,).

    targets: the token after each token; trained: whether that target counts.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    trained: NDArray[np.bool_]


class TokenStore:
    """The documents of one side, in order, over all its shards.

    lengths: (documents,) tokens of each, in a stream with its leading separator. source_index: (documents,)
    into `sources`. Errors: DataError where shards are missing, cut short or were written otherwise.
    """

    def __init__(self, folder: Path, split: str) -> None:
        path = _manifest_path(folder, split)
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f'{folder}: no token shards for "{split}" here ({path.name} is missing)') from None
        if manifest.get("format_version") != FORMAT_VERSION:
            raise DataError(f"{path}: not token shards of format version {FORMAT_VERSION}; tokenize again")
        self.folder, self.split = folder, split
        self.layout: Layout = manifest["layout"]
        self.separator: int | None = manifest["separator"]
        self.vocab_size: int = manifest["vocab_size"]
        self.tokenizer_digest: str = manifest["tokenizer"]
        self.sources: list[str] = manifest["sources"]
        self.counts: dict[str, Any] = manifest["counts"]
        _check_chain(path, manifest["shards"])
        self._maps: list[NDArray[Any]] = []
        self._masks: list[NDArray[np.uint8]] = []
        starts, lengths, sources = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for entry in manifest["shards"]:
            stem = folder / split / entry["name"]
            num_documents, num_tokens = entry["documents"], entry["tokens"]
            closing = int(self.separator is not None)
            self._maps.append(_map(stem, "bin", manifest["dtype"], num_tokens + closing))
            if self.layout == "documents":
                self._masks.append(_map(stem, "mask", "uint8", num_tokens))
            bounds = _map(stem, "idx", "uint64", num_documents + 1).astype(np.int64)
            starts.append(bounds[:-1])
            lengths.append(np.diff(bounds))
            sources.append(_map(stem, "src", "uint16", num_documents).astype(np.int64))
        self._starts = np.concatenate(starts)
        self.lengths = np.concatenate(lengths)
        self.source_index = np.concatenate(sources)
        # Document number at which each shard begins, for finding a document's shard.
        self._first = np.cumsum([0, *(len(part) for part in starts[1:])])

    @property
    def num_documents(self) -> int:
        return len(self.lengths)

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all documents; in a stream also the number of targets."""
        return int(self.lengths.sum())

    def ids(self, document: int) -> NDArray[np.int64]:
        """All tokens of one document."""
        one = np.array([document], dtype=np.int64)
        return self.pieces(one, np.zeros(1, dtype=np.int64), self.lengths[one]).tokens

    def pieces(self, document: NDArray[np.int64], offset: NDArray[np.int64], length: NDArray[np.int64]) -> Pieces:
        """Tokens [offset[i], offset[i] + length[i]) of document[i] with their targets, for all i end to end.

        In a stream the target of a document's last token is the separator that follows; in the "documents"
        layout it has none. Errors: DataError for a piece outside its document.
        """
        ends = offset + length
        outside = (offset < 0) | (length < 1) | (ends > self.lengths[document])
        if outside.any():
            i = int(np.argmax(outside))
            raise DataError(
                f"{self.folder}: piece [{offset[i]}, {ends[i]}) is outside document {document[i]} of "
                f"{self.lengths[document[i]]} tokens; the pack plan belongs to other shards"
            )
        first = np.cumsum(length) - length
        within = np.arange(int(length.sum())) - np.repeat(first, length)
        index = np.repeat(self._starts[document] + offset, length) + within
        shards = np.searchsorted(self._first, document, side="right") - 1
        # Per token, whether its document ends with it.
        is_last = within == np.repeat(np.where(ends == self.lengths[document], length - 1, -1), length)
        used = np.unique(shards).tolist()
        if len(used) == 1:
            return self._gather(used[0], index, is_last)
        shard_of_token = np.repeat(shards, length)
        found = Pieces(np.empty_like(index), np.empty_like(index), np.empty(len(index), dtype=bool))
        for shard in used:
            here = shard_of_token == shard
            part = self._gather(shard, index[here], is_last[here])
            found.tokens[here], found.targets[here] = part.tokens, part.targets
            found.trained[here] = part.trained
        return found

    def _gather(self, shard: int, index: NDArray[np.int64], is_last: NDArray[np.bool_]) -> Pieces:
        tokens = self._maps[shard]
        if self.layout == "stream":
            trained = np.ones(len(index), dtype=bool)
            return Pieces(tokens[index].astype(np.int64), tokens[index + 1].astype(np.int64), trained)
        following = np.where(is_last, index, index + 1)
        trained = (self._masks[shard][following] != 0) & ~is_last
        return Pieces(tokens[index].astype(np.int64), tokens[following].astype(np.int64), trained)


def _manifest_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.json"


def _check_chain(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    previous = ""
    for entry in entries:
        content = {key: value for key, value in entry.items() if key != "chain"}
        if digest([previous, content]) != entry["chain"]:
            raise DataError(
                f"{path}: the entry of shard {entry['name']} is not the one that was written; tokenize again"
            )
        previous = entry["chain"]


def _map(stem: Path, suffix: str, dtype: str, count: int) -> NDArray[Any]:
    """A file of `count` little-endian numbers as a read-only memory map."""
    path = stem.with_suffix(f".{suffix}")
    kind = np.dtype(dtype).newbyteorder("<")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"{path}: the shard file is missing; tokenize again") from None
    if size != count * kind.itemsize:
        raise DataError(f"{path}: {size} bytes, expected {count * kind.itemsize}; tokenize again")
    if count == 0:
        return np.zeros(0, dtype=kind)
    # As a plain array: the memmap class makes every slice slower.
    return np.memmap(path, dtype=kind, mode="r", shape=(count,)).view(np.ndarray)
