"""What /v1/responses asks for, as a chat completion asks for it: items become messages, and the rest is read alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from gradus.conversation.messages import JsonObject
from gradus.core.settings import Settings
from gradus.engine.turn import Request
from gradus.serve.asked import Asked, SamplingBody, bounded_tokens
from gradus.serve.body import load_body
from gradus.serve.chat_request import ChatBody, Extension, ask
from gradus.serve.errors import bad_request, unsupported
from gradus.serve.forcing import nested_choice, response_schema
from gradus.serve.models import ServedModel
from gradus.serve.settings import ServeSettings

_MESSAGE_KEYS = {"type", "role", "content", "id", "status", "phase"}
_CALL_KEYS = {"type", "call_id", "name", "arguments", "id", "status"}
_OUTPUT_KEYS = {"type", "call_id", "output", "id", "status"}
_REASONING_KEYS = {"type", "id", "summary", "content", "status", "encrypted_content"}


class Reasoning(Settings):
    effort: str | None = None


class ResponsesBody(SamplingBody):
    """The parameters of a response that are honoured."""

    input: str | tuple[dict[str, Any], ...]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: dict[str, Any] | None = None
    gradus: Extension | None = None


def read_response(body: Mapping[str, Any], model: ServedModel, settings: ServeSettings) -> Asked:
    """The engine request of a response. Errors: ApiError."""
    given = load_body(ResponsesBody, body)
    if given.gradus is not None and given.gradus.tools:
        raise unsupported("gradus.tools", "tools of the server are offered by /v1/chat/completions alone")
    if given.gradus is not None and given.gradus.search in ("auto", "force"):
        raise unsupported("gradus.search", "the server searches for /v1/chat/completions alone")
    bounded_tokens(given.max_output_tokens, "max_output_tokens", settings)
    sampling = given.model_dump(include=set(SamplingBody.model_fields))
    chat = ChatBody(
        **sampling,
        messages=tuple(_messages(given)),
        max_completion_tokens=given.max_output_tokens,
        stream=given.stream,
        tools=tuple(_tool(tool, index) for index, tool in enumerate(given.tools or ())),
        tool_choice=nested_choice(given.tool_choice),
        parallel_tool_calls=given.parallel_tool_calls,
        reasoning_effort=given.reasoning.effort if given.reasoning else None,
        gradus=given.gradus,
    )
    schema = response_schema(given.text, model)
    asked = ask(chat, model, settings)
    requests = tuple(replace(one, answer_schema=schema) for one in asked.requests if isinstance(one, Request))
    told = {"text": {"format": (given.text or {}).get("format") or {"type": "text"}}}
    return replace(asked, requests=requests, repeated=told | {"tool_choice": given.tool_choice or "auto"})


def _tool(tool: Mapping[str, Any], index: int) -> JsonObject:
    """{"type": "function", "name", ...} in the nesting of chat completions."""
    if tool.get("type") != "function":
        raise unsupported(f"tools[{index}]", f"tools[{index}]: only type function is supported")
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _messages(given: ResponsesBody) -> list[JsonObject]:
    """Items as messages: what the assistant thought, said and called in one turn is one message. Errors: ApiError."""
    messages: list[JsonObject] = []
    if given.instructions:
        messages.append({"role": "system", "content": given.instructions})
    if isinstance(given.input, str):
        return [*messages, {"role": "user", "content": given.input}]
    if not given.input:
        raise bad_request('"input": expected a text or at least one item', "input")
    for index, item in enumerate(given.input):
        where = f"input[{index}]"
        kind = item.get("type", "message")
        if kind == "message":
            _check_keys(item, _MESSAGE_KEYS, where)
            if item.get("role") == "assistant":
                said = _assistant(messages, "content")
                said["content"] = item.get("content")
            else:
                messages.append({"role": item.get("role"), "content": item.get("content")})
        elif kind == "reasoning":
            _check_keys(item, _REASONING_KEYS, where)
            _assistant(messages, "reasoning_content")["reasoning_content"] = _thinking(item, where)
        elif kind == "function_call":
            _check_keys(item, _CALL_KEYS, where)
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            calls = _assistant(messages, None).setdefault("tool_calls", [])
            calls.append({"id": item.get("call_id"), "function": function})
        elif kind == "function_call_output":
            _check_keys(item, _OUTPUT_KEYS, where)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
        elif kind == "item_reference":
            raise unsupported(
                f"{where}.type", f'{where}: nothing is stored here that could be referred to; ask with "store": false'
            )
        else:
            raise unsupported(f"{where}.type", f"{where}: items of type {str(kind)[:60]!r} are not supported")
    return messages


def _assistant(messages: list[JsonObject], key: str | None) -> JsonObject:
    """The assistant's message in the making; a new one where the last is not his, or says `key` already."""
    last = messages[-1] if messages else None
    if last is None or last["role"] != "assistant" or (key is not None and (key in last or "tool_calls" in last)):
        messages.append({"role": "assistant"})
    return messages[-1]


def _thinking(item: Mapping[str, Any], where: str) -> str:
    if item.get("encrypted_content"):
        raise unsupported(f"{where}.encrypted_content", f"{where}: encrypted thinking cannot be read")
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list):
        raise bad_request(f"{where}.content: expected a list of parts with a text", f"{where}.content")
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise bad_request(f"{where}.content: expected parts with a text", f"{where}.content")
    return "".join(map(str, texts))


def _check_keys(item: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in item:
        if key not in known:
            raise bad_request(f'{where}: unknown or unsupported key "{key}"', f"{where}.{key}")
