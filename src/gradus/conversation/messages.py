"""Conversations as everything in gradus holds them: OpenAI-style messages, frozen, checked when read.

On disk one JSON object a line: {"messages": [...], "tools": [...], "source": "...", "id": "...", "think":
true}. Optional keys are left out where they hold their default. What the parts must mean together (a call
has a result, thinking comes first) is the validator's business; here only shapes are checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from gradus.core.errors import DataError, did_you_mean

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
JsonObject = dict[str, Any]

DEEPEST_ARGUMENTS = 100
"""Levels of objects and lists: what reads arguments calls itself up to four times a level, and Python allows 1,000."""

_MESSAGE_KEYS = (
    "role",
    "content",
    "reasoning_content",
    "reasoning",
    "tool_calls",
    "tool_call_id",
    "train",
)
_ROW_KEYS = ("messages", "tools", "source", "id", "think")
_PAIR_KEYS = ("prompt", "chosen", "rejected", "source", "id")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool by the assistant; `arguments` is the JSON object itself, never its text."""

    id: str
    name: str
    arguments: JsonObject

    def to_json(self) -> JsonObject:
        return {"id": self.id, "name": self.name, "arguments": self.arguments}


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as the model is told of it; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: JsonObject

    def to_json(self) -> JsonObject:
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    reasoning_content: the assistant's thinking; None is no think block, "" an empty one (thinking switched
    off). train: whether an assistant message is learned from.
    """

    role: Role
    content: str = ""
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    train: bool = True

    def to_json(self) -> JsonObject:
        row: JsonObject = {"role": self.role, "content": self.content}
        if self.reasoning_content is not None:
            row["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            row["tool_calls"] = [call.to_json() for call in self.tool_calls]
        if self.tool_call_id is not None:
            row["tool_call_id"] = self.tool_call_id
        if not self.train:
            row["train"] = False
        return row


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, the tools declared to the assistant, and where the row comes from.

    think: True thinking is asked for, False it is switched off (each turn opens with an empty think block),
    None the messages decide.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...] = ()
    source: str = ""
    id: str = ""
    think: bool | None = None

    def to_json(self) -> JsonObject:
        row: JsonObject = {"messages": [message.to_json() for message in self.messages]}
        if self.tools:
            row["tools"] = [tool.to_json() for tool in self.tools]
        if self.source:
            row["source"] = self.source
        if self.id:
            row["id"] = self.id
        if self.think is not None:
            row["think"] = self.think
        return row

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Conversation:
        """Read a row; DataError says which part is wrong, what was found and what was expected."""
        _check_keys("row", row, _ROW_KEYS)
        if "messages" not in row:
            raise DataError("row: missing key messages")
        think = row.get("think")
        if think is not None and not isinstance(think, bool):
            raise DataError(f"think: expected true, false or null, found {_found(think)}")
        return Conversation(
            messages=messages_from_json(row["messages"], "messages"),
            tools=tools_from_json(row.get("tools")),
            source=_text(row.get("source"), "source"),
            id=_identifier(row.get("id"), "id"),
            think=think,
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: two continuations of one prompt, `chosen` better than `rejected`.

    Each side is a whole assistant turn (assistant and tool messages in alternation).
    """

    prompt: Conversation
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    source: str = ""
    id: str = ""

    def to_json(self) -> JsonObject:
        row: JsonObject = {
            "prompt": self.prompt.to_json(),
            "chosen": [message.to_json() for message in self.chosen],
            "rejected": [message.to_json() for message in self.rejected],
        }
        if self.source:
            row["source"] = self.source
        if self.id:
            row["id"] = self.id
        return row

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Pair:
        """Read a row written by `to_json`; DataError where a part is wrong."""
        _check_keys("pair", row, _PAIR_KEYS)
        for key in ("prompt", "chosen", "rejected"):
            if key not in row:
                raise DataError(f"pair: missing key {key}")
        prompt = row["prompt"]
        if not isinstance(prompt, Mapping):
            raise DataError(f"prompt: expected a row with messages, found {_found(prompt)}")
        return Pair(
            prompt=Conversation.from_json(prompt),
            chosen=messages_from_json(row["chosen"], "chosen"),
            rejected=messages_from_json(row["rejected"], "rejected"),
            source=_text(row.get("source"), "source"),
            id=_identifier(row.get("id"), "id"),
        )


@dataclass
class _CallNames:
    """Ids for calls and results that come without: call_1, call_2, ... and results in the order of calls."""

    count: int = 0
    waiting: list[str] = field(default_factory=list)

    def call(self, given: object) -> str:
        self.count += 1
        name = str(given) if isinstance(given, str | int) and given != "" else f"call_{self.count}"
        self.waiting.append(name)
        return name

    def result(self, given: object) -> str | None:
        if isinstance(given, str | int) and given != "":
            name = str(given)
            if name in self.waiting:
                self.waiting.remove(name)
            return name
        return self.waiting.pop(0) if self.waiting else None


