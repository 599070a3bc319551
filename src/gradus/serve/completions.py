"""/v1/completions: text or tokens gone on from, as base models do it, without a conversation around them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any

from pydantic import Field

from gradus.conversation.formats.wire import TextDelta
from gradus.conversation.messages import JsonObject
from gradus.engine.continuation import Beginning, Continued
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.service import ServiceEvent
from gradus.serve.asked import (
    Asked,
    SamplingBody,
    StreamOptions,
    bounded_tokens,
    check_room,
    drawn_apart,
    sampling_of,
    stops,
)
from gradus.serve.body import load_body
from gradus.serve.errors import ApiError, bad_request, unsupported
from gradus.serve.models import ServedModel
from gradus.serve.settings import ServeSettings
from gradus.serve.tally import Tally
from gradus.serve.writing import STREAM_END, data_frame
from gradus.tokenizer.specials import END_OF_TEXT, IM_END
from gradus.tokenizer.streaming import StreamDecoder
from gradus.tokenizer.tokenizer import Tokenizer

DEFAULT_TOKENS = 16  # OpenAI's own

TokenIds = tuple[Annotated[int, Field(ge=0)], ...]


class CompletionBody(SamplingBody):
    """The parameters of a completion that are honoured."""

    prompt: str | TokenIds | tuple[str, ...] | tuple[TokenIds, ...]
    max_tokens: int | None = Field(default=None, ge=1)
    stop: str | tuple[str, ...] | None = None
    n: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None


def read_completion(body: Mapping[str, Any], model: ServedModel, settings: ServeSettings) -> Asked:
    """The engine requests of a completion, `n` for each prompt. Errors: ApiError."""
    given = load_body(CompletionBody, body)
    if given.echo:
        raise unsupported("echo", '"echo" is not supported: log-probabilities of a prompt are not told')
    number = given.n or 1
    requests: list[Beginning] = []
    prompts = _prompts(given.prompt)
    if len(prompts) * number > settings.max_choices:
        asked = len(prompts) * number
        raise bad_request(f"{asked} answers were asked for, and at most {settings.max_choices} are given", "n")
    for prompt in prompts:
        ids = _prompt_ids(prompt, model)
        beginning = Beginning(
            ids,
            sampling_of(given, settings),
            bounded_tokens(given.max_tokens or min(DEFAULT_TOKENS, settings.max_tokens), "max_tokens", settings),
            until=stops(given.stop),
            stops=(END_OF_TEXT, IM_END),
            logprobs=given.logprobs,
        )
        requests += drawn_apart(beginning, number, settings)
    include_usage = given.stream_options is not None and given.stream_options.include_usage
    return Asked(tuple(requests), bool(given.stream), number, include_usage)


def _prompts(prompt: str | Sequence[Any]) -> list[str | Sequence[int]]:
    """One prompt or several as a list. Errors: ApiError."""
    prompts = [prompt] if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)) else list(prompt)
    if not prompts:
        raise bad_request('"prompt": expected a text, or a list of at least one token', "prompt")
    return prompts


def _prompt_ids(prompt: str | Sequence[int], model: ServedModel) -> list[int]:
    """A prompt as tokens; text begins a document, so the end-of-text token stands before it. Errors: ApiError."""
    tokenizer = model.engine.tokenizer
    if isinstance(prompt, str):
        check_room([prompt], model, "prompt")
        return [tokenizer.special(END_OF_TEXT), *tokenizer.encode(prompt)]
    if not prompt:
        raise bad_request('"prompt": a list of tokens needs at least one', "prompt")
    if (largest := max(prompt)) >= tokenizer.vocab_size:
        raise bad_request(f'"prompt": no token {largest:,}; there are {tokenizer.vocab_size:,}', "prompt")
    return list(prompt)


@dataclass
class _Choice:
    """One continuation so far."""

    text: str = ""
    end: Continued | None = None


class CompletionWriter:
    """The answers to one completion."""

    def __init__(self, asked: Asked, model: ServedModel, tally: Tally) -> None:
        self._asked, self._model, self._tally = asked, model, tally
        self._choices = [_Choice() for _ in asked.requests]
        self._head: JsonObject = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.source.name,
            "system_fingerprint": model.system_fingerprint,
        }

    def opening(self) -> Iterable[bytes]:
        return ()

    def take(self, place: int, event: ServiceEvent) -> Iterator[bytes]:
        choice = self._choices[place]
        if isinstance(event, TextDelta):
            choice.text += event.text
            yield self._chunk({"index": place, "text": event.text, "logprobs": None, "finish_reason": None})
        elif isinstance(event, Continued):
            choice.end = event
            yield self._chunk(self._end(place) | {"text": ""})

    def closing(self) -> Iterator[bytes]:
        if self._asked.include_usage:
            yield data_frame(self._head | {"choices": [], "usage": self._tally.usage()})
        yield STREAM_END

    def failed(self, error: ApiError) -> Iterable[bytes]:
        return (data_frame(error.to_json()), STREAM_END)

    def whole(self) -> JsonObject:
        choices = [self._end(place) | {"text": choice.text} for place, choice in enumerate(self._choices)]
        return self._head | {"choices": choices, "usage": self._tally.usage()}

    def _chunk(self, choice: JsonObject) -> bytes:
        return data_frame(self._head | {"choices": [choice]} | ({"usage": None} if self._asked.include_usage else {}))

    def _end(self, place: int) -> JsonObject:
        end = self._choices[place].end
        assert end is not None
        told = self._asked.requests[place].logprobs is not None
        logprobs = text_logprobs(end.logprobs, self._model.engine.tokenizer) if told else None
        return {"index": place, "logprobs": logprobs, "finish_reason": end.finish_reason}


def text_logprobs(told: Sequence[TokenLogprobs], tokenizer: Tokenizer) -> JsonObject:
    """Of every sampled token, as completions tell them: parallel lists, offsets in characters of the answer.

    Of a character whose bytes several tokens share, each of them has its offset, as at llama-cpp-python; vLLM counts it
    once too.
    """

    def text(token: int) -> str:
        return tokenizer.decode_bytes([token]).decode("utf-8", "replace")

    decoder = StreamDecoder(tokenizer)
    offsets = [0, *accumulate(len(decoder.push(one.token)) for one in told)][: len(told)]
    return {
        "tokens": [text(one.token) for one in told],
        "token_logprobs": [one.logprob for one in told],
        "top_logprobs": [{text(token): logprob for token, logprob in one.top} for one in told],
        "text_offset": offsets,
    }
