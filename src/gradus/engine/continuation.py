"""Continuing plain text: what a base model writes after a beginning, without a conversation around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gradus.engine.batching import DecodeBatch
from gradus.engine.sampling import Sampling
from gradus.model.transformer import Transformer
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer


class _Continuation:
    """A TokenStream that ends at the end-of-text token or after `max_tokens`."""

    def __init__(self, prompt_ids: list[int], end: int, sampling: Sampling, max_tokens: int) -> None:
        self.prompt_ids: Sequence[int] = prompt_ids
        self.sampling = sampling
        self.forced: deque[int] = deque()
        self.finished = False
        self.num_sampled = 0
        self.ids: list[int] = []
        self._end, self._max_tokens = end, max_tokens

    def allowed(self) -> None:
        return None

    def push(self, token: int) -> None:
        self.num_sampled += 1
        if token != self._end:
            self.ids.append(token)
        self.finished = token == self._end or self.num_sampled >= self._max_tokens

    def run_out(self) -> None:
        self.finished = True


def continue_texts(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], sampling: Sampling, max_tokens: int
) -> list[str]:
    """The model's continuation of each beginning, decoded together. A beginning may be empty."""
    end = tokenizer.special(END_OF_TEXT)
    # A document follows the end-of-text token, in training and here.
    streams = [_Continuation([end, *tokenizer.encode(text)], end, sampling, max_tokens) for text in texts]
    batch = DecodeBatch(model, max(1, len(streams)), tokenizer.vocab_size)
    batch.join(streams)
    while batch.num_live:
        batch.step()
    return [tokenizer.decode(stream.ids) for stream in streams]
