"""Document: the noun that flows from sources to token shards, and the identity of a text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Document:
    """One text for pretraining.

    id: `document_id` of the text; source: the label of the source it came from; meta: where in the source it
    stood and the short fields that came with it (title, licence).
    """

    text: str
    id: str
    source: str = ""
    meta: Mapping[str, str | int | float | bool] = field(default_factory=dict)


def document_id(text: str) -> str:
    """The first 128 bits of the SHA-256 of the UTF-8 text, as 32 hex digits."""
    return encoded_id(text.encode("utf-8"))


def encoded_id(text: bytes) -> str:
    """`document_id` of a text in UTF-8."""
    return hashlib.sha256(text).hexdigest()[:32]
