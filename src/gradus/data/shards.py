"""Token shards: documents as numbers on disk, read through memory maps.

A side (train, validation) is a folder of shards and a manifest `<side>.jsonl` (token_manifest.py). A shard has

    .bin    token ids, little-endian uint16 (vocabulary up to 65,536) or uint32, documents end to end
    .idx    uint64, where each document begins, and where the last one ends
    .src    uint16 per document, its source in the manifest's list for this shard
    .mask   uint8 per token, 1 where the token is trained; only in the "documents" layout

Layouts. "stream" (pretraining): every document is preceded by the end-of-text token and the shard ends with
one more, so each token's target is the next token of the stream. "documents" (conversations): documents as
they were rendered, and a token is a target where its mask says so.

Opening reads the manifest and looks at the files' sizes; a shard is mapped when something in it is asked for.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.fingerprint import digest, file_digest
from gradus.data.spans import Int64, Pieces, Spans, read_masked, read_stream
from gradus.data.token_manifest import Layout, SetFacts, ShardEntry, manifest_path, read_manifest


class TokenShard:
    """One shard; its files are mapped when first read. first_document: the number of its first one in the set."""

    def __init__(self, stem: Path, entry: ShardEntry, facts: SetFacts, first_document: int) -> None:
        self.stem, self.entry, self.first_document = stem, entry, first_document
        self._facts = facts
        # The stream ends with one more separator, the target of the last token.
        self._num_stored = entry.tokens + int(facts.separator is not None)
        for suffix, size in self._sizes().items():
            _check_size(stem.with_suffix(f".{suffix}"), size)

    def _sizes(self) -> dict[str, int]:
        sizes = {
            "bin": self._num_stored * self._facts.dtype.itemsize,
            "idx": (self.entry.documents + 1) * 8,
            "src": self.entry.documents * 2,
        }
        return sizes | ({"mask": self.entry.tokens} if self._facts.layout == "documents" else {})

    @property
    def name(self) -> str:
        return self.entry.name

    @cached_property
    def checksum(self) -> str:
        """Identity of the shard's documents: of all its files."""
        return digest({suffix: file["sha256"] for suffix, file in self.entry.files.items()})

    @cached_property
    def tokens(self) -> NDArray[Any]:
        """(tokens,) ids as stored; in a stream one separator more."""
        return self._map("bin", self._facts.dtype, self._num_stored)

    @cached_property
    def bounds(self) -> Int64:
        """(documents + 1,) where each document begins and the last one ends."""
        return self._map("idx", np.dtype("<u8"), self.entry.documents + 1).view("<i8")

    @cached_property
    def source_numbers(self) -> NDArray[np.uint16]:
        """(documents,) index into the sources of the shard's manifest entry."""
        return self._map("src", np.dtype("<u2"), self.entry.documents)

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """(tokens,) 1 where the token is trained; in the "documents" layout."""
        return self._map("mask", np.dtype(np.uint8), self.entry.tokens)

    @property
    def lengths(self) -> Int64:
        """(documents,) tokens of each, in a stream with its leading separator."""
        return np.diff(self.bounds)

    def _map(self, suffix: str, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        if count == 0:
            return np.zeros(0, dtype=dtype)
        # As a plain array: the memmap class makes every slice slower.
        path = self.stem.with_suffix(f".{suffix}")
        return np.memmap(path, dtype=dtype, mode="r", shape=(count,)).view(np.ndarray)


class TokenStore:
    """The documents of one side, in order, over all shards of a generation.

    generation: the newest if None. fingerprint: identity of the set up to it. Errors: DataError where shards are
    missing, cut short or were written otherwise.
    """

    def __init__(self, folder: Path, split: str, generation: int | None = None) -> None:
        manifest = read_manifest(folder, split)
        pinned = manifest.generation(generation, manifest_path(folder, split))
        self.folder, self.split = folder, split
        self.generation, self.num_generations = pinned.number, len(manifest.generations)
        self.fingerprint = pinned.chain
        self.facts = manifest.facts
        self.layout: Layout = manifest.facts.layout
        self.separator = manifest.facts.separator
        self.vocab_size = manifest.facts.vocab_size
        self.counts: dict[str, Any] = dict(pinned.counts)
        entries = manifest.shards[: pinned.shards]
        self.first_document = np.cumsum([0, *(entry.documents for entry in entries)])
        self.shards = [
            TokenShard(folder / split / entry.name, entry, manifest.facts, int(first))
            for entry, first in zip(entries, self.first_document, strict=False)
        ]
        # In the order in which they first come.
        self.sources = list(dict.fromkeys(source.name for entry in entries for source in entry.by_source))

    @property
    def num_documents(self) -> int:
        return int(self.first_document[-1])

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all documents; in a stream also the number of targets."""
        return sum(shard.entry.tokens for shard in self.shards)

    @cached_property
    def trained_fraction(self) -> float:
        """Share of the tokens that are trained; reads the mask of every shard in the "documents" layout."""
        if self.layout == "stream":
            return 1.0
        return sum(int(np.count_nonzero(shard.mask)) for shard in self.shards) / max(1, self.num_tokens)

    @cached_property
    def lengths(self) -> Int64:
        """(documents,) tokens of each; reads the index of every shard, so not for large sets."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *(shard.lengths for shard in self.shards)])

    @property
    def longest(self) -> int:
        """Tokens of the longest document, 0 where there is none; reads the index of one shard after the other."""
        return max((int(shard.lengths.max(initial=0)) for shard in self.shards), default=0)

    def tokens_by_length(self) -> dict[str, int]:
        """Tokens of the documents with at least so many tokens (1, 2, 4, ..., in figures) and fewer than twice as many;
        reads the index of one shard after the other."""
        found = np.zeros(63, dtype=np.int64)
        for shard in self.shards:
            lengths = shard.lengths[shard.lengths > 0]
            # frexp: a length in [2^(e-1), 2^e) has the exponent e.
            np.add.at(found, np.frexp(lengths)[1] - 1, lengths)
        return {str(1 << power): int(tokens) for power, tokens in enumerate(found) if tokens}

    @cached_property
    def source_index(self) -> Int64:
        """(documents,) index into `sources`; reads a file of every shard, so not for large sets."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *map(self.shard_sources, self.shards)])

    def shard_sources(self, shard: TokenShard) -> Int64:
        """(documents of the shard,) index into `sources`."""
        places = np.array([self.sources.index(source.name) for source in shard.entry.by_source], dtype=np.int64)
        return places[shard.source_numbers]

    def verify(self) -> None:
        """Read every file again. Errors: DataError naming the first whose checksum is not the manifest's."""
        for shard in self.shards:
            for suffix, file in shard.entry.files.items():
                path = shard.stem.with_suffix(f".{suffix}")
                if (found := file_digest(path)) != file["sha256"]:
                    raise DataError(
                        f"{path}: damaged: expected checksum {file['sha256'][:16]}, found {found[:16]}; tokenize again"
                    )

    def ids(self, document: int) -> Int64:
        """All tokens of one document."""
        shard = self.shards[int(np.searchsorted(self.first_document, document, side="right")) - 1]
        start, end = shard.bounds[document - shard.first_document : document - shard.first_document + 2].tolist()
        return shard.tokens[start:end].astype(np.int64)

    def pieces(self, document: Int64, offset: Int64, length: Int64) -> Pieces:
        """Tokens [offset[i], offset[i] + length[i]) of document[i] with their targets, for all i end to end.

        In a stream the target of a document's last token is the separator that follows; in the "documents"
        layout it has none. Errors: DataError for a piece outside its document.
        """
        shard = np.searchsorted(self.first_document, document, side="right") - 1
        start, size = np.empty_like(document), np.empty_like(document)
        for number in np.unique(shard).tolist():
            here = shard == number
            bounds = self.shards[number].bounds
            local = document[here] - self.shards[number].first_document
            start[here], size[here] = bounds[local], bounds[local + 1] - bounds[local]
        outside = (offset < 0) | (length < 1) | (offset + length > size)
        if outside.any():
            i = int(np.argmax(outside))
            raise DataError(
                f"{self.folder}: piece [{offset[i]}, {offset[i] + length[i]}) is outside document {document[i]} of "
                f"{size[i]} tokens; the pack plan belongs to other shards"
            )
        return self.read(Spans(shard, start + offset, length), is_last=offset + length == size)

    def read(self, spans: Spans, *, is_last: NDArray[np.bool_] | None = None) -> Pieces:
        """The tokens of these spans with their targets, end to end.

        is_last: (pieces,) whether a span ends its document, for the "documents" layout. Errors: DataError for a span
        outside its shard.
        """
        used = np.unique(spans.shard).tolist()
        for number in used:
            if spans.ends[spans.shard == number].max() > self.shards[number].entry.tokens:
                name = self.shards[number].name
                raise DataError(
                    f"{self.folder}: a piece is outside shard {name}; the pack plan belongs to other shards"
                )
        tokens = {number: self.shards[number].tokens for number in used}
        if self.layout == "stream":
            return read_stream(tokens, spans)
        mask = {number: self.shards[number].mask for number in used}
        return read_masked(tokens, mask, spans, np.zeros(len(spans.start), dtype=bool) if is_last is None else is_last)


def _check_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"{path}: the shard file is missing; tokenize again") from None
    if size != expected:
        raise DataError(f"{path}: {size} bytes, expected {expected}; tokenize again")
