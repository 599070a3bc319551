"""What every source of shards that stand elsewhere has in common: columns, limits, order, and what is stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from gradus.core.quantity import Quantity
from gradus.core.settings import Settings
from gradus.data.file_formats import ReadOptions
from gradus.data.limits import BYTES_PER_TOKEN, TextLimit, checked_limit, text_limit
from gradus.data.shard_tasks import RawPolicy


class Transport(Settings):
    """limit: text to keep at most, in documents, bytes or tokens ("10B tokens"). bytes_per_token: how many bytes of
    text a token of the limit stands for.

    weight: how often it is seen beside other sources, recorded for mixtures. shuffle: take the shards in an order
    drawn from the stage's seed, so that a limit takes from everywhere; else by name. shuffle_buffer: rows shuffled
    together inside a shard, 0 keeps their order. raw: what becomes of a shard's bytes: "stream" reads them over the
    network and stores nothing, "delete" stores a shard while it is read, "keep" keeps it for the next corpus.
    """

    limit: Quantity | None = None
    bytes_per_token: float = Field(default=BYTES_PER_TOKEN, gt=0, le=100)
    weight: float = Field(default=1.0, gt=0)
    shuffle: bool = True
    shuffle_buffer: int = Field(default=0, ge=0, le=1 << 20)
    # How the bytes travel does not change the documents: not part of what identifies a corpus.
    raw: RawPolicy = Field(default="stream", exclude=True)

    @field_validator("limit")
    @classmethod
    def _limit_counts_text(cls, limit: Quantity | None) -> Quantity | None:
        return checked_limit(limit)

    @property
    def text_limit(self) -> TextLimit:
        """The limit in what can be counted while reading."""
        return text_limit(self.limit, self.bytes_per_token)


class RemoteSettings(Transport):
    """name: the label of the documents.

    text_key: the column that holds the text, "a.b" is b inside a; of several, their texts are joined by a blank line.
    id_key: a column kept as id beside each document. url_key: a column kept as its url. where: only rows whose
    columns have one of the given values, such as { language = "Python" }. max_line_bytes: a longer line is dropped
    and counted, never held in memory. damaged: whether a damaged shard stops the work ("refuse") or gives what can
    be read of it ("keep").
    """

    name: str | None = None
    text_key: str | tuple[str, ...] = "text"
    id_key: str | None = None
    url_key: str | None = None
    where: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    max_line_bytes: int = Field(default=1 << 26, ge=1, le=1 << 30)
    damaged: Literal["refuse", "keep"] = "refuse"

    def read_options(self) -> ReadOptions:
        """For the readers."""
        return ReadOptions(
            text_keys=as_tuple(self.text_key),
            split="line",
            max_line_bytes=self.max_line_bytes,
            keep_damaged=self.damaged == "keep",
            id_key=self.id_key,
            url_key=self.url_key,
            where=tuple((column, as_tuple(values)) for column, values in self.where.items()),
        )


def as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One text or several, as several."""
    return (value,) if isinstance(value, str) else value
