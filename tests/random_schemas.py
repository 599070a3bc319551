"""JSON schemas of objects at random, of all that a grammar can be held to."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", 'q"\\', "\u00e9", "\U0001f600 x"])
BOUNDS = st.sampled_from([-3.5, -1, 0, 0.1, 0.3, 1, 2, 10, 1e6])
LEAVES = st.one_of(
    st.builds(
        lambda low, high: {"type": "integer", "minimum": low, "maximum": low + high}, BOUNDS, st.integers(1, 900)
    ),
    st.builds(lambda low: {"type": "number", "exclusiveMinimum": low}, BOUNDS),
    st.builds(lambda high: {"type": "number", "exclusiveMaximum": high}, BOUNDS),
    st.builds(lambda low: {"type": "number", "minimum": low, "maximum": low + 2}, BOUNDS),
    st.sampled_from(
        [
            {},
            True,
            {"type": "integer"},
            {"type": "number"},
            {"type": "number", "multipleOf": 3},
            {"type": "integer", "multipleOf": 7, "minimum": 1},
            {"type": "string"},
            {"type": "string", "minLength": 1, "maxLength": 3},
            {"type": "string", "pattern": "^[a-c]{2,4}$"},
            {"type": "string", "pattern": "\\d+-\\w"},
            {"type": "string", "format": "date-time"},
            {"type": ["string", "null"]},
            {"type": "boolean"},
            {"type": "object"},
            {"type": "object", "properties": {}},
            {"type": "array"},
            {"enum": ["x", 1, None, 2.5, {"k": []}, 'q"<tool_call>\n']},
            {"const": "\u00e9"},
            {"$ref": "#/$defs/node"},
        ]
    ),
)


def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(lambda items, most: {"type": "array", "items": items, "maxItems": most}, children, st.integers(0, 3)),
        st.builds(
            lambda first, rest: {"type": "array", "prefixItems": [first], "items": rest, "minItems": 1},
            children,
            children | st.just(False),
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, children, children),
        OBJECTS(children),
    )


def OBJECTS(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda named, needed, others: {
            "type": "object",
            "properties": named,
            "required": [name for name in needed if name in named],
            **({} if others is None else {"additionalProperties": others}),
        },
        st.dictionaries(NAMES, children, max_size=3),
        st.lists(NAMES, max_size=2, unique=True),
        st.none() | st.booleans() | children,
    )


SCHEMAS = OBJECTS(st.recursive(LEAVES, nested, max_leaves=5))
NODE = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}}
