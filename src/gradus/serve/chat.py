"""/v1/chat/completions: the engine's events as chunks with deltas, or folded into one completion.

Thinking is told twice, as `reasoning_content` and as `reasoning`: clients differ in which they read. Tools that the
server runs are told as typed events in `delta.gradus` (in `message.gradus.events` of a whole reply); calls of the
client's own tools are `tool_calls` as everywhere.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gradus.conversation.formats.wire import CallReady, TextDelta, ThinkDelta
from gradus.conversation.messages import JsonObject, Message
from gradus.engine.service import ServiceEvent
from gradus.engine.turn import Done, Reply, ToolResult
from gradus.serve.asked import Asked
from gradus.serve.errors import ApiError
from gradus.serve.models import ServedModel
from gradus.serve.tally import Tally
from gradus.serve.writing import STREAM_END, chat_logprobs, data_frame, reasoning_tokens
from gradus.tools.running import is_error


@dataclass
class _Choice:
    """One answer so far: its deltas put together."""

    content: str = ""
    reasoning: str | None = None
    tool_calls: list[JsonObject] = field(default_factory=list)
    events: list[JsonObject] = field(default_factory=list)
    reply: Reply | None = None


class ChatWriter:
    """The answers to one chat completion."""

    def __init__(self, asked: Asked, model: ServedModel, tally: Tally) -> None:
        self._asked, self._model, self._tally = asked, model, tally
        self._searched = [event for message in asked.searched for event in _tool_events(message)]
        self._choices = [_Choice(events=list(self._searched)) for _ in asked.requests]
        self._head: JsonObject = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model.source.name,
            "system_fingerprint": model.system_fingerprint,
        }

    # --- as a stream

    def opening(self) -> Iterator[bytes]:
        for place in range(len(self._choices)):
            yield self._chunk(place, {"role": "assistant", "content": ""})
            for event in self._searched:
                yield self._chunk(place, {"gradus": event})

    def take(self, place: int, event: ServiceEvent) -> Iterator[bytes]:
        for delta in self._deltas(self._choices[place], event):
            yield self._chunk(place, delta)
        if isinstance(event, Done):
            yield self._chunk(place, {}, self._finish_reason(place), self._logprobs(place))

    def closing(self) -> Iterator[bytes]:
        if self._asked.include_usage:
            last = {"choices": [], "usage": self._tally.usage(), "gradus": {"timings": self._tally.timings()}}
            yield data_frame(self._head | {"object": "chat.completion.chunk"} | last)
        yield STREAM_END

    def failed(self, error: ApiError) -> Iterable[bytes]:
        return (data_frame(error.to_json()), STREAM_END)

    def _chunk(
        self, place: int, delta: JsonObject, finish_reason: str | None = None, logprobs: JsonObject | None = None
    ) -> bytes:
        choice = {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage: JsonObject = {"usage": None} if self._asked.include_usage else {}
        return data_frame(self._head | {"object": "chat.completion.chunk", "choices": [choice]} | usage)

    def _deltas(self, choice: _Choice, event: ServiceEvent) -> Iterator[JsonObject]:
        match event:
            case TextDelta(text):
                choice.content += text
                yield {"content": text}
            case ThinkDelta(text):
                choice.reasoning = (choice.reasoning or "") + text
                yield {"reasoning_content": text, "reasoning": text}
            case CallReady(call) if call.name in self._asked.client_tools:
                arguments = json.dumps(call.arguments, ensure_ascii=False)
                head = {"id": call.id, "type": "function"}
                index = len(choice.tool_calls)
                choice.tool_calls.append(head | {"function": {"name": call.name, "arguments": arguments}})
                # Clients put the pieces of arguments together: name and id come first, once.
                yield {"tool_calls": [{"index": index} | head | {"function": {"name": call.name, "arguments": ""}}]}
                yield {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}
            case CallReady(call):
                yield from self._told(choice, Message("assistant", tool_calls=(call,)))
            case ToolResult(message):
                yield from self._told(choice, message)
            case Done(reply):
                choice.reply = reply
                if choice.reasoning is not None:
                    self._tally.num_reasoning_tokens += reasoning_tokens(reply, self._model.engine.tokenizer)

    @staticmethod
    def _told(choice: _Choice, message: Message) -> Iterator[JsonObject]:
        for event in _tool_events(message):
            choice.events.append(event)
            yield {"gradus": event}

    # --- whole

    def whole(self) -> JsonObject:
        choices = [
            {
                "index": place,
                "message": self._message(choice),
                "logprobs": self._logprobs(place),
                "finish_reason": self._finish_reason(place),
            }
            for place, choice in enumerate(self._choices)
        ]
        facts = {"usage": self._tally.usage(), "gradus": {"timings": self._tally.timings()}}
        return self._head | {"object": "chat.completion", "choices": choices} | facts

    @staticmethod
    def _message(choice: _Choice) -> JsonObject:
        message: JsonObject = {"role": "assistant", "content": choice.content, "refusal": None}
        if choice.reasoning is not None:
            message |= {"reasoning_content": choice.reasoning, "reasoning": choice.reasoning}
        if choice.tool_calls:
            message |= {"content": choice.content or None, "tool_calls": choice.tool_calls}
        if choice.events:
            message["gradus"] = {"events": choice.events}
        return message

    def _finish_reason(self, place: int) -> str:
        choice = self._choices[place]
        assert choice.reply is not None
        reason = choice.reply.finish_reason
        if reason == "calls":
            # Calls that nobody runs: the client's own; else one too many, or of a tool that there is not.
            return "tool_calls" if choice.tool_calls else "length" if self._asked.runs_tools else "stop"
        return reason

    def _logprobs(self, place: int) -> JsonObject | None:
        choice = self._choices[place]
        assert choice.reply is not None
        if self._asked.requests[place].logprobs is None:
            return None
        return chat_logprobs(choice.reply.logprobs, self._model.engine.tokenizer)


def _tool_events(message: Message) -> list[JsonObject]:
    """The typed events of a message with calls, or of a result."""
    if message.role != "tool":
        return [{"type": "tool_call"} | call.to_json() for call in message.tool_calls]
    result = {"tool_call_id": message.tool_call_id, "content": message.content, "error": is_error(message)}
    return [{"type": "tool_result"} | result]
