"""Values written as Java or JavaScript source text, as BFCL's questions on those languages ask for arguments.

What cannot be read stays the text that it is: it may be the name of a variable, which some right answers are. The forms
that are read are those of the Berkeley Function Calling Leaderboard's own checker (version 4), no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Reader = Callable[[str], Any]

_INTEGER = re.compile(r"^-?\d+$")
_DECIMAL = r"^-?\d+(\.\d+)?"
_EXPONENT = r"([eE][+-]?\d+)?"
_JAVA_FLOAT = re.compile(_DECIMAL + _EXPONENT + "[fF]$")
_JAVA_DOUBLE = re.compile(_DECIMAL + _EXPONENT + "$")
_JAVA_LONG = re.compile(r"^-?\d+[lL]$")
_AS_LIST = re.compile(r"new\s+ArrayList<\w*>\(Arrays\.asList\((.+?)\)\)")
_ADDED = re.compile(r"new\s+ArrayList<\w*>\(\)\s*\{\{\s*(.+?)\s*\}\}", re.DOTALL)
_ADD = re.compile(r"add\((.+?)\)")
_EMPTY_LIST = re.compile(r"new\s+ArrayList<\w*>\(\)")
_JAVA_ARRAY = re.compile(r"new\s+\w+\[\]\s*\{(.*?)\}")
_HASH_MAP = re.compile(r"new\s+HashMap<.*?>\s*\(\)\s*\{\s*\{?\s*(.*?)\s*\}?\s*\}", re.DOTALL)
_PUT = re.compile(r"put\(\"(.*?)\",\s*(.*?)\)")
_EMPTY_MAP = re.compile(r"new\s+HashMap<.*?>\s*\(\)")
_JS_FLOAT = re.compile(_DECIMAL + "$")
_JS_BIGINT = re.compile(r"^-?\d+n$")
# Rows up to the first end of one that the end of all follows. Atomic, as a table without its end would else be tried
# with every way to part it into rows, 2^rows of them.
_JS_ROWS = r"\[(?>\]\s*,\s*\[|.)*?\]\s*"
_JS_TABLE = re.compile(rf"\[\s*{_JS_ROWS}\]|\bnew\s+Array\(\s*{_JS_ROWS}\)")
_JS_ROW = re.compile(r"\[(.*?)\]")
_JS_ARRAY = re.compile(r"\[(.*?)\]|\bnew\s+Array\((.*?)\)")
_JS_OBJECT = re.compile(r"\{(.*?)\}")
_JS_PAIR = re.compile(r"([^:]+):\s*(.*?)(?:,\s*(?=[^,]+:)|$)")


def java_value(text: str, kind: str, item_kind: str | None = None) -> Any:
    """What a Java expression of a declared type stands for. item_kind: of a list's elements, None for any."""
    if kind in _JAVA_LISTS:
        return _JAVA_LISTS[kind](text, item_kind)
    return _JAVA[kind](text) if kind in _JAVA else text


def javascript_value(text: str, kind: str, item_kind: str | None = None) -> Any:
    """What a JavaScript expression of a declared type stands for; item_kind as of `java_value`."""
    if kind == "array":
        return _javascript_array(text.strip(), item_kind)
    return _JAVASCRIPT[kind](text) if kind in _JAVASCRIPT else text


def _where(pattern: re.Pattern[str], read: Reader) -> Reader:
    return lambda text: read(text) if pattern.match(text) else text


def _boolean(text: str) -> bool | str:
    return text == "true" if text in ("true", "false") else text


def _is_quoted(text: str, marks: str) -> bool:
    return any(text.startswith(mark) and text.endswith(mark) for mark in marks)


def _whole(text: str) -> int | str:
    """The number that digits are; the text where they are more than Python reads."""
    try:
        return int(text)
    except ValueError:
        return text


def _number(text: str) -> int | float | str:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


# Java


def _java_any(text: str) -> Any:
    """A value whose type is not declared."""
    if text in ("true", "false"):
        return text == "true"
    if _is_quoted(text, '"'):
        return text[1:-1]
    if _JAVA_LONG.match(text):
        return _whole(text[:-1])
    return float(text[:-1]) if _JAVA_FLOAT.match(text) else _number(text)


def _java_array_list(text: str, item_kind: str | None) -> Any:
    if found := _AS_LIST.search(text):
        parts = found[1].split(",")
    elif found := _ADDED.search(text):
        parts = _ADD.findall(found[1])
    else:
        return [] if _EMPTY_LIST.search(text) else text
    if item_kind in ("char", "String"):
        return [part.strip()[1:-1] for part in parts]  # without the quotes
    return [_java_item(part.strip(), item_kind) for part in parts]


def _java_array(text: str, item_kind: str | None) -> Any:
    found = _JAVA_ARRAY.search(text)
    if not found:
        return text
    return [_java_item(part.strip(), item_kind) for part in found[1].split(",") if part.strip()]


def _java_item(text: str, kind: str | None) -> Any:
    return java_value(text, kind) if kind else _java_any(text)


def _java_map(text: str) -> Any:
    if found := _HASH_MAP.search(text):
        return {key: _java_any(value.strip()) for key, value in _PUT.findall(found[1])}
    return {} if _EMPTY_MAP.search(text) else text


_JAVA: Mapping[str, Reader] = {
    "byte": _where(_INTEGER, _whole),
    "short": _where(_INTEGER, _whole),
    "integer": _where(_INTEGER, _whole),
    "long": _where(_JAVA_LONG, lambda text: _whole(text[:-1])),
    "float": _where(_JAVA_FLOAT, lambda text: float(text[:-1])),
    "double": _where(_JAVA_DOUBLE, float),
    "boolean": _boolean,
    "HashMap": _java_map,
}
_JAVA_LISTS: Mapping[str, Callable[[str, str | None], Any]] = {"Array": _java_array, "ArrayList": _java_array_list}


# JavaScript


def _javascript_any(text: str) -> Any:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    return text[1:-1] if _is_quoted(text, "\"'") else _number(text)


def _javascript_array(text: str, item_kind: str | None) -> Any:
    if table := _JS_TABLE.match(text):
        rows = [row.strip().removeprefix("[") for row in _JS_ROW.findall(table[0])]
        return [[_javascript_any(part) for part in row.split(",")] for row in rows]
    found = _JS_ARRAY.match(text)
    if not found:
        return text
    inside = (found[1] if found[1] is not None else found[2]).strip()
    parts = [part.strip() for part in inside.split(",")] if inside else []
    return [javascript_value(part, item_kind) if item_kind else _javascript_any(part) for part in parts]


def _javascript_object(text: str) -> Any:
    text = text.strip()
    found = _JS_OBJECT.match(text)
    if not found:
        return text
    entries: dict[str, Any] = {}
    for key, written in _JS_PAIR.findall(found[1]):
        value = written.strip()
        name = key.strip().strip("'\"")
        if value.startswith("[") and value.endswith("]"):
            entries[name] = _javascript_array(value, None)
        elif value.startswith("{") and value.endswith("}"):
            entries[name] = _javascript_object(value)
        else:
            entries[name] = _javascript_any(value.strip("'\""))
    return entries


_JAVASCRIPT: Mapping[str, Reader] = {
    "String": lambda text: text[1:-1] if _is_quoted(text, "\"'") else text,
    "integer": _where(_INTEGER, _whole),
    "float": _where(_JS_FLOAT, float),
    "Bigint": _where(_JS_BIGINT, lambda text: _whole(text[:-1])),
    "Boolean": _boolean,
    "dict": _javascript_object,
}
