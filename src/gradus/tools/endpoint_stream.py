"""Answers of a remote model piece by piece, as server-sent events of an OpenAI-compatible API.

For a person who waits: nothing is kept, nothing is asked a second time, and what goes wrong is told at once.
Thinking comes as `reasoning_content` or `reasoning`; calls come in pieces by their index, arguments as parts of a text.
Source: OpenAI's API reference, "Chat Completions: streaming"; the event stream is that of the HTML standard, 9.2.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from gradus.conversation.formats.wire import TextDelta, ThinkDelta
from gradus.core.errors import EndpointError, did_you_mean
from gradus.core.fingerprint import canonical_json
from gradus.core.secrets import redacted, without_read_secrets
from gradus.tools.endpoint import (
    MAX_BODY_BYTES,
    ChatAnswer,
    ChatRequest,
    RequestRefusedError,
    answer_of,
    bounded_body,
    endpoint_key,
    http_client,
    listed_models,
    request_body,
)
from gradus.tools.endpoint_replies import Refused, Repeat, Stop, Usage, judge_status, read_completion
from gradus.tools.endpoint_settings import EndpointSettings

Piece = ThinkDelta | TextDelta | ChatAnswer
_MOST_CALLS = 128  # in one answer


@dataclass
class _Reply:
    """What came so far."""

    text: str = ""
    thinking: str | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    finish_reason: str | None = None
    model: str = ""
    usage: dict[str, Any] | None = None
    halves: dict[str, str] = field(default_factory=dict)

    def take(self, event: dict[str, Any]) -> list[ThinkDelta | TextDelta]:
        """One event's object. Raises Repeat where the service reports an error in it."""
        if event.get("error"):
            raise Repeat("error_in_stream", is_paid=True, detail=str(event["error"]))
        self.model = self.model or str(event.get("model") or "")
        self.usage = event.get("usage") or self.usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice.get("delta")
        return self._take_delta(delta) if isinstance(delta, dict) else []

    def _take_delta(self, delta: dict[str, Any]) -> list[ThinkDelta | TextDelta]:
        found: list[ThinkDelta | TextDelta] = []
        thinking = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thinking, str):
            thinking = self._whole("thinking", thinking)
            self.thinking = (self.thinking or "") + thinking
            found.append(ThinkDelta(without_read_secrets(thinking)))
        text = delta.get("content") or delta.get("refusal")
        if isinstance(text, str) and text:
            text = self._whole("text", text)
            self.text += text
            found.append(TextDelta(without_read_secrets(text)))
        calls = delta.get("tool_calls")
        for place, part in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(part, dict):
                self._take_call(part, place)
        return found

    def _whole(self, part: str, text: str) -> str:
        """Text without halves of characters: some services cut one beyond U+FFFF in two, as JSON writes it.

        The first half waits for the other; one that stays alone becomes U+FFFD.
        """
        text = self.halves.pop(part, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.halves[part] = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _take_call(self, part: dict[str, Any], place: int) -> None:
        number = part.get("index", place)
        if not isinstance(number, int) or not 0 <= number < _MOST_CALLS:
            raise Repeat("no_message", is_paid=True, detail=f"a tool call with index {number!r}")
        call = self.calls.setdefault(number, {"id": "", "name": "", "arguments": ""})
        call["id"] = call["id"] or str(part.get("id") or "")
        function = part.get("function")
        for key in ("name", "arguments"):
            piece = function.get(key) if isinstance(function, dict) else None
            # Some services send the arguments as an object, whole.
            call[key] += piece if isinstance(piece, str) else json.dumps(piece) if piece else ""

    def completion(self) -> bytes:
        """All of it as the body that the service would have sent without streaming."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.thinking is not None:
            message["reasoning_content"] = self.thinking
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call["id"] or f"call_{number}",
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"] or "{}"},
                }
                for number, call in sorted(self.calls.items())
            ]
        choice = {"message": message, "finish_reason": self.finish_reason}
        return canonical_json({"choices": [choice], "model": self.model, "usage": self.usage})


async def stream_chat(
    settings: EndpointSettings, request: ChatRequest, folder: Path | None = None
) -> AsyncGenerator[Piece]:
    """Pieces as they come, and the whole answer last, its calls complete; close it to stop.

    folder: where a relative key_file starts. Errors: EndpointError where there is no answer, or no end of it;
    ConfigError for a key that is not there.
    """
    key = endpoint_key(settings, folder)
    body = request_body(settings, request) | {"stream": True, "stream_options": {"include_usage": True}}
    content = canonical_json(body)
    async with http_client(settings, key) as http:
        try:
            async with http.stream("POST", f"{settings.base_url}/chat/completions", content=content) as response:
                if response.status_code != 200:
                    text = (await bounded_body(response))[:2000].decode("utf-8", "replace")
                    judge_status(response.status_code, response.headers, redacted(text))
                reply = _Reply()
                if "text/event-stream" in response.headers.get("content-type", ""):
                    async with aclosing(_events(response)) as events:
                        async for event in events:
                            for piece in reply.take(event):
                                yield piece
                    if reply.finish_reason is None:
                        raise Repeat("truncated_stream", is_paid=True, detail="it ended before the answer did")
                    found = read_completion(reply.completion(), settings)
                    yield answer_of(found, Usage(**found["usage"]))
                else:  # it does not stream
                    found = read_completion(await bounded_body(response), settings)
                    answer = answer_of(found, Usage(**found["usage"]))
                    if answer.message.reasoning_content:
                        yield ThinkDelta(answer.message.reasoning_content)
                    yield TextDelta(answer.message.content)
                    yield answer
        except Stop as error:
            names = await listed_models(http, settings) if error.asks_for_models else []
            hint = did_you_mean(settings.model, names) or (f"; it has {', '.join(names[:8])}" if names else "")
            raise EndpointError(f"{settings.base_url}: {error}{hint}") from None
        except (Repeat, Refused, RequestRefusedError) as error:
            raise EndpointError(f"{settings.base_url}: {error}") from None
        except httpx2.ConnectTimeout:
            raise EndpointError(f"{settings.base_url}: no connection in time") from None
        except httpx2.TimeoutException:
            raise EndpointError(f"{settings.base_url}: silent for {settings.timeout_seconds:g} s") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise EndpointError(redacted(f"{settings.base_url}: no connection ({error})")) from None


async def _events(response: httpx2.Response) -> AsyncGenerator[dict[str, Any]]:
    """The objects of an event stream, up to `[DONE]`."""
    data: list[str] = []
    async with aclosing(_lines(response)) as lines:
        async for line in lines:
            if line.startswith("data:"):
                data.append(line.removeprefix("data:").removeprefix(" "))
            elif not line and data:
                text, data = "\n".join(data), []
                if text == "[DONE]":
                    return
                try:
                    event = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise Repeat("truncated_json", is_paid=True, detail=str(error)) from None
                if isinstance(event, dict):
                    yield event


async def _lines(response: httpx2.Response) -> AsyncGenerator[str]:
    """Lines of a body; httpx's own also end at U+2028 and the like, which stand in JSON as they are."""
    size, rest = 0, b""
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise Repeat("body_too_large", is_paid=True)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
