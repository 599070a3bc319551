"""The answer checks, each passing and failing, and that they look at nothing but the answer."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gradus.conversation import timed_patterns
from gradus.conversation.checks import AnswerRegex, AssistantTurn, Check, last_number, run_checks
from gradus.conversation.messages import Message, ToolCall
from gradus.conversation.probes import Probe, load_suite, suite_path
from gradus.core.errors import ConfigError, DataError
from gradus.core.settings import load_settings

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def _checks(*rows: dict[str, Any]) -> tuple[Check, ...]:
    return load_settings(Probe, {"id": "x", "turns": ["?"], "checks": list(rows)}).checks


def _turn(answer: str, *calls: str, **changes: Any) -> AssistantTurn:
    messages: list[Message] = []
    for number, name in enumerate(calls):
        messages.append(Message("assistant", "", "1999 Sunday", (ToolCall(str(number), name, {}),)))
        messages.append(Message("tool", "42 Friday", tool_call_id=str(number)))
    return AssistantTurn((*messages, Message("assistant", answer, None if calls else "1999 Sunday")), **changes)


CASES: list[tuple[dict[str, Any], AssistantTurn, str | None]] = [
    ({"kind": "answer_number", "value": 1881}, _turn("It was lit in 1881 [2]."), None),
    ({"kind": "answer_number", "value": 1}, _turn("It has one queen [1]."), "no number, expected 1"),
    ({"kind": "answer_number", "value": 3}, _turn("It is 1e400"), "last number is 1.000000000e+400, expected 3"),
    ({"kind": "answer_number", "value": 3}, _turn("9" * 5000), "no number, expected 3"),
    ({"kind": "citation"}, _turn("It was lit in 1881 [2]."), None),
    ({"kind": "calls", "tool": "calculator"}, _turn("4", "calculator"), None),
    ({"kind": "calls", "tool": "calculator"}, _turn("4", "search"), "did not call calculator"),
    ({"kind": "calls_not", "tool": "search"}, _turn("4", "calculator"), None),
    ({"kind": "calls_not", "tool": "search"}, _turn("4", "calculator", "search"), "called search"),
    ({"kind": "calls_none"}, _turn("4"), None),
    ({"kind": "calls_none"}, _turn("4", "a", "b"), "called a, b"),
    ({"kind": "answer_contains", "any": ["Paris", "Lyon"]}, _turn("It is PARIS."), None),
    ({"kind": "answer_contains", "any": ["Paris", "Lyon"]}, _turn("Rome"), "has none of 'Paris', 'Lyon'"),
    ({"kind": "answer_contains", "all": ["a", "b"]}, _turn("ab"), None),
    ({"kind": "answer_contains", "all": ["a", "b", "c"]}, _turn("a"), "lacks 'b', 'c'"),
    ({"kind": "answer_contains", "any": ["7"]}, _turn("17"), "has none of '7'"),
    ({"kind": "answer_contains", "any": ["7"]}, _turn("7.5"), "has none of '7'"),
    ({"kind": "answer_contains", "any": ["7"]}, _turn("It is 7."), None),
    ({"kind": "answer_contains", "any": ["March 7"]}, _turn("march 7!"), None),
    ({"kind": "answer_contains", "any": ["March 7"]}, _turn("March 17"), "has none of 'March 7'"),
    ({"kind": "answer_contains", "any": ["42"]}, _turn("none", "calculator"), "has none of '42'"),
    ({"kind": "answer_excludes", "any": ["Sunday"]}, _turn("Friday"), None),
    ({"kind": "answer_excludes", "any": ["sorry", "cannot"]}, _turn("I'm Sorry."), "has 'sorry'"),
    ({"kind": "answer_excludes", "all": ["a", "b"]}, _turn("a"), None),
    ({"kind": "answer_excludes", "all": ["a", "b"]}, _turn("ab"), "has 'a', 'b'"),
    ({"kind": "exactly_one_of", "value": "Saturday", "of": DAYS}, _turn("It's SATURDAY. Saturday!"), None),
    (
        {"kind": "exactly_one_of", "value": "Saturday", "of": DAYS},
        _turn("Saturday or Sunday"),
        "names 'Saturday', 'Sunday', expected only Saturday",
    ),
    ({"kind": "exactly_one_of", "value": "no", "of": ["yes", "no"]}, _turn("I know: no."), None),
    ({"kind": "exactly_one_of", "value": "no", "of": ["yes", "no"]}, _turn("I know."), "names none, expected only no"),
    ({"kind": "answer_regex", "pattern": r"^c-a-t\b(?!-)"}, _turn("c-a-t."), None),
    ({"kind": "answer_regex", "pattern": r"^c-a-t\b(?!-)"}, _turn("c-a-t-s"), r"no match for ^c-a-t\b(?!-)"),
    ({"kind": "answer_number", "value": 7.65, "tolerance": 0.005}, _turn("17% of $45 is $7.65."), None),
    ({"kind": "answer_number", "value": 7.65, "tolerance": 0.005}, _turn("7.655"), None),
    (
        {"kind": "answer_number", "value": 7.65, "tolerance": 0.005},
        _turn("7.656"),
        "last number is 7.656, expected 7.65",
    ),
    ({"kind": "answer_number", "value": 1234567}, _turn("So 1,234,567 people."), None),
    ({"kind": "answer_number", "value": 4}, _turn("four", "calculator"), "no number, expected 4"),
    ({"kind": "think_closed"}, _turn("4"), None),
    ({"kind": "think_closed"}, _turn("", problems=("thinking never closed",)), "thinking never closed"),
    ({"kind": "think_closed"}, _turn("hm</think>4"), "</think> in the answer"),
    ({"kind": "answer_chars", "min": 2, "max": 3}, _turn(" abc "), None),
    ({"kind": "answer_chars", "min": 2}, _turn("a"), "1 characters, expected at least 2"),
    ({"kind": "answer_chars", "max": 2}, _turn("abc"), "3 characters, expected at most 2"),
    ({"kind": "citation"}, _turn("It opened in 1889 [2]."), None),
    ({"kind": "citation"}, _turn("See https://example.org/x."), None),
    ({"kind": "citation"}, _turn("It opened in 1889."), "cites no source"),
    ({"kind": "stops"}, _turn("4"), None),
    ({"kind": "stops"}, _turn("4", finish_reason="length"), "ended by length"),
]


@pytest.mark.parametrize(("check", "turn", "reason"), CASES)
def test_a_check_passes_or_gives_its_reason(check: dict[str, Any], turn: AssistantTurn, reason: str | None):
    expected = [] if reason is None else [f"{check['kind']}: {reason}"]
    assert run_checks(_checks(check), turn) == expected


def test_all_failing_checks_are_named():
    checks = _checks({"kind": "stops"}, {"kind": "calls_none"}, {"kind": "answer_contains", "any": ["x"]})
    assert run_checks(checks, _turn("y", finish_reason="length")) == [
        "stops: ended by length",
        "answer_contains: has none of 'x'",
    ]


def test_a_turn_tells_its_answer_thinking_and_calls():
    turn = _turn("4", "f", "g")
    assert turn.answer == "4"
    assert turn.thinking == "1999 Sunday\n1999 Sunday"
    assert [call.name for call in turn.calls] == ["f", "g"]
    assert AssistantTurn(()).answer == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 7.65.", "7.65"),
        ("$1,234.50", "1234.5"),
        ("-5 degrees", "-5"),
        ("10-5", "5"),
        ("10 - 5", "5"),
        ("x = -$3", "-3"),
        ("−7", "-7"),
        ("$.75", "0.75"),
        ("12%", "12"),
        ("5kg", "5"),
        ("1e21", "1e21"),
        ("7.65, 8", "8"),
        ("1, 2, 3", "3"),
        ("the 3rd of 4 is 2nd", "4"),
        ("A4", None),
        ("no figures", None),
        ("", None),
    ],
)
def test_the_last_number_is_read_as_people_write_it(text: str, number: str | None):
    assert last_number(text) == (None if number is None else Fraction(number))


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ({"kind": "answer_contain", "any": ["x"]}, 'did you mean "answer_contains"?'),
        ({"kind": "answer_contains"}, "give either any or all"),
        ({"kind": "answer_contains", "any": ["x"], "all": ["y"]}, "give either any or all"),
        ({"kind": "answer_contains", "any": []}, "the list must hold words, none of them empty"),
        ({"kind": "answer_contains", "any": ["a", ""]}, "the list must hold words, none of them empty"),
        ({"kind": "exactly_one_of", "value": "x", "of": ["y"]}, "the value must be a member of the list"),
        ({"kind": "answer_regex", "pattern": "("}, "not a regular expression"),
        ({"kind": "answer_number", "value": "5"}, "expected a"),
        ({"kind": "answer_number", "value": 5, "tolerance": -1}, "at least 0"),
        ({"kind": "answer_chars"}, "give min, max or both"),
        ({"kind": "calls"}, "missing key"),
        ({"kind": "stops", "tool": "x"}, "unknown key"),
        ({"kind": "judge", "rubric": "kind", "threshold": 0.5}, "at least 1"),
    ],
)
def test_a_wrong_check_is_refused_when_the_suite_is_read(check: dict[str, Any], problem: str):
    with pytest.raises(ConfigError) as error:
        _checks(check)
    assert problem in str(error.value)


# A repeat that shares out what the first one takes, in as many ways as there are sums: 60 letters took years.
HANGING, LOOPING = "(a|aa)+$", "a" * 60 + "b"


def test_a_pattern_that_would_take_for_ever_is_an_error_that_shows_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timed_patterns, "SEARCH_SECONDS", 0.05)
    (check,) = _checks({"kind": "answer_regex", "pattern": HANGING})
    with pytest.raises(
        DataError, match=r"the pattern \(a\|aa\)\+\$ takes longer than 0.05 s on an answer of 61 characters"
    ):
        check.failure(_turn(LOOPING))
    assert check.failure(_turn("a" * 60)) is None


def test_the_patterns_of_the_suites_find_what_python_finds():
    """Each in every question and in what its own probe asks for, with a word before and behind it."""
    folder = Path(__file__).parents[2] / "roadmaps/probes"
    suites = [load_suite(path) for path in (suite_path("starter", folder), *sorted(folder.glob("*.jsonl")))]
    found = 0
    for suite in suites:
        patterns = [(p, c.pattern) for p in suite.probes for c in p.checks if isinstance(c, AnswerRegex)]
        for probe, pattern in patterns:
            plain = re.sub(r"\(\?[^)]*\)|\\b", "", pattern)
            texts = [f"{a}{plain}{b}" for a in ("It is ", "x", "é") for b in (".", "s", "-t", "4")]
            texts += [str(m.get("content")) for m in probe.messages or ()]
            for text in texts:
                ours, python = timed_patterns.found_in(text, pattern), re.search(pattern, text)
                assert (ours and ours.span()) == (python and python.span()), (pattern, text)
                found += python is not None
    assert found > 1000
