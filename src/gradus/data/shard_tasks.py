"""ShardTask: one piece of a source's work, complete in itself, and RawText, what reading one gives.

A task can be written as JSON and read on another machine; `shard_reading.read_shard` does the work. Tasks of one
source are independent of one another, and in their list's order they give the source's documents in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from gradus.data.file_formats import FileFormat, Meta, ReadOptions

# What becomes of a remote shard's bytes: read over the network and never stored, stored while they are read, stored.
RawPolicy = Literal["stream", "delete", "keep"]
Place = Literal["local", "http", "hub", "synthetic"]

# About how much text a packed byte holds.
_UNPACKED = 3


@dataclass(frozen=True, slots=True)
class RawText:
    """A text before normalisation. source: its label; place: where it stood, for messages."""

    text: str
    source: str
    place: str
    meta: Meta


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One file of a source, or one run of a generator.

    source: position of the source in the stage's list. name: the shard's name in the source, the same on every
    machine. label: of its documents. place, location: how to reach it: a path, an http(s) address, an address of
    the Hub with the commit in it, or a generator's name. size: bytes, where known. digest: what identifies its
    content, where known: "sha256:...", "git:..." (a blob's id) or "" (the location alone). rows: documents of a
    generator. seed: of generators, and of the order of rows where `shuffle_buffer` is not 0.
    """

    source: int
    name: str
    label: str
    place: Place
    location: str
    format: FileFormat = "jsonl"
    options: ReadOptions = field(default_factory=ReadOptions)
    size: int | None = None
    digest: str = ""
    rows: int | None = None
    seed: int = 0
    shuffle_buffer: int = 0
    raw: RawPolicy = "stream"

    @property
    def text_bytes(self) -> int | None:
        """About how much text it holds, where its size is known."""
        if self.size is None:
            return None
        return self.size * (_UNPACKED if self.name.endswith((".gz", ".zst", ".parquet")) else 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ShardTask:
        """The task that `to_json` wrote."""
        values = {own.name: data[own.name] for own in fields(cls)}
        options = dict(data["options"])
        options["text_keys"] = tuple(options["text_keys"])
        options["where"] = tuple((column, tuple(taken)) for column, taken in options["where"])
        return cls(**{**values, "options": ReadOptions(**options)})
