"""BFCL's conversations of several turns: what the model is told turn by turn, on which services it acts.

The user asks one thing after another, and for each the model calls functions and reads what they give until it answers
without a call. In "miss_func" a function is told only after the turn that needs it, in "miss_param" the user leaves out
what a call needs, in "long_context" the services give much more than is needed. Wording and order are those of the
leaderboard (version 4); the services and the verdict are in bfcl_services.py.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradus.conversation.messages import Message, ToolSchema, messages_from_json
from gradus.core.errors import DataError
from gradus.data.benchmark_rows import BESIDE, Row
from gradus.data.benchmarks import BenchmarkRow, json_rows, row_files
from gradus.eval.aggregate import Part
from gradus.eval.bfcl import BFCL, declared_tool
from gradus.eval.bfcl_services import SERVICES, Call, Scenario

BFCL_MULTI_TURN = "bfcl_multi_turn"
CATEGORIES = ("base", "miss_func", "miss_param", "long_context")
MOST_ROUNDS = 20
"""Answers with calls in one turn; with one more the turn is cut short, and the conversation with it."""

_FUNCTIONS = "function"
_MORE_FUNCTIONS = "I have updated some more functions you can choose from. What about now?"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation.

    turns, tools: by turn what the user says and what is declared from then on; rights: the right calls.
    """

    scenario: Scenario
    turns: tuple[tuple[Message, ...], ...]
    tools: tuple[tuple[ToolSchema, ...], ...]
    rights: tuple[tuple[Call, ...], ...]


def function_files(folder: Path | None) -> list[Path]:
    """Where the functions of the services are declared. Errors: DataError for a missing one."""
    return [path for name in SERVICES for path in _files_of(name, folder)]


def with_functions(rows: Sequence[BenchmarkRow], folder: Path | None) -> list[BenchmarkRow]:
    """Rows with the declared functions of the services that they name. Errors: DataError."""
    declared = {name: [row for path in _files_of(name, folder) for _, row in json_rows(path)] for name in SERVICES}
    found = []
    for row in rows:
        services = row.row.get("involved_classes", ())
        if unknown := [name for name in services if name not in declared]:
            raise DataError(f"{row.place}: unknown service {unknown[0]!r} (known: {', '.join(SERVICES)})")
        functions = [function for name in services for function in declared[name]]
        found.append(replace(row, row=row.row | {_FUNCTIONS: functions}))
    return found


def dialogue_of(row: Row) -> Dialogue:
    """The conversation of a row with its functions.

    Errors: KeyError, TypeError, ValueError or DataError for a row that is not as it is published.
    """
    held_back: Mapping[str, Sequence[str]] = row.get("missed_function", {})
    functions, held = _parted(row[_FUNCTIONS], [name for names in held_back.values() for name in names])
    declared = [declared_tool(function, "python") for function in functions]
    turns, tools = [], []
    for number, turn in enumerate(row["question"]):
        told = messages_from_json(turn, f"question[{number}]") if str(number) not in held_back else None
        if told is None:
            # As published: what is told late has no remark on the language.
            declared += [declared_tool(held[name], None) for name in held_back[str(number)]]
            told = (Message("user", _MORE_FUNCTIONS),)
        turns.append(told)
        tools.append(tuple(declared))
    rights = tuple(tuple(map(right_call, turn)) for turn in row[BESIDE]["ground_truth"])
    if len(rights) != len(turns):
        raise ValueError(f"right calls of {len(rights)} turns to {len(turns)} turns")
    scenario = Scenario(tuple(row["involved_classes"]), row["initial_config"], "long_context" in row["id"])
    return Dialogue(scenario, tuple(turns), tuple(tools), rights)


def right_call(source: str) -> Call:
    """A call of literals, as right ones are published in Python. Errors: ValueError for anything else."""
    try:
        call = ast.parse(source.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{source!r} is not Python") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{source!r} is no call of a function")
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    return {"name": call.func.id, "values": [ast.literal_eval(value) for value in call.args], "arguments": named}


def multi_turn_parts() -> dict[str, dict[str, Part]]:
    """The leaderboard's figure of the four categories: their mean, "overall"."""
    return {"overall": {name: Part(1 / len(CATEGORIES)) for name in CATEGORIES}}


def _files_of(service: str, folder: Path | None) -> list[Path]:
    return row_files(BFCL, folder, f"bfcl/multi_turn_func_doc/{SERVICES[service]}.json")


def _parted(functions: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Functions that are told at once, and those by name that are not. Errors: KeyError for one that is not there."""
    by_name = {function["name"]: function for function in reversed(functions)}
    held = {name: by_name[name] for name in names}
    return [function for function in functions if held.get(function["name"]) is not function], held