def messages_from_json(rows: object, where: str, places: Sequence[int] | None = None) -> tuple[Message, ...]:
    """Messages of a JSON list; ids of calls and results that are missing are filled in by order.

    places: by which numbers errors tell of the rows, where they are not those of the list.
    """
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise DataError(f"{where}: expected a list of messages, found {_found(rows)}")
    if not rows:
        raise DataError(f"{where}: expected at least one message, found none")
    names = _CallNames()
    numbered = zip(range(len(rows)) if places is None else places, rows, strict=True)
    return tuple(_message(row, f"{where}[{place}]", names) for place, row in numbered)


def _message(row: object, where: str, names: _CallNames) -> Message:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with role and content, found {_found(row)}")
    _check_keys(where, row, _MESSAGE_KEYS)
    role = row.get("role")
    if role not in ROLES:
        hint = did_you_mean(role, ROLES) if isinstance(role, str) else ""
        raise DataError(f"{where}.role: expected one of {', '.join(ROLES)}, found {_found(role)}{hint}")
    train = row.get("train", True)
    if not isinstance(train, bool):
        raise DataError(f"{where}.train: expected true or false, found {_found(train)}")
    reasoning = row.get("reasoning_content")
    if reasoning is None:
        reasoning = row.get("reasoning")
    if reasoning is not None:
        reasoning = _text(reasoning, f"{where}.reasoning_content")
    calls = row.get("tool_calls") or ()
    if role != "assistant" and (calls or reasoning is not None):
        key = "tool_calls" if calls else "reasoning_content"
        raise DataError(f"{where}.{key}: only an assistant message may have it, found role {role}")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise DataError(f"{where}.tool_calls: expected a list, found {_found(calls)}")
    return Message(
        role=cast(Role, role),
        content=_text(row.get("content"), f"{where}.content"),
        reasoning_content=reasoning,
        tool_calls=tuple(_call(c, f"{where}.tool_calls[{i}]", names) for i, c in enumerate(calls)),
        tool_call_id=names.result(row.get("tool_call_id")) if role == "tool" else None,
        train=train,
    )


def _call(row: object, where: str, names: _CallNames) -> ToolCall:
    """One call, in our shape or in OpenAI's ({"function": {"name", "arguments": "<JSON text>"}})."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with name and arguments, found {_found(row)}")
    inner = row.get("function", row)
    if not isinstance(inner, Mapping):
        raise DataError(f"{where}.function: expected an object, found {_found(inner)}")
    name = inner.get("name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}.name: expected the name of a tool, found {_found(name)}")
    arguments = inner.get("arguments")
    return ToolCall(names.call(row.get("id")), name, arguments_from_json(arguments, f"{where}.arguments"))


def arguments_from_json(value: object, where: str) -> JsonObject:
    """Arguments of a call as an object; text is read as JSON, nothing at all is an empty object."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: expected a JSON object, found text that is none ({error})") from error
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: expected a JSON object, found {_found(value)}")
    check_arguments(value, where)
    return dict(value)


def tools_from_json(value: object) -> tuple[ToolSchema, ...]:
    """Declared tools: a list of schemas (ours or OpenAI's nesting), or that list as JSON text."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise DataError(f"tools: expected a JSON list, found text that is none ({error})") from error
    if not isinstance(value, Sequence):
        raise DataError(f"tools: expected a list of tool schemas, found {_found(value)}")
    return tuple(_tool(row, f"tools[{index}]") for index, row in enumerate(value))


def _tool(row: object, where: str) -> ToolSchema:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with name and parameters, found {_found(row)}")
    inner = row.get("function", row)
    if not isinstance(inner, Mapping):
        raise DataError(f"{where}.function: expected an object, found {_found(inner)}")
    name = inner.get("name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}.name: expected the name of a tool, found {_found(name)}")
    parameters = inner.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping):
        raise DataError(f"{where}.parameters: expected a JSON schema, found {_found(parameters)}")
    check_json_text(parameters, f"{where}.parameters")
    return ToolSchema(name, _text(inner.get("description"), f"{where}.description"), dict(parameters))


def check_json_text(value: object, where: str) -> None:
    """DataError where a JSON value holds text that is no Unicode or a number that is no JSON."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{where}: not plain JSON ({error})") from error


def check_arguments(value: object, where: str) -> None:
    """DataError where arguments, or a call with them, are no JSON as of `check_json_text`, or nested too deep."""
    check_json_text(value, where)
    if is_deeper(value, DEEPEST_ARGUMENTS):
        raise DataError(f"{where}: nested deeper than {DEEPEST_ARGUMENTS} levels")


def is_deeper(value: object, levels: int) -> bool:
    """Whether JSON has more levels of objects and lists; looks no deeper than that."""
    inside = [value]
    for _ in range(levels + 1):
        if not inside:
            return False
        inside = [part for node in inside for part in _parts(node)]
    return bool(inside)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _text(value: object, where: str) -> str:
    """Text, with null read as none at all."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: expected text, found {_found(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: character {error.start} is an unpaired surrogate") from error
    return value


def _identifier(value: object, where: str) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value, where)


def _check_keys(where: str, row: Mapping[str, Any], known: Iterable[str]) -> None:
    """DataError for a key that looks like a slip of a known one; other strangers are passed over."""
    known = tuple(known)
    for key in row:
        if key not in known and (hint := did_you_mean(str(key), known)):
            raise DataError(f'{where}: unknown key "{key}"{hint}')


def _found(value: object) -> str:
    """A value as its author wrote it, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
