"""Continuing plain text: what a base model writes after a beginning, without a conversation around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from gradus.engine.decoding import decode_streams
from gradus.engine.sampling import Sampling
from gradus.model.transformer import Transformer
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Beginning:
    """Tokens to go on from, at least one. until: texts before which it ends; stops: control tokens at which it does."""

    ids: Sequence[int]
    sampling: Sampling
    max_tokens: int
    until: tuple[str, ...] = ()
    stops: tuple[str, ...] = (END_OF_TEXT,)


class _Continuation:
    """A TokenStream that ends at a stop token, before one of the texts, or after `max_tokens`."""

    def __init__(self, beginning: Beginning, tokenizer: Tokenizer) -> None:
        self.prompt_ids: Sequence[int] = list(beginning.ids)
        self.sampling = beginning.sampling
        self.forced: deque[int] = deque()
        self.finished = False
        self.num_sampled = 0
        self._tokenizer = tokenizer
        self._stops = {tokenizer.special(name) for name in beginning.stops}
        self._until = [text.encode() for text in beginning.until if text]
        self._longest = max(map(len, self._until), default=0)
        self._max_tokens = beginning.max_tokens
        self._bytes = bytearray()

    @property
    def most_tokens(self) -> int:
        return len(self.prompt_ids) + self._max_tokens

    @property
    def text(self) -> str:
        """What was said."""
        return self._bytes.decode("utf-8", errors="replace")

    def push(self, token: int) -> None:
        self.num_sampled += 1
        if token in self._stops:
            self.finished = True
            return
        from_here = max(0, len(self._bytes) - self._longest)
        self._bytes += self._tokenizer.decode_bytes([token])
        ends = [end for text in self._until if (end := self._bytes.find(text, from_here)) >= 0]
        if ends:
            del self._bytes[min(ends) :]
        self.finished = bool(ends) or self.num_sampled >= self._max_tokens

    def run_out(self) -> None:
        self.finished = True


def continue_all(model: Transformer, tokenizer: Tokenizer, beginnings: Sequence[Beginning]) -> list[str]:
    """The model's continuation of each beginning, decoded together."""
    streams = [_Continuation(beginning, tokenizer) for beginning in beginnings]
    for _ in decode_streams(model, streams, tokenizer.vocab_size):
        pass
    return [stream.text for stream in streams]


def continue_texts(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], sampling: Sampling, max_tokens: int
) -> list[str]:
    """The model's continuation of each beginning, decoded together. A beginning may be empty."""
    end = tokenizer.special(END_OF_TEXT)
    # A document follows the end-of-text token, in training and here.
    beginnings = [Beginning([end, *tokenizer.encode(text)], sampling, max_tokens) for text in texts]
    return continue_all(model, tokenizer, beginnings)
