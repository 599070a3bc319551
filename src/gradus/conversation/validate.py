"""The invariants of thinking with tools, and every place where a conversation breaks them.

Thinking comes first in an assistant turn, once; the answer is never inside it. Calls name declared tools
with arguments that satisfy the tool's JSON schema; each call has one result, right after the message and in
the order of the calls (the wire carries no call ids). A turn ends with an answer. Synthesis, filters,
pairs, the engine and the probes all use this one judge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gradus.conversation.messages import (
    DEEPEST_ARGUMENTS,
    Conversation,
    JsonObject,
    Message,
    ToolCall,
    ToolSchema,
    is_deeper,
)
from gradus.tokenizer.specials import SPECIAL_TOKENS

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_DEEPEST_SCHEMA = 60  # the validator calls itself some ten times a level, and Python allows a thousand calls


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule.

    reason: its name, for counting; message_index: where (None: the conversation as a whole); detail: what was
    found; row: which conversation, where several were looked at.
    """

    reason: str
    message_index: int | None
    detail: str
    row: int = 0


def violations(conversation: Conversation) -> list[Violation]:
    """Every broken rule of a complete conversation, in the order of its messages; empty where it is sound."""
    found = _order(conversation.messages)
    found += _turns(conversation)
    found += _calls(conversation)
    messages = conversation.messages
    if not any(message.role == "assistant" for message in messages):
        found.append(Violation("no_answer", None, "there is no assistant message"))
    elif messages[-1].role != "assistant" or messages[-1].tool_calls:
        found.append(Violation("unfinished", len(messages) - 1, "the last turn does not end with an answer"))
    return sorted(found, key=lambda v: len(messages) if v.message_index is None else v.message_index)


def turn_violations(
    turn: Sequence[Message], tools: Sequence[ToolSchema] = (), think: bool | None = None
) -> list[Violation]:
    """The broken rules of one assistant turn (assistant and tool messages); indices count within the turn."""
    whole = Conversation((Message("user", "-"), *turn), tuple(tools), think=think)
    return [
        Violation(v.reason, None if v.message_index is None else v.message_index - 1, v.detail)
        for v in violations(whole)
    ]


_MAY_FOLLOW = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


def _order(messages: Sequence[Message]) -> list[Violation]:
    found = []
    previous = ""
    for index, message in enumerate(messages):
        if message.role not in _MAY_FOLLOW[previous]:
            place = f"after {previous}" if previous else "at the start"
            found.append(Violation("order", index, f"{message.role} {place}"))
        if message.role == "user" and not message.content.strip():
            found.append(Violation("empty_user", index, "a user message without text"))
        previous = message.role
    return found


def _turns(conversation: Conversation) -> list[Violation]:
    """Thinking and text of the assistant's messages."""
    found = []
    previous = ""
    for index, message in enumerate(conversation.messages):
        if message.role == "assistant":
            opens = previous != "tool"
            thinking = message.reasoning_content
            if thinking is not None and not opens:
                found.append(Violation("think_not_first", index, "thinking after a tool result"))
            if opens and conversation.think is True and not (thinking or "").strip():
                found.append(Violation("think_missing", index, "thinking was asked for"))
            if conversation.think is False and (thinking or "").strip():
                found.append(Violation("think_unwanted", index, "thinking was switched off"))
            if not message.content.strip() and not message.tool_calls:
                found.append(Violation("empty_answer", index, "neither text nor calls"))
            for part, text in (("thinking", thinking or ""), ("answer", message.content)):
                marker = next((m for m in SPECIAL_TOKENS if m in text), None) if "<" in text else None
                if marker is not None:
                    found.append(Violation("marker_in_text", index, f"{marker} in the {part}"))
        previous = message.role
    return found


def _calls(conversation: Conversation) -> list[Violation]:
    """Calls against the declared tools, results against the calls."""
    found: list[Violation] = []
    declared = {tool.name: tool for tool in conversation.tools}
    if len(declared) < len(conversation.tools):
        found.append(Violation("duplicate_tool", None, "two declared tools have one name"))
    seen: set[str] = set()
    waiting: list[ToolCall] = []
    caller = 0
    for index, message in enumerate(conversation.messages):
        if message.role == "tool":
            found += _result(message, index, waiting)
            continue
        found += [Violation("result_missing", caller, f"no result for call {c.id} ({c.name})") for c in waiting]
        waiting, caller = list(message.tool_calls), index
        for call in message.tool_calls:
            if call.id in seen:
                found.append(Violation("duplicate_call_id", index, f"call id {call.id} is used twice"))
            seen.add(call.id)
            found += [Violation(reason, index, detail) for reason, detail in call_faults(call, declared)]
    if waiting and len(conversation.messages) > caller + 1:
        found += [Violation("result_missing", caller, f"no result for call {c.id} ({c.name})") for c in waiting]
    return found


def _result(message: Message, index: int, waiting: list[ToolCall]) -> list[Violation]:
    """Takes the answered call off `waiting`."""
    position = next((i for i, call in enumerate(waiting) if call.id == message.tool_call_id), None)
    if position is None:
        return [Violation("result_unknown", index, f"no open call {message.tool_call_id!r}")]
    call = waiting.pop(position)
    if position:
        return [Violation("result_order", index, f"result of {call.id} before that of an earlier call")]
    return []


def call_faults(call: ToolCall, declared: dict[str, ToolSchema]) -> list[tuple[str, str]]:
    """What is wrong with one call, as (reason, detail)."""
    tool = declared.get(call.name)
    if tool is None:
        known = ", ".join(declared) or "none"
        return [("unknown_tool", f"{call.name!r} is not declared (declared: {known})")]
    return [(reason, f"{call.name}: {detail}") for reason, detail in schema_faults(call.arguments, tool.parameters)]


def schema_faults(value: Any, schema: JsonObject) -> list[tuple[str, str]]:
    """Where a JSON value breaks a JSON schema, as (reason, detail); bad_schema where the schema is none."""
    validator = _validator_of(schema)
    if isinstance(validator, str):
        return [("bad_schema", f"its parameters are {validator}")]
    if is_deeper(value, DEEPEST_ARGUMENTS):  # a schema may refer to itself
        return [("bad_arguments", f"nested deeper than {DEEPEST_ARGUMENTS} levels")]
    from referencing.exceptions import Unresolvable

    try:
        errors = list(validator.iter_errors(value))
    except Unresolvable as error:
        return [("bad_schema", str(error))]
    except RecursionError:
        return [("bad_schema", "its parameters refer to themselves without end")]
    return [("bad_arguments", f"{_place(error)}{error.message[:200]}") for error in errors]


def schema_fault(schema: JsonObject) -> str | None:
    """What a value is that is no JSON schema, None where it is one."""
    validator = _validator_of(schema)
    return validator if isinstance(validator, str) else None


def _place(error: Any) -> str:
    path = ".".join(map(str, error.absolute_path))
    return f"{path}: " if path else ""


def _validator_of(schema: JsonObject) -> Validator | str:
    """A validator of a JSON schema, or what is wrong with the schema."""
    if is_deeper(schema, _DEEPEST_SCHEMA):
        return f"nested deeper than {_DEEPEST_SCHEMA} levels"
    return _validator(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=256)
def _validator(parameters: str) -> Validator | str:
    """A validator of that JSON schema, or what is wrong with the schema."""
    # Both take long to import, and most conversations have no calls.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry

    schema = json.loads(parameters)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"no JSON schema ({_place(error)}{error.message[:200]})"
    # An empty registry: a schema must not make us fetch addresses that it names.
    return Draft202012Validator(schema, registry=Registry())
