"""/v1/responses: the engine's events as items of a response, streamed as OpenAI's typed events or as one object.

An answer is a list of items: its thinking (`reasoning`), its text (`message`), a `function_call` for each call of the
client's tools. Nothing is stored: the whole conversation comes with each request.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator

from gradus.conversation.formats.wire import CallReady, TextDelta, ThinkDelta
from gradus.conversation.messages import JsonObject
from gradus.engine.service import ServiceEvent
from gradus.engine.turn import Done, Reply, Request
from gradus.serve.asked import Asked
from gradus.serve.errors import ApiError
from gradus.serve.models import ServedModel
from gradus.serve.tally import Tally
from gradus.serve.writing import data_frame, reasoning_tokens

# What holds the text of an item, and the events that tell it.
_PARTS = {
    "reasoning": ("reasoning_text", "response.reasoning_text"),
    "message": ("output_text", "response.output_text"),
}


class ResponseWriter:
    """The answer to one request for a response."""

    def __init__(self, asked: Asked, model: ServedModel, tally: Tally) -> None:
        self._model, self._tally = model, tally
        (request,) = asked.requests
        assert isinstance(request, Request)
        self._request = request
        self._client_tools, self._repeated = asked.client_tools, asked.repeated
        self._id = f"resp_{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._items: list[JsonObject] = []
        self._reply: Reply | None = None
        self._number = 0  # of the next event

    # --- as a stream

    def opening(self) -> Iterator[bytes]:
        yield self._event("response.created", {"response": self._response("in_progress")})
        yield self._event("response.in_progress", {"response": self._response("in_progress")})

    def take(self, place: int, event: ServiceEvent) -> Iterator[bytes]:
        match event:
            case ThinkDelta(text):
                yield from self._text("reasoning", text)
            case TextDelta(text):
                yield from self._text("message", text)
            case CallReady(call) if call.name in self._client_tools:
                yield from self._close()
                yield from self._call(call.id, call.name, json.dumps(call.arguments, ensure_ascii=False))
            case Done(reply):
                self._reply = reply
                if any(item["type"] == "reasoning" for item in self._items):
                    self._tally.num_reasoning_tokens = reasoning_tokens(reply, self._model.engine.tokenizer)
                yield from self._close()

    def closing(self) -> Iterator[bytes]:
        yield self._event(f"response.{self._status}", {"response": self.whole()})

    def failed(self, error: ApiError) -> Iterable[bytes]:
        told = error.to_json()["error"]
        yield self._event("error", {"code": told["code"], "message": told["message"], "param": told["param"]})
        failure = {"code": "server_error", "message": told["message"]}
        yield self._event("response.failed", {"response": self._response("failed") | {"error": failure}})

    def _event(self, name: str, facts: JsonObject) -> bytes:
        frame = data_frame({"type": name, "sequence_number": self._number} | facts, name)
        self._number += 1
        return frame

    def _text(self, kind: str, text: str) -> Iterator[bytes]:
        """More of the item of that kind, which is opened first where another is open."""
        part, name = _PARTS[kind]
        if self._open_kind != kind:
            yield from self._close()
            yield from self._open(kind)
        item = self._items[-1]
        item["content"][0]["text"] += text
        logprobs: JsonObject = {"logprobs": []} if part == "output_text" else {}
        yield self._event(f"{name}.delta", self._at() | {"delta": text} | logprobs)

    @property
    def _open_kind(self) -> str | None:
        """The kind of the item that is being written."""
        last = self._items[-1] if self._items else None
        return last["type"] if last is not None and last.get("status") == "in_progress" else None

    def _open(self, kind: str) -> Iterator[bytes]:
        prefix = "rs" if kind == "reasoning" else "msg"
        item: JsonObject = {"id": f"{prefix}_{secrets.token_hex(12)}", "type": kind, "status": "in_progress"}
        if kind == "reasoning":
            item["summary"] = []
        else:
            item["role"] = "assistant"
        self._items.append(item | {"content": []})
        yield self._event("response.output_item.added", self._item())
        self._items[-1]["content"].append(_part(_PARTS[kind][0], ""))
        yield self._event("response.content_part.added", self._at() | {"part": _part(_PARTS[kind][0], "")})

    def _close(self) -> Iterator[bytes]:
        """The open item is whole."""
        kind = self._open_kind
        if kind is None:
            return
        part, name = _PARTS[kind]
        item = self._items[-1]
        text = item["content"][0]["text"]
        logprobs: JsonObject = {"logprobs": []} if part == "output_text" else {}
        yield self._event(f"{name}.done", self._at() | {"text": text} | logprobs)
        yield self._event("response.content_part.done", self._at() | {"part": _part(part, text)})
        item["status"] = "completed"
        yield self._event("response.output_item.done", self._item())

    def _call(self, call_id: str, name: str, arguments: str) -> Iterator[bytes]:
        item = {"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "call_id": call_id, "name": name}
        self._items.append(item | {"arguments": "", "status": "in_progress"})
        yield self._event("response.output_item.added", self._item())
        at = {"item_id": item["id"], "output_index": len(self._items) - 1}
        yield self._event("response.function_call_arguments.delta", at | {"delta": arguments})
        yield self._event("response.function_call_arguments.done", at | {"name": name, "arguments": arguments})
        self._items[-1] = item | {"arguments": arguments, "status": "completed"}
        yield self._event("response.output_item.done", self._item())

    def _at(self) -> JsonObject:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1, "content_index": 0}

    def _item(self) -> JsonObject:
        return {"output_index": len(self._items) - 1, "item": self._items[-1]}

    # --- whole

    def whole(self) -> JsonObject:
        usage = self._tally.usage()
        return self._response(self._status) | {
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": usage["completion_tokens_details"],
                "total_tokens": usage["total_tokens"],
            }
        }

    @property
    def _status(self) -> str:
        assert self._reply is not None
        return "incomplete" if self._reply.finish_reason == "length" else "completed"

    def _response(self, status: str) -> JsonObject:
        request = self._request
        own = [tool for tool in request.conversation.tools if tool.name in self._client_tools]
        tools = [{"type": "function", "strict": request.held_to is not None} | tool.to_json() for tool in own]
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "max_output_tokens": request.max_tokens,
            "model": self._model.source.name,
            "output": list(self._items),
            "parallel_tool_calls": not request.single_call,
            "previous_response_id": None,
            "store": False,
            "temperature": request.sampling.temperature,
            "tools": tools,
            "top_p": request.sampling.top_p if request.sampling.top_p is not None else 1.0,
            "truncation": "disabled",
            "metadata": {},
            "usage": None,
            **self._repeated,
        }


def _part(kind: str, text: str) -> JsonObject:
    return {"type": kind, "text": text} | ({"annotations": [], "logprobs": []} if kind == "output_text" else {})
