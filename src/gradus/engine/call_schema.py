"""A tool's JSON schema as a grammar of its arguments can be held to: narrowed where a grammar would say too much.

What a grammar allows must satisfy the schema as the validator reads it, that is after parsing by Python. A grammar of
JSON text knows nothing of parsing, so what the two could disagree on is taken away or refused:
- numbers lie within 10^15, with at most 9 digits behind the point and no exponent (1e999 is infinite, a number of
  5,000 digits is not read at all, and small models do not find the end of a fraction);
- exclusive bounds of fractions move inwards a little (0.29999999999999999999 is 0.3);
- an object with named properties has no others, where nothing says that it may, as in the strict mode of OpenAI's API;
- keys that could repeat, fractions as steps, and patterns that Python reads in another way are refused;
- `format` is a note, as in JSON Schema's own default ("10:00" is a good `time` to the validator and to most tools).
Whatever else the grammar compiler does not know, it refuses itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gradus.conversation.messages import JsonObject

LARGEST_NUMBER = 10**15
SMALLEST_STEP = 1e-9
_INWARDS = 1e-9  # of a bound's size, at least of 1
_ANY = "any_json_value"
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_CHOICES = ("anyOf", "oneOf", "allOf", "$ref", "enum", "const")
# Python reads \D, \W and \S, and classes that exclude \d, \w and \s, by Unicode and the grammar by ASCII; flags and
# set operations differ as well, and `a++`.
_FOREIGN_PATTERN = re.compile(r"\\[DWSpPAzZ]|\(\?[^:]|\[\^[^\]]*\\[dws]|\[\[|&&|~~|--|[*+?}]\+")
_FOREIGN_KEYS = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor")  # they move what references mean


class UnenforceableError(ValueError):
    """A part of a schema that a grammar cannot be held to; its text says which and why."""


def narrowed(schema: JsonObject) -> JsonObject:
    """The schema that a grammar of the arguments is made of; every instance of it is one of the given schema.

    UnenforceableError where no such schema is known.
    """
    kind = schema.get("type", "object")
    if kind != "object":
        raise UnenforceableError(f"arguments are an object, and its type is {kind!r}")
    for node in _nodes(schema):
        _check(node)
    # Where schemas are merged, properties of one part are unknown to another.
    merges = any("allOf" in node or _is_merged(node) for node in _nodes(schema))
    root = _narrow({**schema, "type": "object"}, close=not merges)
    anything = {
        "minimum": -LARGEST_NUMBER,
        "maximum": LARGEST_NUMBER,
        "multipleOf": SMALLEST_STEP,
        "items": {"$ref": f"#/$defs/{_ANY}"},
        "additionalProperties": {"$ref": f"#/$defs/{_ANY}"},
    }
    root.pop("$schema", None)
    return {**root, "$defs": {**root.get("$defs", {}), _ANY: anything}}


def _is_merged(node: JsonObject) -> bool:
    """Whether several things are said of the same object's keys."""
    return any(key in node for key in ("anyOf", "oneOf", "$ref")) and any(
        key in node for key in ("properties", "required", "additionalProperties")
    )


def _nodes(schema: Any) -> Iterator[JsonObject]:
    """A schema and all schemas in it."""
    if not isinstance(schema, Mapping):
        return
    yield dict(schema)
    for key in _MAPS:
        for part in schema.get(key, {}).values():
            yield from _nodes(part)
    for key in _LISTS:
        for part in schema.get(key, ()):
            yield from _nodes(part)
    for key in _SINGLE:
        yield from _nodes(schema.get(key))


def _check(node: JsonObject) -> None:
    """UnenforceableError for what Python and the grammar would read in two ways."""
    # What is not finite comes of 1e999, which Python's json reads.
    if isinstance(step := node.get("multipleOf"), float) and not step.is_integer():
        raise UnenforceableError(f"multipleOf {step}: a step that is no whole number is not exact in binary")
    if moved := [key for key in _FOREIGN_KEYS if key in node]:
        raise UnenforceableError(f"{moved[0]} is not known here")
    if node.get("minProperties", 0) > 1:
        raise UnenforceableError("minProperties above 1: keys could repeat")
    patterns = [node["pattern"]] if "pattern" in node else []
    for pattern in [*patterns, *node.get("patternProperties", {})]:
        if found := _FOREIGN_PATTERN.search(pattern):
            raise UnenforceableError(f"pattern {pattern!r}: {found[0]!r} is read in more than one way")


def _narrow(schema: Any, close: bool) -> Any:
    """A schema with all schemas in it narrowed. close: whether objects get no keys but those they name."""
    if schema is True or schema == {}:
        return {"$ref": f"#/$defs/{_ANY}"}
    if not isinstance(schema, Mapping):
        return schema
    node = dict(schema)
    for key in _MAPS:
        if key in node:
            node[key] = {name: _narrow(part, close) for name, part in node[key].items()}
    for key in _LISTS:
        if key in node:
            node[key] = [_narrow(part, close) for part in node[key]]
    for key in _SINGLE:
        if key in node:
            node[key] = _narrow(node[key], close)
    node.pop("format", None)
    if node.get("uniqueItems") is False:
        del node["uniqueItems"]
    kinds = node.get("type", None if any(key in node for key in _CHOICES) else _KINDS)
    if "const" in node or "enum" in node or kinds is None:
        return node
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if kinds & {"number", "integer"}:
        _bound_numbers(node, whole="number" not in kinds)
    if "array" in kinds:
        node.setdefault("items", {"$ref": f"#/$defs/{_ANY}"})
    if "object" in kinds and "additionalProperties" not in node:
        _settle_other_keys(node, close)
    return node


_KINDS = ("string", "number", "boolean", "null", "array", "object")


def _bound_numbers(node: JsonObject, whole: bool) -> None:
    """Both bounds, inclusive, and a step. whole: of integers, whose steps and exclusive bounds are exact."""

    lowest, highest = [-LARGEST_NUMBER], [LARGEST_NUMBER]
    if "minimum" in node:
        lowest.append(node["minimum"])
    if "maximum" in node:
        highest.append(node["maximum"])
    if "exclusiveMinimum" in node and not whole:
        bound = node.pop("exclusiveMinimum")
        lowest.append(bound + _INWARDS * max(1.0, abs(bound)))
    if "exclusiveMaximum" in node and not whole:
        bound = node.pop("exclusiveMaximum")
        highest.append(bound - _INWARDS * max(1.0, abs(bound)))
    if not whole:
        node.setdefault("multipleOf", SMALLEST_STEP)
    node["minimum"], node["maximum"] = max(lowest), min(highest)


def _settle_other_keys(node: JsonObject, close: bool) -> None:
    """What an object may hold besides the keys that it names: nothing where it names any and may be closed."""
    named = node.get("properties")
    if close and named is not None and "patternProperties" not in node:
        unnamed = [key for key in node.get("required", ()) if key not in named]
        node["properties"] = {**named, **{key: {"$ref": f"#/$defs/{_ANY}"} for key in unnamed}}
        node["additionalProperties"] = False
    else:
        node["additionalProperties"] = {"$ref": f"#/$defs/{_ANY}"}
