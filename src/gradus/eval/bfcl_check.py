"""Whether tool calls are those that a question of BFCL has for right, by the rules of its own checker.

An answer lists for each argument the values that are right, "" among them where it may be left out. Text is compared
without case, spaces and some punctuation; a number for a decimal may be whole; calls side by side may stand in any
order. Source: Patil et al. 2025, "The Berkeley Function Calling Leaderboard", and its checker of version 4, whose
verdicts ours equal; its quirks are kept: an answer whose right values are of another type than is declared holds names
of variables, which are compared as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gradus.conversation.messages import ToolCall
from gradus.eval.bfcl_source import java_value, javascript_value

Language = Literal["python", "java", "javascript"]
Function = Mapping[str, Any]
"""As a question declares it: name, description, parameters {"properties", "required"}."""
Right = Mapping[str, Mapping[str, Sequence[Any]]]
"""One right call: {name: {argument: values}}."""

_IGNORED = re.compile(r"[ ,./\-_*^]")
_KINDS: Mapping[Language, Mapping[str, type]] = {
    "python": {
        "string": str, "integer": int, "float": float, "boolean": bool, "array": list, "tuple": list, "dict": dict,
        "any": str,
    },
    "java": {
        "byte": int, "short": int, "integer": int, "long": int, "float": float, "double": float, "boolean": bool,
        "char": str, "String": str, "any": str, "Array": list, "ArrayList": list, "HashMap": dict,
    },
    "javascript": {
        "String": str, "integer": int, "float": float, "Bigint": int, "Boolean": bool, "dict": dict, "array": list,
        "any": str,
    },
}  # fmt: skip


def calls_fault(
    calls: Sequence[ToolCall], functions: Sequence[Function], rights: Sequence[Right], language: Language
) -> str | None:
    """What is wrong with the calls of a turn, None where they are the right ones in any order.

    Each right call takes the first call that fits it. Errors: KeyError for a type that the benchmark does not have.
    """
    if len(calls) != len(rights):
        return f"{len(calls)} calls, expected {len(rights)}"
    declared = {function["name"]: function for function in reversed(functions)}
    left = list(calls)
    for right in rights:
        faults = []
        for call in left:
            fault = call_fault(call, declared[next(iter(right))], right, language)
            if fault is None:
                left.remove(call)
                break
            faults.append(fault)
        else:
            return faults[0] if len(rights) == 1 else f"no call is {next(iter(right))} as expected: {'; '.join(faults)}"
    return None


def call_fault(call: ToolCall, function: Function, right: Right, language: Language) -> str | None:
    """What is wrong with one call."""
    (values,) = right.values()
    properties: Mapping[str, Any] = function["parameters"]["properties"]
    if call.name != function["name"]:
        return f"calls {call.name}, expected {function['name']}"
    for name in function["parameters"]["required"]:
        if name not in call.arguments:
            return f"lacks the required argument {name}"
    for name, value in call.arguments.items():
        if name not in properties or name not in values:
            return f"unexpected argument {name}"
        if not _is_right(value, values[name], properties[name], language):
            return f"{name} = {value!r}, expected one of {list(values[name])!r}"
    for name, options in values.items():
        if name not in call.arguments and "" not in options:
            return f"lacks the argument {name}"
    return None


def _is_right(argument: Any, options: Sequence[Any], declared: Mapping[str, Any], language: Language) -> bool:
    kind: str = declared["type"]
    wanted = _KINDS[language][kind]
    item_kind: str | None = declared["items"]["type"] if kind in ("array", "tuple", "Array", "ArrayList") else None
    if language != "python":
        if not isinstance(argument, str):
            return False
        value: Any = (java_value if language == "java" else javascript_value)(argument, kind, item_kind)
    else:
        value = _decimal(argument) if kind == "float" and type(argument) is int else argument
    item_wanted = _KINDS[language][item_kind] if item_kind is not None else None
    told = _type_of_first(options)
    is_declared = type(value) is wanted
    if not is_declared:
        # A variable, such as a name in place of a list.
        return type(value) is told and value in options
    if item_wanted is not None and not _has_items(value, options, item_wanted):
        return False
    if told is not None and told is not wanted:
        return value in options
    return _is_right_of_kind(value, options, wanted, item_wanted)


def _decimal(number: int) -> float | int:
    """A whole number as a decimal; as it is where it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return number


def _is_right_of_kind(value: Any, options: Sequence[Any], wanted: type, item_wanted: type | None) -> bool:
    """Whether a value of the declared type is one of the right ones."""
    if wanted is dict:
        return _is_right_object(value, options)
    if wanted is list and item_wanted is dict:
        return any(_are_right_objects(value, option) for option in options)
    if wanted is list:
        # An argument that may be left out may be an empty list, too.
        return list(map(_plain, value)) in [list(map(_plain, o)) for o in options if isinstance(o, str | list)]
    if wanted is str:
        return _plain(value) in [_plain(option) for option in options if isinstance(option, str)]
    return value in options


def _type_of_first(options: Sequence[Any]) -> type | None:
    """The type of the first right value, None where an argument may only be left out."""
    return next((type(option) for option in options if option != ""), None)


def _has_items(value: Sequence[Any], options: Sequence[Any], wanted: type) -> bool:
    """Whether each element is of the declared type, or of that of a right value's."""
    return any(
        not isinstance(option, list) or all(type(item) in (wanted, _type_of_first(option)) for item in value)
        for option in options
    )


def _is_right_object(value: Mapping[str, Any], options: Sequence[Any]) -> bool:
    """Right values are objects with a list of right values for each key."""
    return any(
        all(key in option and _plain(found) in list(map(_plain, option[key])) for key, found in value.items())
        and all(key in value or "" in told for key, told in option.items())
        for option in options
        if isinstance(option, dict)
    )


def _are_right_objects(value: Sequence[Any], option: Any) -> bool:
    return len(value) == len(option) and all(
        isinstance(found, dict) and _is_right_object(found, [told]) for found, told in zip(value, option, strict=True)
    )


def _plain(value: Any) -> Any:
    """Text as it is compared; anything else as it is."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value
