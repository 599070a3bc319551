"""What an answer is forced to be: a call (`tool_choice`), or JSON of a schema (`response_format`, `text.format`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradus.conversation.messages import JsonObject
from gradus.core.errors import ConfigError, did_you_mean
from gradus.serve.errors import bad_request, unsupported
from gradus.serve.models import ServedModel

_ANY_OBJECT: JsonObject = {"type": "object"}
_MOST_CHOICES = 128


@dataclass(frozen=True)
class ToolChoice:
    """must_call: the answer begins with a call. names: of the tools that may be called; None for all."""

    must_call: bool = False
    names: tuple[str, ...] | None = None


def tool_choice(given: str | Mapping[str, Any] | None, declared: Sequence[str]) -> ToolChoice:
    """What a chat completion's `tool_choice` allows of the declared tools. Errors: ApiError."""
    if given is None or given in ("auto", "none"):
        return ToolChoice()
    if not declared:
        raise bad_request('"tool_choice" forces a call, and there are no tools; declare some', "tool_choice")
    if given == "required":
        return ToolChoice(must_call=True)
    kind = None if isinstance(given, str) else given.get("type")
    if isinstance(given, str) or kind not in ("function", "allowed_tools"):
        expected = '"auto", "none", "required", {"type": "function", ...} or {"type": "allowed_tools", ...}'
        raise unsupported("tool_choice", f'"tool_choice": expected {expected}, found {repr(given)[:80]}')
    if kind == "function":
        return ToolChoice(True, (_named(given, "tool_choice", declared),))
    where = "tool_choice.allowed_tools"
    inner = given.get("allowed_tools")
    if not isinstance(inner, Mapping) or inner.get("mode") not in ("auto", "required"):
        raise bad_request(f'"{where}.mode": expected "auto" or "required"', "tool_choice")
    tools = inner.get("tools")
    if not isinstance(tools, list | tuple) or not 0 < len(tools) <= _MOST_CHOICES:
        raise bad_request(f'"{where}.tools": expected a list of 1 to {_MOST_CHOICES} tools', "tool_choice")
    names = [_named(tool, f"{where}.tools[{place}]", declared) for place, tool in enumerate(tools)]
    return ToolChoice(inner["mode"] == "required", tuple(dict.fromkeys(names)))


def _named(tool: Any, where: str, declared: Sequence[str]) -> str:
    """The name of a tool as a choice has it."""
    function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise bad_request(f'"{where}": expected the name of a function', "tool_choice")
    if name not in declared:
        hint = did_you_mean(name, declared) or f"; there are {', '.join(declared)}"
        raise bad_request(f'"{where}": no tool "{name[:80]}" is declared{hint}', "tool_choice")
    return name


def nested_choice(given: str | Mapping[str, Any] | None) -> Any:
    """The `tool_choice` of a response in the nesting of chat completions."""
    if not isinstance(given, Mapping):
        return given
    if given.get("type") == "function":
        return _nested(given)
    if given.get("type") == "allowed_tools":
        tools = given.get("tools")
        inner = [_nested(tool) for tool in tools] if isinstance(tools, list | tuple) else tools
        return {"type": "allowed_tools", "allowed_tools": {"mode": given.get("mode"), "tools": inner}}
    return given


def _nested(tool: Any) -> Any:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        return tool
    return {"type": "function", "function": {"name": tool.get("name")}}


def chat_schema(given: Mapping[str, Any] | None, model: ServedModel) -> JsonObject | None:
    """The JSON schema of a chat completion's `response_format`; None for text. Errors: ApiError."""
    if given is None:
        return None
    named = {"json_schema"} if given.get("type") == "json_schema" else set()
    _check_keys(given, named, "response_format")
    return _schema(given, given.get("json_schema"), "response_format", "response_format.json_schema", model)


def response_schema(given: Any, model: ServedModel) -> JsonObject | None:
    """The JSON schema of a response's `text`; None for text. Errors: ApiError."""
    if given is None:
        return None
    for key, value in given.items():
        if key != "format" and (key, value) != ("verbosity", "medium") and value is not None:
            raise unsupported(f"text.{key}", f'"text.{key}" is not supported here; leave it out')
    form = given.get("format")
    if form is None:
        return None
    if not isinstance(form, Mapping):
        raise bad_request('"text.format": expected an object', "text.format")
    if form.get("type") != "json_schema":
        _check_keys(form, set(), "text.format")
    inner = {key: value for key, value in form.items() if key != "type"}
    return _schema(form, inner, "text.format", "text.format", model)


def _schema(form: Mapping[str, Any], inner: Any, at: str, where: str, model: ServedModel) -> JsonObject | None:
    """at, where: what the parameters are called that hold the type, and the schema."""
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        schema = _ANY_OBJECT
    elif kind == "json_schema":
        schema = _given_schema(inner, where)
        where = f"{where}.schema"
    else:
        expected = '"text", "json_object" or "json_schema"'
        raise unsupported(f"{at}.type", f'"{at}.type": expected {expected}, found {repr(kind)[:80]}')
    try:
        model.engine.check_answer(schema)
    except ConfigError as error:
        raise bad_request(f'"{where}": {error}', where) from None
    return schema


def _given_schema(inner: Any, where: str) -> JsonObject:
    if not isinstance(inner, Mapping):
        raise bad_request(f'"{where}": expected an object with "name" and "schema"', where)
    _check_keys(inner, {"name", "description", "schema", "strict"}, where)
    kinds: tuple[tuple[str, type, str], ...] = (("name", str, "a text"), ("schema", dict, "a JSON schema"))
    for key, kind, words in kinds:
        if not isinstance(inner.get(key), kind):
            raise bad_request(f'"{where}.{key}": expected {words}', f"{where}.{key}")
    if not isinstance(inner.get("strict"), bool | None):
        raise bad_request(f'"{where}.strict": expected true or false', f"{where}.strict")
    return dict(inner["schema"])


def _check_keys(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in given:
        if key not in known | {"type"}:
            raise bad_request(f'unknown or unsupported key "{key}"', f"{where}.{key}")
