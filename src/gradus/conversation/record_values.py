"""What the converters of record shapes share: text, JSON and tools as rows hold them, thinking set apart by tags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gradus.conversation.messages import Conversation, JsonObject, Message, ToolCall, ToolSchema, tools_from_json
from gradus.core.errors import DataError

Row = Mapping[str, Any]


class RowError(DataError):
    """A row that cannot be used. reason: a short name to count by; detail: what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


def text_of(value: object) -> str:
    """Text as it is, a number as its digits, null as none at all. Errors: DataError."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"expected text, found {type(value).__name__}")


def first_of(row: Row, *keys: str) -> Any:
    """What stands in the first of these columns that holds anything, None where none does."""
    return next((row[key] for key in keys if row.get(key) is not None), None)


def name_of(value: object, where: str) -> str:
    """The name of a tool, which is not empty. Errors: DataError."""
    name = text_of(value)
    if not name:
        raise DataError(f"{where}: expected the name of a tool, found none")
    return name


def json_of(text: str, where: str) -> Any:
    """The value behind JSON text. Errors: DataError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected JSON ({error})") from error


def object_of(value: object, where: str) -> Mapping[str, Any]:
    """A JSON object. Errors: DataError."""
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: expected an object, found {type(value).__name__}")
    return value


def list_of(value: object, where: str, least: int = 1) -> list[Any]:
    """A list of at least so many entries; nothing at all is an empty one. Errors: DataError."""
    if value is None and least == 0:
        return []
    if not isinstance(value, list) or len(value) < least:
        raise DataError(f"{where}: expected a list" + (" with at least one entry" if least else ""))
    return value


def exchange(question: str, answer: Message, row: Row) -> Conversation:
    """One question and its answer, after the row's system message where it has one."""
    system = text_of(first_of(row, "system", "system_prompt")).strip()
    opening = (Message("system", system),) if system else ()
    return Conversation((*opening, Message("user", question), answer), id=text_of(row.get("id")))


# --- thinking

# (what opens, what closes) thinking at the start of an answer, by the set that writes it so.
_THINKING_TAGS = (
    ("<think>", "</think>"),  # DeepSeek R1, Qwen3, OpenR1, OpenMathReasoning
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThoughts, Sky-T1
    ("<Thought>", "</Thought>"),  # Marco-o1
    ("<thinking>", "</thinking>"),
)
_ANSWER_TAGS = (("<|begin_of_solution|>", "<|end_of_solution|>"), ("<Output>", "</Output>"))


def answer_of(text: str) -> Message:
    """An answer, with its thinking apart where tags say which part that is.

    Chat templates of DeepSeek R1 open the thinking themselves, so that a text may hold the closing tag alone. Errors:
    RowError where thinking is opened and never closed.
    """
    start = text.lstrip()
    for opening, closing in _THINKING_TAGS:
        opened = start.startswith(opening)
        if not opened and not (opening == "<think>" and closing in start and opening not in start):
            continue
        thinking, closed, answer = start.removeprefix(opening).partition(closing)
        if not closed:
            raise RowError("unclosed_thinking", f"thinking is opened by {opening} and never closed")
        return Message("assistant", _without_answer_tags(answer), thinking.strip())
    return Message("assistant", text)


def _without_answer_tags(answer: str) -> str:
    answer = answer.strip()
    for opening, closing in _ANSWER_TAGS:
        if answer.startswith(opening):
            return answer.removeprefix(opening).removesuffix(closing).strip()
    return answer


def with_thinking_apart(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with tagged thinking of answers in its own place.

    A system message that told a model to write those tags (OpenThoughts, Sky-T1) is left out where they are gone: it
    would ask for what the answers no longer do. Errors: RowError for unclosed thinking.
    """
    found, taken = [], False
    for message in messages:
        if message.role == "assistant" and message.reasoning_content is None and not message.tool_calls:
            split = answer_of(message.content)
            taken = taken or split.reasoning_content is not None
            message = replace(split, train=message.train)
        found.append(message)
    if taken and found[0].role == "system" and any(tag in found[0].content for tags in _THINKING_TAGS for tag in tags):
        del found[0]
    return tuple(found)


# --- tools

# Names that data sets give to JSON schema's types: Python's (BFCL), Java's and JavaScript's (BFCL).
_TYPE_NAMES = {
    "dict": "object",
    "hashmap": "object",
    "hashtable": "object",
    "str": "string",
    "char": "string",
    "int": "integer",
    "long": "integer",
    "short": "integer",
    "byte": "integer",
    "bigint": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "arraylist": "array",
    "set": "array",
    "queue": "array",
    "stack": "array",
}
_JSON_TYPES = ("object", "string", "integer", "number", "boolean", "array", "null")


def declared_tools(value: object) -> tuple[ToolSchema, ...]:
    """A row's declared tools, a list or its JSON text, with other languages' type names put into JSON schema's."""
    if isinstance(value, str) and value:
        value = json_of(value, "tools")
    return tools_from_json([_json_types(tool) for tool in value] if isinstance(value, list) else value)


def _json_types(schema: object) -> object:
    if isinstance(schema, list):
        return [_json_types(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    out: JsonObject = {key: _json_types(value) for key, value in schema.items()}
    name = out.get("type")
    if isinstance(name, str):
        known = _TYPE_NAMES.get(name.lower(), name.lower())
        if known == "any":
            del out["type"]
        elif known in _JSON_TYPES:
            out["type"] = known
    return out


def tools_of_calls(calls: Sequence[ToolCall]) -> tuple[ToolSchema, ...]:
    """Declarations that the calls of one conversation satisfy, for sets that record calls and no declarations.

    An argument has the types it was seen with, and is required where every call of that tool gives it.
    """
    seen: dict[str, list[JsonObject]] = {}
    for call in calls:
        seen.setdefault(call.name, []).append(call.arguments)
    return tuple(ToolSchema(name, "", _schema_of(arguments)) for name, arguments in seen.items())


def _schema_of(arguments: Sequence[JsonObject]) -> JsonObject:
    properties: dict[str, JsonObject] = {}
    for key in dict.fromkeys(key for given in arguments for key in given):
        kinds = sorted({_json_type(given[key]) for given in arguments if key in given})
        properties[key] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    required = [key for key in properties if all(key in given for given in arguments)]
    return {"type": "object", "properties": properties, "required": required}


def _json_type(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case None:
            return "null"
        case list():
            return "array"
        case _:
            return "object"


_MARKDOWN_FINAL = re.compile(r"\n\s*(?=\*\*Final Answer)", re.IGNORECASE)


def worked_solution(solution: str, answer: str) -> Message:
    """A long worked solution as thinking, and its last section, or else the answer, as what is said (LIMO)."""
    *_, last = [0, *(match.end() for match in _MARKDOWN_FINAL.finditer(solution))]
    if last:
        return Message("assistant", solution[last:].strip(), solution[:last].strip())
    return Message("assistant", f"The answer is {answer.strip()}." if answer.strip() else "", solution.strip())
