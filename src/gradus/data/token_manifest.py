"""The manifest of a token shard set: what it is, its shards and its generations, one JSON object a line.

    {"format": "gradus token shards", "format_version": 2, "layout": ..., "vocab_size": ..., "tokenizer": ..., ...}
    {"shard": "00000-000", "task": 0, "documents": ..., "tokens": ..., "files": {"bin": {"bytes", "sha256"}, ...}, ...}
    {"generation": 1, "shards": 1, "tasks": 1, "counts": {...}}

Lines are only ever added, and every append ends with a generation: what a run pins is a prefix of the file. Each line
carries a hash over itself and the hash of the line before ("chain"), so a changed, dropped or swapped line shows, and
the chain of a generation names everything up to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gradus.core.errors import DataError
from gradus.core.fingerprint import digest
from gradus.tokenizer.tokenizer import Tokenizer

Layout = Literal["stream", "documents"]
FORMAT = "gradus token shards"
FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What holds for every shard of a set. tokenizer: its digest; separator: the id before documents of a stream."""

    layout: Layout
    vocab_size: int
    tokenizer: str
    separator: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 while every id fits into it, else uint32; little-endian."""
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")


def set_facts(tokenizer: Tokenizer, layout: Layout, separator: int | None = None) -> SetFacts:
    """The facts of a set that this tokenizer writes."""
    return SetFacts(layout, tokenizer.vocab_size, tokenizer.digest, separator)


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """What one source has in a shard. bytes: UTF-8, of the texts."""

    name: str
    documents: int
    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard. task: which task of the set made it; source_shard: what the task read; filters: what had judged it.

    by_source: in the order of the numbers in its .src file. files: {"bytes", "sha256"} by suffix.
    """

    name: str
    task: int
    documents: int
    tokens: int
    by_source: tuple[SourceCounts, ...]
    files: Mapping[str, Mapping[str, Any]]
    source_shard: str = ""
    filters: str = ""

    def to_json(self) -> dict[str, Any]:
        """The entry as a line of the manifest, without its chain."""
        fields = asdict(self)
        return {"shard": fields.pop("name"), **fields, "by_source": [asdict(counts) for counts in self.by_source]}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> ShardEntry:
        """The entry of such a line."""
        fields = {name: value for name, value in line.items() if name not in ("shard", "chain")}
        by_source = tuple(SourceCounts(**counts) for counts in fields.pop("by_source"))
        return cls(name=line["shard"], by_source=by_source, **fields)


@dataclass(frozen=True, slots=True)
class Generation:
    """The set after one append. shards, tasks: how many there are up to here; counts: over all of them.

    append: identity of the append that made it; chain: identity of the set as it then was.
    """

    number: int
    shards: int
    tasks: int
    append: str
    counts: Mapping[str, Any]
    chain: str


@dataclass(frozen=True, slots=True)
class TokenManifest:
    """A manifest that was read and found whole."""

    facts: SetFacts
    shards: tuple[ShardEntry, ...]
    generations: tuple[Generation, ...]
    content: bytes

    def generation(self, number: int | None, where: Path) -> Generation:
        """That generation, or the newest. Errors: DataError where there is none of that number."""
        if number is None:
            return self.generations[-1]
        if not 1 <= number <= len(self.generations):
            raise DataError(f"{where}: there is no generation {number}; the set has 1 to {len(self.generations)}")
        return self.generations[number - 1]


def manifest_path(folder: Path, split: str) -> Path:
    """Where the manifest of a side stands."""
    return folder / f"{split}.jsonl"


def read_manifest(folder: Path, split: str) -> TokenManifest:
    """The manifest of `folder`/`split`. Errors: DataError where it is missing, of another version or changed."""
    path = manifest_path(folder, split)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f'{folder}: no token shards for "{split}" here ({path.name} is missing)') from None
    lines = _checked_lines(path, content)
    header = lines[0]
    if header.get("format") != FORMAT or header.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path}: not token shards of format version {FORMAT_VERSION}; tokenize again")
    facts = SetFacts(header["layout"], header["vocab_size"], header["tokenizer"], header["separator"])
    shards = tuple(ShardEntry.from_json(line) for line in lines[1:] if "shard" in line)
    generations = tuple(
        Generation(line["generation"], line["shards"], line["tasks"], line["append"], line["counts"], line["chain"])
        for line in lines[1:]
        if "generation" in line
    )
    if not generations or "generation" not in lines[-1]:
        raise DataError(f"{path}: cut short, it does not end with a generation; tokenize again")
    return TokenManifest(facts, shards, generations, content)


def _checked_lines(path: Path, content: bytes) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    chain = ""
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
            rest = {name: value for name, value in line.items() if name != "chain"}
            found = line["chain"]
        except (ValueError, KeyError, AttributeError):
            raise DataError(f"{path}:{number}: not a line of a token shard manifest; tokenize again") from None
        if digest([chain, rest]) != found:
            what = f"the entry of shard {line['shard']}" if "shard" in line else "this line"
            raise DataError(f"{path}:{number}: {what} is not the one that was written; tokenize again")
        chain = found
        lines.append(line)
    if not lines:
        raise DataError(f"{path}: empty; tokenize again")
    return lines


def extended_manifest(
    before: TokenManifest | None,
    facts: SetFacts,
    entries: Sequence[ShardEntry],
    *,
    tasks: int,
    append: str,
    counts: Mapping[str, Any],
) -> bytes:
    """The content of the manifest after an append: what it held before, and one generation more.

    tasks: how many the append had; append: its identity; counts: over the whole set.
    """
    old = before.generations[-1] if before else None
    lines: list[dict[str, Any]] = []
    if before is None:
        header = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(facts), "dtype": facts.dtype.name}
        lines.append(header)
    lines += [entry.to_json() for entry in entries]
    lines.append(
        {
            "generation": (old.number if old else 0) + 1,
            "shards": (old.shards if old else 0) + len(entries),
            "tasks": (old.tasks if old else 0) + tasks,
            "append": append,
            "counts": counts,
        }
    )
    content, chain = (before.content, before.generations[-1].chain) if before else (b"", "")
    return content + b"".join(_chained(lines, chain))


def _chained(lines: Iterable[Mapping[str, Any]], chain: str) -> Iterable[bytes]:
    for line in lines:
        # Through JSON once, so that the hash is of what a reader finds.
        line = json.loads(json.dumps(line, ensure_ascii=False))
        chain = digest([chain, line])
        yield json.dumps({**line, "chain": chain}, ensure_ascii=False).encode() + b"\n"
