"""How much of a source is kept: a limit in documents, bytes or tokens as what can be counted while reading.

Tokens are known only after the tokenizer, so a limit in tokens is one in bytes of UTF-8 text, at a stated figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradus.core.quantity import Quantity

# English at vocabularies of about 32,000: 3.98 (qwen2 pattern) to 4.08 (cl100k) bytes a token, held-out. FineWeb-Edu
# counts 4.6 with GPT-2's 50,257. Code and mathematics take fewer bytes a token.
BYTES_PER_TOKEN = 4.0
_UNITS = ("documents", "bytes", "tokens")


@dataclass(frozen=True, slots=True)
class TextLimit:
    """At most so many documents, or so many bytes of UTF-8 text; None is no bound.

    The document that reaches a bound in bytes is kept whole, so at most one document goes beyond it.
    """

    documents: int | None = None
    text_bytes: int | None = None

    @property
    def is_bound(self) -> bool:
        return self.documents is not None or self.text_bytes is not None

    def reached(self, documents: int, text_bytes: int) -> bool:
        """Whether this much is enough."""
        return (self.documents is not None and documents >= self.documents) or (
            self.text_bytes is not None and text_bytes >= self.text_bytes
        )


def text_limit(limit: Quantity | None, bytes_per_token: float = BYTES_PER_TOKEN) -> TextLimit:
    """What a setting means; no setting is no bound."""
    if limit is None:
        return TextLimit()
    if limit.unit == "documents":
        return TextLimit(documents=max(1, int(limit.value)))
    scale = bytes_per_token if limit.unit == "tokens" else 1.0
    return TextLimit(text_bytes=max(1, round(limit.value * scale)))


def checked_limit(limit: Quantity | None) -> Quantity | None:
    """For settings classes. Errors: ValueError for a unit that text is not counted in."""
    if limit is not None and limit.unit not in _UNITS:
        raise ValueError(
            'a limit counts documents, bytes or tokens, such as "20_000 documents", "5 GB" or "10B tokens"; '
            f"found {limit.unit}"
        )
    return limit
