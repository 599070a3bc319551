"""Token ids to text, one at a time, without ever cutting a character in two."""

from __future__ import annotations

import codecs
from typing import Protocol


class TokenBytes(Protocol):
    """What a stream decoder needs of a tokenizer."""

    def decode_bytes(self, ids: list[int]) -> bytes: ...


class StreamDecoder:
    """Hands out text as soon as its bytes are whole; bytes that are no UTF-8 become U+FFFD.

    The pieces joined are `tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: TokenBytes) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that this token completes; may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token_id]))

    def finish(self) -> str:
        """The text for bytes still held back; the decoder may be used again afterwards."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
