"""Continuing plain text: what a base model writes after a beginning, without a conversation around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradus.conversation.formats.wire import TextDelta
from gradus.engine.batching import Decoder
from gradus.engine.decoding import decode_streams
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.sampling import Sampling
from gradus.engine.stop_strings import StopStrings
from gradus.engine.turn import check_prompt_length
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.streaming import StreamDecoder
from gradus.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Beginning:
    """Tokens to go on from, at least one.

    until: texts before which it ends; stops: control tokens at which it does. logprobs: how many likeliest tokens to
    tell with the log-probability of each sampled one; None for neither.
    """

    ids: Sequence[int]
    sampling: Sampling
    max_tokens: int
    until: tuple[str, ...] = ()
    stops: tuple[str, ...] = (END_OF_TEXT,)
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Continued:
    """A continuation is over.

    text: what was said; finish_reason: "stop", at a text or control token; "length", by max_tokens or the context;
    "cancelled". num_tokens: sampled ones, a control token that ended it among them.
    """

    text: str
    finish_reason: Literal["stop", "length", "cancelled"]
    num_tokens: int
    num_prompt_tokens: int
    logprobs: tuple[TokenLogprobs, ...] = ()


class Continuation:
    """The state of one continuation; a TokenStream for the batch."""

    def __init__(self, beginning: Beginning, tokenizer: Tokenizer, context: int) -> None:
        """PromptTooLongError where the beginning fills the context."""
        check_prompt_length(len(beginning.ids), context)
        self.prompt_ids: Sequence[int] = list(beginning.ids)
        self.sampling = beginning.sampling
        self.forced: deque[int] = deque()
        self.num_sampled = 0
        self.num_cached_tokens = 0
        self.num_logprobs = beginning.logprobs
        self.text = ""  # what was said
        self._told = 0  # characters of it that were handed out
        self._logprobs: list[TokenLogprobs] = []
        self._decoder = StreamDecoder(tokenizer)
        self._until = StopStrings([text for text in beginning.until if text])
        self._stops = {tokenizer.special(name) for name in beginning.stops}
        self._max_tokens = beginning.max_tokens
        self._result: Continued | None = None
        self._over = False  # its last event was handed out

    @property
    def finished(self) -> bool:
        return self._result is not None

    @property
    def finish_reason(self) -> str:
        """How it ended, once finished."""
        assert self._result is not None
        return self._result.finish_reason

    @property
    def most_tokens(self) -> int:
        return len(self.prompt_ids) + self._max_tokens

    def waits(self) -> bool:
        return False

    def allowed(self) -> None:
        return None

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        self.num_sampled += 1
        if logprobs is not None:
            self._logprobs.append(logprobs)
        ends = token in self._stops
        if not ends:
            self.text += self._until.push(self._decoder.push(token))
        if ends or self._until.found:
            self._finish("stop")
        elif self.num_sampled >= self._max_tokens:
            self._finish("length")

    def run_out(self) -> None:
        self._finish("length")

    def cancel(self) -> None:
        """Nobody waits for the rest: finish now, with what there is."""
        if not self.finished:
            self._finish("cancelled")

    def take_events(self) -> list[TextDelta | Continued]:
        """Events since the last call."""
        events: list[TextDelta | Continued] = []
        if self._told < len(self.text):
            events.append(TextDelta(self.text[self._told :]))
            self._told = len(self.text)
        if self._result is not None and not self._over:
            self._over = True
            events.append(self._result)
        return events

    def _finish(self, reason: Literal["stop", "length", "cancelled"]) -> None:
        self.text += self._until.push(self._decoder.finish()) + self._until.finish()
        if self._until.found:
            reason = "stop"
        prompt, logprobs = len(self.prompt_ids), tuple(self._logprobs)
        self._result = Continued(self.text, reason, self.num_sampled, prompt, logprobs)


def continue_all(model: Decoder, tokenizer: Tokenizer, beginnings: Sequence[Beginning]) -> list[str]:
    """The model's continuation of each beginning, decoded together."""
    context = model.config.context
    streams = [Continuation(beginning, tokenizer, context) for beginning in beginnings]
    for _ in decode_streams(model, streams, tokenizer.vocab_size):
        pass
    return [stream.text for stream in streams]


def continue_texts(
    model: Decoder, tokenizer: Tokenizer, texts: Sequence[str], sampling: Sampling, max_tokens: int
) -> list[str]:
    """The model's continuation of each beginning, decoded together. A beginning may be empty."""
    end = tokenizer.special(END_OF_TEXT)
    # A document follows the end-of-text token, in training and here.
    beginnings = [Beginning([end, *tokenizer.encode(text)], sampling, max_tokens) for text in texts]
    return continue_all(model, tokenizer, beginnings)
