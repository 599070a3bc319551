"""What every way of asking shares: how tokens are chosen, where an answer ends, the engine requests that come of it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pydantic import Field

from gradus.conversation.messages import JsonObject, Message
from gradus.core.settings import Settings
from gradus.core.temperature import LEAST_TEMPERATURE
from gradus.engine.continuation import Beginning
from gradus.engine.sampling import Sampling
from gradus.engine.turn import Request
from gradus.serve.errors import bad_request
from gradus.serve.models import ServedModel
from gradus.serve.settings import ServeSettings

_MOST_STOPS, _MOST_STOP_CHARACTERS = 16, 256

EngineRequest = TypeVar("EngineRequest", Request, Beginning)


class SamplingBody(Settings):
    """Parameters of every request. top_k, min_p and repetition_penalty are extensions, named as vLLM has them."""

    model: str
    temperature: float | None = Field(default=None, ge=0, le=1000)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    min_p: float | None = Field(default=None, gt=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    seed: int | None = None


class StreamOptions(Settings):
    include_usage: bool = False


@dataclass(frozen=True)
class Asked:
    """Answers to make, one engine request each, and how they are given.

    num_each: answers to each prompt, one behind the other. client_tools: names whose calls end a reply. runs_tools:
    whether the server runs any. searched: a call and its result that stand before the answer, or nothing. repeated:
    what the reply says of the request, beside what the engine knows.
    """

    requests: tuple[Request, ...] | tuple[Beginning, ...]
    stream: bool
    num_each: int = 1
    include_usage: bool = False
    client_tools: frozenset[str] = frozenset()
    runs_tools: bool = False
    searched: tuple[Message, ...] = ()
    repeated: JsonObject = field(default_factory=dict)


def sampling_of(body: SamplingBody, settings: ServeSettings) -> Sampling:
    """How tokens are chosen; a seed of its own where none is given. Errors: ApiError."""
    if body.temperature is not None and 0 < body.temperature < LEAST_TEMPERATURE:
        raise bad_request(
            f'"temperature": expected 0, or at least {LEAST_TEMPERATURE:g}: logits divided by less are no numbers',
            "temperature",
        )
    return Sampling(
        temperature=settings.temperature if body.temperature is None else body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty or 1.0,
        seed=secrets.randbits(63) if body.seed is None else body.seed % 2**64,
    )


def drawn_apart(request: EngineRequest, number: int, settings: ServeSettings) -> tuple[EngineRequest, ...]:
    """The same request so many times, each with a seed of its own. Errors: ApiError."""
    if number > settings.max_choices:
        raise bad_request(f'"n": expected at most {settings.max_choices}, found {number}', "n")
    sampling = request.sampling
    seeds = [(sampling.seed + place) % 2**64 for place in range(number)]
    return tuple(replace(request, sampling=sampling.model_copy(update={"seed": seed})) for seed in seeds)


def bounded_tokens(asked: int | None, name: str, settings: ServeSettings) -> int:
    """Tokens of a reply at most; what the server gives at most where nothing is asked. Errors: ApiError."""
    if asked is not None and asked > settings.max_tokens:
        raise bad_request(f'"{name}": at most {settings.max_tokens:,} are given, asked for {asked:,}', name)
    return asked or settings.max_tokens


def check_room(texts: Iterable[str], model: ServedModel, param: str = "messages") -> None:
    """ApiError where texts cannot fit into the model's context, whatever their tokens are. param: where they stand.

    Encoding megabytes to find that out would keep a processor busy for seconds.
    """
    least = sum(len(text.encode()) for text in texts) // int(model.engine.tokenizer.token_bytes.max())
    context = model.engine.context
    if least >= context:
        raise bad_request(
            f"the prompt holds at least {least:,} tokens and the model's context is {context:,}; shorten it",
            param,
            "context_length_exceeded",
        )


def stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Stop strings. Errors: ApiError."""
    found = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(found) > _MOST_STOPS or any(not 0 < len(text) <= _MOST_STOP_CHARACTERS for text in found):
        raise bad_request(
            f'"stop": expected at most {_MOST_STOPS} texts of 1 to {_MOST_STOP_CHARACTERS} characters', "stop"
        )
    return found
