"""Continuing plain text: what a base model writes after a beginning, without a conversation around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from gradus.engine.decoding import decode_streams
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.sampling import Sampling
from gradus.engine.stop_strings import StopStrings
from gradus.model.transformer import Transformer
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.streaming import StreamDecoder
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
        self.num_logprobs: int | None = None
        self.text = ""  # what was said
        self._decoder = StreamDecoder(tokenizer)
        self._until = StopStrings([text for text in beginning.until if text])
        self._stops = {tokenizer.special(name) for name in beginning.stops}
        self._max_tokens = beginning.max_tokens

    @property
    def most_tokens(self) -> int:
        return len(self.prompt_ids) + self._max_tokens

    def allowed(self) -> None:
        return None

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        self.num_sampled += 1
        ends = token in self._stops
        if not ends:
            self.text += self._until.push(self._decoder.push(token))
        if ends or self._until.found or self.num_sampled >= self._max_tokens:
            self.run_out()

    def run_out(self) -> None:
        self.text += self._until.push(self._decoder.finish()) + self._until.finish()
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
