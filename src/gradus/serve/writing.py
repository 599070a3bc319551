"""What every way of answering shares: server-sent events and log-probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Protocol

from gradus.conversation.messages import JsonObject
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.service import ServiceEvent
from gradus.engine.turn import Reply
from gradus.serve.errors import ApiError
from gradus.tokenizer.specials import THINK_END
from gradus.tokenizer.tokenizer import Tokenizer

KEEP_ALIVE = b": keep-alive\n\n"
STREAM_END = b"data: [DONE]\n\n"


class Writer(Protocol):
    """Turns the engine's events into the replies of one API: as a stream of frames, or as one body."""

    def opening(self) -> Iterable[bytes]: ...

    def take(self, place: int, event: ServiceEvent) -> Iterable[bytes]:
        """Frames for an event of answer number `place`; what they say is kept for `whole`."""
        ...

    def closing(self) -> Iterable[bytes]: ...

    def failed(self, error: ApiError) -> Iterable[bytes]:
        """What ends a stream in the middle."""
        ...

    def whole(self) -> JsonObject: ...


def data_frame(value: JsonObject, event: str | None = None) -> bytes:
    """One server-sent event; JSON text holds no line break."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def reasoning_tokens(reply: Reply, tokenizer: Tokenizer) -> int:
    """How many tokens of a reply that thinks were sampled up to the end of its thinking."""
    end = tokenizer.special(THINK_END)
    length = reply.ids.index(end) + 1 if end in reply.ids else len(reply.ids)
    return sum(reply.sampled[:length])


def chat_logprobs(told: Sequence[TokenLogprobs], tokenizer: Tokenizer) -> JsonObject:
    """Of every sampled token, those of thinking and markers too, as chat completions tell them."""

    def row(token: int, logprob: float) -> JsonObject:
        text = tokenizer.decode_bytes([token])
        return {"token": text.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(text)}

    return {
        "content": [
            row(one.token, one.logprob) | {"top_logprobs": [row(token, logprob) for token, logprob in one.top]}
            for one in told
        ],
        "refusal": None,
    }
