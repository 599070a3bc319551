"""BFCL, the Berkeley Function Calling Leaderboard: its questions with tools, the single turns of version 4.

A question declares tools, of which none is run, and the calls of the first turn are judged: that they are the right
ones (bfcl_check.py), that there is one at all, or that there is none. Several turns are in bfcl_multi_turn.py; what
needs a memory or the web is refused by name. Tools are told as the benchmark tells models with function calling, but
that names keep dots.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gradus.conversation.checks import AssistantTurn
from gradus.conversation.messages import Conversation, ToolSchema, messages_from_json
from gradus.data.benchmark_rows import BESIDE, Row
from gradus.eval.aggregate import Part
from gradus.eval.bfcl_check import Language, calls_fault

BFCL = "bfcl"
_RIGHT_CALLS = ("simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple")
LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
CATEGORIES = (*_RIGHT_CALLS, "irrelevance", *LIVE, "live_irrelevance", "live_relevance")
REFUSED = {
    "memory": "its questions need a memory over conversations",
    "web_search": "its questions need the live web",
    "format_sensitivity": "it repeats questions in other prompt formats",
}
"""Beginnings of categories that are not asked, and why."""

_HINTS: Mapping[Language, str] = {"python": "Python 3", "java": "Java 8 SDK", "javascript": "JavaScript"}
_TITLES: Mapping[Language, str] = {"java": "Java", "javascript": "JavaScript"}
_LISTS = ("Array", "ArrayList", "array")
_JSON_KINDS = {"dict": "object", "float": "number", "tuple": "array", "any": "string", "": "string"}
_DECIMAL = " This is a float type value."


def question(row: Row) -> Conversation:
    """The conversation up to the message of the user that is to be answered, and the declared tools.

    Errors: KeyError, TypeError or DataError for a row that is not as it is published.
    """
    (turn,) = row["question"]
    language = _language(row["id"])
    return Conversation(
        messages_from_json(turn, "question"), tuple(declared_tool(function, language) for function in row["function"])
    )


def right_calls(row: Row) -> str:
    """The right calls as they are published, JSON; "a call" or "no call" where that is all that counts."""
    if _any_call_decides(row["id"]):
        return "a call" if "irrelevance" not in row["id"] else "no call"
    return json.dumps(row[BESIDE]["ground_truth"], ensure_ascii=False)


def fault(row: Row, turn: AssistantTurn) -> str | None:
    """What is wrong with the calls of an answer. A malformed call is none."""
    if not _any_call_decides(row["id"]):
        return calls_fault(turn.calls, row["function"], row[BESIDE]["ground_truth"], _language(row["id"]))
    if "irrelevance" in row["id"]:
        return f"calls {turn.calls[0].name}, expected no call" if turn.calls else None
    return None if turn.calls else "no call"


def bfcl_parts(counts: Mapping[str, int]) -> dict[str, dict[str, Part]]:
    """The leaderboard's own figures of all categories: "non_live", "live" and "all_irrelevance".

    non_live: the mean of four kinds, simple questions being the mean of three languages; live: over all items;
    all_irrelevance: the mean of both. counts: items by category. Errors: KeyError where a category is missing.
    """
    simple, others = _RIGHT_CALLS[:3], _RIGHT_CALLS[3:]
    kinds = 1 + len(others)
    total = sum(counts[name] for name in LIVE)
    return {
        "non_live": {name: Part(1 / kinds / len(simple)) for name in simple} | {n: Part(1 / kinds) for n in others},
        "live": {name: Part(counts[name] / total) for name in LIVE},
        "all_irrelevance": {name: Part(0.5) for name in ("irrelevance", "live_irrelevance")},
    }


def declared_tool(function: Mapping[str, Any], language: Language | None) -> ToolSchema:
    """A function as a model is told of it. language: of its arguments, remarked on; None is Python without a remark."""
    parameters = dict(function["parameters"])
    title = None if language is None else _TITLES.get(language)
    properties = {
        name: _json_schema(told) if title is None else _as_source(told, title)
        for name, told in parameters["properties"].items()
    }
    description = function["description"]
    if language is not None:
        description += f" Note that the provided function is in {_HINTS[language]} syntax."
    if "response" in function:
        description += f" The response field has the following schema: {json.dumps(function['response'])}"
    return ToolSchema(function["name"], description, parameters | {"type": "object", "properties": properties})


def _any_call_decides(item_id: str) -> bool:
    return "relevance" in item_id


def _language(item_id: str) -> Language:
    if item_id.startswith("simple_javascript"):
        return "javascript"
    return "java" if item_id.startswith("simple_java") else "python"


def _json_schema(declared: Mapping[str, Any]) -> dict[str, Any]:
    """A declared type as JSON schema, with what it holds."""
    kind = declared.get("type", "")
    found = dict(declared) | {"type": _JSON_KINDS.get(kind, kind)}
    if kind == "float":
        found |= {"format": "float", "description": found.get("description", "") + _DECIMAL}
    if isinstance(inner := declared.get("properties"), Mapping):
        found["properties"] = {name: _json_schema(value) for name, value in inner.items()}
    if isinstance(items := declared.get("items"), Mapping):
        found["items"] = _json_schema(items)
    return found


def _as_source(declared: Mapping[str, Any], title: str) -> dict[str, Any]:
    """A parameter that is written as source text. title: of the language."""
    kind = declared["type"]
    if kind == "any":
        told = f" This parameter can be of any type of {title} object in string representation."
    else:
        told = f" This is {title} {kind} type parameter in string representation."
    found = {key: value for key, value in declared.items() if key not in _inside(kind)}
    if kind in _LISTS:
        told += f" The list elements are of type {declared['items']['type']}; they are not in string representation."
    if kind == "dict" and "properties" in declared:
        told += (
            " The dictionary entries have the following schema; they are not in string representation. "
            f"{json.dumps(declared['properties'])}"
        )
    return found | {"type": "string", "description": declared["description"] + told}


def _inside(kind: str) -> Sequence[str]:
    return ("items",) if kind in _LISTS else ("properties",) if kind == "dict" else ()
