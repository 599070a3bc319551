"""A JSON schema as a grammar can be held to it: narrowed where a grammar would say too much.

What a grammar allows must satisfy the schema as the validator reads it, that is after parsing by Python. A grammar of
JSON text knows nothing of parsing, so what the two could disagree on is taken away or refused:
- numbers lie within 10^15, with at most 9 digits behind the point and no exponent (1e999 is infinite, a number of
  5,000 digits is not read at all, and small models do not find the end of a fraction); where schemas are merged, as
  with `allOf`, the digits are not counted, for the compiler compares such steps inexactly;
- exclusive bounds of fractions move inwards a little (0.29999999999999999999 is 0.3);
- an object with named properties has no others, where nothing says that it may, as in the strict mode of OpenAI's API;
- keys that could repeat, fractions as steps, and patterns that Python reads in another way are refused;
- `format` is a note, as in JSON Schema's own default ("10:00" is a good `time` to the validator and to most tools).
What the grammar compiler does not know is refused with its place, and so is what has no end, or would take long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any
from urllib.parse import unquote

from gradus.conversation.messages import JsonObject
from gradus.conversation.validate import schema_fault

LARGEST_NUMBER = 10**15
SMALLEST_STEP = 1e-9
MOST_CHARACTERS = 2**16
MOST_OBJECTS = 1000
MOST_REPEATS = 10_000
_INWARDS = 1e-9  # of a bound's size, at least of 1
_ANY = "any_json_value"
_MERGED_LEVELS = 3
"""So many levels of any value, where schemas are merged: the compiler would not end with what holds itself."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_CHOICES = ("anyOf", "oneOf", "allOf", "$ref", "enum", "const")
# Python reads \D, \W and \S, and classes that exclude \d, \w and \s, by Unicode and the grammar by ASCII; flags,
# classes in classes and set operations differ as well, and `a++` and `a{ 2 }`.
_FOREIGN_PATTERN = re.compile(
    r"(?s)\\[DWSpPAzZ]|\(\?[^:]|(?<!\\)(?:\\\\)*\[(?:\^\]?(?:[^\]\\]|\\.)*?\\[dws]|\^?\]?(?:[^\]\\[]|\\.)*\[)"
    r"|&&|~~|--|[*+?}]\+|\{[\d,]*\s[\d,\s]*\}"
)
_CLASS = re.compile(r"(?s)(?<!\\)(?:\\\\)*(\[\^?\]?(?:[^\]\\]|\\.)*\])")
_COUNTED = re.compile(r"\{(\d*),?(\d*)\}")
_FOREIGN_KEYS = (
    *("$id", "$anchor", "$dynamicRef", "$dynamicAnchor"),  # they move what references mean
    *("not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains"),
    *("propertyNames", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"),
)

Place = tuple[str, ...]
"""Of a schema in another: the keys on the way to it."""


class UnenforceableError(ValueError):
    """A part of a schema that a grammar cannot be held to; its text says where, which and why."""


def narrowed(schema: JsonObject) -> JsonObject:
    """The schema that a grammar is made of; every instance of it is one of the given schema.

    UnenforceableError where it is no JSON schema, where no such schema is known, or the grammar would take long to
    make: beyond MOST_CHARACTERS, MOST_OBJECTS JSON objects in it, or MOST_REPEATS counted repeats of its patterns, the
    counts of a pattern multiplied.
    """
    size = len(json.dumps(schema, ensure_ascii=False))
    if size > MOST_CHARACTERS:
        raise UnenforceableError(f"{size:,} characters, and at most {MOST_CHARACTERS:,} are taken")
    if (found := num_objects(schema)) > MOST_OBJECTS:
        raise UnenforceableError(f"{found:,} objects in it, and at most {MOST_OBJECTS:,} are taken")
    if fault := schema_fault(schema):
        raise UnenforceableError(fault)
    if taken := next((name for name in schema.get("$defs", {}) if name.startswith(_ANY)), None):
        raise UnenforceableError(f"$defs.{taken}: the name has a meaning here; give it another")
    parts = list(_parts(schema))
    num_repeats = 0
    for place, node in parts:
        try:
            _check(node)
        except UnenforceableError as error:
            raise UnenforceableError(f"{_text(place)}{error}") from None
        num_repeats += sum(map(_repeats, _patterns(node)))
        if num_repeats > MOST_REPEATS:
            raise UnenforceableError(f"{_text(place)}patterns repeat more than {MOST_REPEATS:,} times, all in all")
    _check_references(parts)
    _check_ends(parts)
    # Where schemas are merged, properties of one part are unknown to another.
    merges = any("allOf" in node or _is_merged(node) for _, node in parts)
    root = _narrow(schema, not merges, dict(parts))
    root.pop("$schema", None)
    return {**root, "$defs": {**root.get("$defs", {}), **_anything(merges)}}


def _anything(merges: bool) -> dict[str, JsonObject]:
    """The definitions that any value goes by. merges: whether schemas are merged, which some of them may be then."""
    bounds = {"minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
    if not merges:
        itself = {"$ref": f"#/$defs/{_ANY}"}
        return {_ANY: {**bounds, "multipleOf": SMALLEST_STEP, "items": itself, "additionalProperties": itself}}
    names = [_ANY, *(f"{_ANY}_{level}" for level in range(1, _MERGED_LEVELS))]
    inner = [{"$ref": f"#/$defs/{name}"} for name in names[1:]]
    last = {**bounds, "type": ["string", "number", "boolean", "null"]}
    holding = [{**bounds, "items": one, "additionalProperties": one} for one in inner]
    return dict(zip(names, [*holding, last], strict=True))


def _is_merged(node: JsonObject) -> bool:
    """Whether several things are said of the same object's keys."""
    num_others = sum(key in node for key in ("anyOf", "oneOf", "$ref"))
    says_itself = any(key in node for key in ("properties", "required", "additionalProperties"))
    return num_others + says_itself > 1


def num_objects(value: Any) -> int:
    """JSON objects in a value, itself among them: what it takes to look through a schema goes by these."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, Mapping) + sum(map(num_objects, inner))


def _parts(schema: Any, place: Place = ()) -> Iterator[tuple[Place, JsonObject]]:
    """A schema and all schemas in it."""
    if not isinstance(schema, Mapping):
        return
    yield place, dict(schema)
    for key in _MAPS:
        for name, part in schema.get(key, {}).items():
            yield from _parts(part, (*place, key, name))
    for key in _LISTS:
        for number, part in enumerate(schema.get(key, ())):
            yield from _parts(part, (*place, key, str(number)))
    for key in _SINGLE:
        yield from _parts(schema.get(key), (*place, key))


def _text(place: Place) -> str:
    return f"{'.'.join(place)}: " if place else ""


def _check(node: JsonObject) -> None:
    """UnenforceableError for what is not known, or what Python and the grammar would read in two ways."""
    # What is not finite comes of 1e999, which Python's json reads.
    if isinstance(step := node.get("multipleOf"), float) and not step.is_integer():
        raise UnenforceableError(f"multipleOf {step}: a step that is no whole number is not exact in binary")
    for key in _FOREIGN_KEYS:
        if key in node and not _says_nothing(key, node[key]):
            raise UnenforceableError(f"{key} is not known here")
    if node.get("minProperties", 0) > 1:
        raise UnenforceableError("minProperties above 1: keys could repeat")
    for pattern in _patterns(node):
        if found := _FOREIGN_PATTERN.search(pattern):
            raise UnenforceableError(f"pattern {pattern!r}: {found[0]!r} is read in more than one way")
        if leaking := _leaking_class(pattern):
            mend = f"write {leaking[:-1]}\\x00-\\x1f]" if leaking.startswith("[^") else "leave those out"
            raise UnenforceableError(
                f"pattern {pattern!r}: {leaking} takes control characters, but not both quote and backslash, which "
                f"cannot be held apart; {mend}"
            )


def _says_nothing(key: str, value: Any) -> bool:
    """Whether all values satisfy it anyway: names are always text, as zod says of its records."""
    if key == "uniqueItems":
        return value is False
    return key == "propertyNames" and value in (True, {}, {"type": "string"})


def _patterns(node: JsonObject) -> list[str]:
    return [*([node["pattern"]] if "pattern" in node else []), *node.get("patternProperties", {})]


def _leaking_class(pattern: str) -> str | None:
    """A class in which the compiler (llguidance 1.9) lets a quote or a backslash though it leaves it out.

    It does so, written as an escape, where all control characters are in it.
    """
    for found in dict.fromkeys(_CLASS.findall(pattern)):
        if re.fullmatch(found, "\x01") and not (re.fullmatch(found, '"') and re.fullmatch(found, "\\")):
            return str(found)
    return None


def _repeats(pattern: str) -> int:
    """How often its parts may be repeated by count, as if all counts stood in one another."""
    return prod(max(1, int(most or least or 1)) for least, most in _COUNTED.findall(pattern))


def _target(reference: str) -> Place | None:
    """The place that a reference in the same document leads to."""
    if not reference.startswith("#"):
        return None
    steps = unquote(reference[1:]).split("/")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps[1:]) if not steps[0] else None


def _check_references(parts: Sequence[tuple[Place, JsonObject]]) -> None:
    """UnenforceableError for one that leads out of the schema, or to what is no schema in it."""
    places = {place for place, _ in parts}
    for place, node in parts:
        if "$ref" in node and _target(node["$ref"]) not in places:
            raise UnenforceableError(f"{_text(place)}$ref {node['$ref']!r} leads to no schema in here")


def _check_ends(parts: Sequence[tuple[Place, JsonObject]]) -> None:
    """UnenforceableError where a schema needs another of itself, and that one another, without end."""
    ends: set[Place] = set()
    left = list(reversed(parts))  # parts of parts come first
    while left:
        found = [place for place, node in left if _can_end(place, node, ends)]
        if not found:
            place = next((place for place, node in reversed(left) if "$ref" in node), left[-1][0])
            raise UnenforceableError(f"{_text(place)}it needs another of itself, and that one another, without end")
        left = [part for part in reversed(left) if part[0] not in ends]


def _can_end(place: Place, node: JsonObject, ends: set[Place]) -> bool:
    """Whether a value of this schema may be finite, by what is known of others; adds it to those that are known."""

    def can(*keys: str | int) -> bool:
        part: Any = node
        for key in keys:
            part = part[key]
        return not isinstance(part, Mapping) or (*place, *map(str, keys)) in ends

    def choices(key: str) -> list[bool]:
        return [can(key, number) for number in range(len(node.get(key, ())))]

    kinds = node.get("type", _KINDS)
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    named, others = node.get("properties", {}), "additionalProperties"
    keys = [("properties", key) if key in named else (others,) for key in node.get("required", ())]
    first, least = len(node.get("prefixItems", ())), node.get("minItems", 0)
    items = choices("prefixItems")[: int(least)] + ([can("items")] if least > first and "items" in node else [])
    by_kind = (
        bool(kinds - {"object", "array"})
        or ("object" in kinds and all(can(*key) for key in keys if key[0] in node))
        or ("array" in kinds and all(items))
    )
    by_others = ("$ref" not in node or _target(node["$ref"]) in ends) and all(choices("allOf"))
    by_choice = all(key not in node or any(choices(key)) for key in ("anyOf", "oneOf"))
    it_can = by_others and ("const" in node or "enum" in node or (by_kind and by_choice))
    if it_can:
        ends.add(place)
    return it_can


def _narrow(schema: Any, close: bool, parts: Mapping[Place, JsonObject]) -> Any:
    """A schema with all schemas in it narrowed. close: whether objects get no keys but those they name.

    parts: all schemas of the document, by their places.
    """
    if schema is True or schema == {}:
        return {"$ref": f"#/$defs/{_ANY}"}
    if not isinstance(schema, Mapping):
        return schema
    node = dict(schema)
    if "oneOf" in node and "anyOf" not in node and _exclude_each_other(node["oneOf"], parts):
        node["anyOf"] = node.pop("oneOf")
    for key in _MAPS:
        if key in node:
            node[key] = {name: _narrow(part, close, parts) for name, part in node[key].items()}
    for key in _LISTS:
        if key in node:
            node[key] = [_narrow(part, close, parts) for part in node[key]]
    for key in _SINGLE:
        if key in node:
            node[key] = _narrow(node[key], close, parts)
    for key in ("format", "uniqueItems", "propertyNames"):  # what of these is let in says nothing
        node.pop(key, None)
    kinds = node.get("type", None if any(key in node for key in _CHOICES) else _KINDS)
    if "const" in node or "enum" in node:
        return node
    if kinds is None:
        _move_inwards(node)
        return node
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if "number" in kinds:
        _move_inwards(node)
        if close:
            node.setdefault("multipleOf", SMALLEST_STEP)
    if kinds & {"number", "integer"}:
        node["minimum"] = max(-LARGEST_NUMBER, node.get("minimum", -LARGEST_NUMBER))
        node["maximum"] = min(LARGEST_NUMBER, node.get("maximum", LARGEST_NUMBER))
    if "array" in kinds:
        node.setdefault("items", {"$ref": f"#/$defs/{_ANY}"})
    if "object" in kinds and "additionalProperties" not in node:
        _settle_other_keys(node, close)
    return node


_KINDS = ("string", "number", "boolean", "null", "array", "object")


def _exclude_each_other(choices: Sequence[Any], parts: Mapping[Place, JsonObject]) -> bool:
    """Whether all are objects that a key tells apart, which each needs and has other texts for: "kind", mostly.

    The grammar compiler knows that of schemas in their own place, and not of those that are referred to.
    """
    tags: list[dict[str, set[str]]] = []
    for choice in choices:
        while isinstance(choice, Mapping) and "$ref" in choice:
            choice = parts[_target(choice["$ref"]) or ()]
        if not isinstance(choice, Mapping) or choice.get("type") != "object":
            return False
        needed = {key: choice.get("properties", {}).get(key) for key in choice.get("required", ())}
        texts = {key: _texts(part) for key, part in needed.items()}
        tags.append({key: known for key, known in texts.items() if known})
    shared = set.intersection(*map(set, tags))
    return any(sum(len(one[key]) for one in tags) == len(set().union(*(one[key] for one in tags))) for key in shared)


def _texts(schema: Any) -> set[str]:
    """The texts that a schema names; none where it allows anything else."""
    node = schema if isinstance(schema, Mapping) else {}
    values = [node["const"]] if "const" in node else node.get("enum", [])
    return set(values) if all(isinstance(value, str) for value in values) else set()


def _move_inwards(node: JsonObject) -> None:
    """Have inclusive bounds in place of exclusive ones, which are exact of integers alone."""
    if "exclusiveMinimum" in node:
        bound = node.pop("exclusiveMinimum")
        bound += _INWARDS * max(1.0, abs(bound))
        node["minimum"] = max(bound, node.get("minimum", bound))
    if "exclusiveMaximum" in node:
        bound = node.pop("exclusiveMaximum")
        bound -= _INWARDS * max(1.0, abs(bound))
        node["maximum"] = min(bound, node.get("maximum", bound))


def _settle_other_keys(node: JsonObject, close: bool) -> None:
    """What an object may hold besides the keys that it names: nothing where it names any and may be closed."""
    named = node.get("properties")
    if close and named is not None and "patternProperties" not in node:
        unnamed = [key for key in node.get("required", ()) if key not in named]
        node["properties"] = {**named, **{key: {"$ref": f"#/$defs/{_ANY}"} for key in unnamed}}
        node["additionalProperties"] = False
    else:
        node["additionalProperties"] = {"$ref": f"#/$defs/{_ANY}"}
