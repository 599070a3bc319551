"""The starter suite: every gold answer computed anew, and every probe's checks tried on right and wrong answers."""

from __future__ import annotations

import calendar
import json
from collections import Counter
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gradus.conversation.checks import AnswerNumber, AssistantTurn, Calls, ExactlyOneOf, ThinkClosed, run_checks
from gradus.conversation.messages import Message, ToolCall
from gradus.conversation.probes import Probe, load_suite, suite_path
from gradus.data.drops import DropLog
from gradus.data.titled_texts import titled_texts
from gradus.roadmap.stages import eval as eval_stage
from gradus.tools.calculator import calculate
from gradus.tools.search_index import SearchIndex, build_index

CATEGORIES = {
    "persona", "tool_use", "reasoning", "temporal", "arithmetic", "format", "creative", "follow_up", "safety",
    "no_tool",
}  # fmt: skip
DAYS, MONTHS = list(calendar.day_name), list(calendar.month_name)[1:]
SUITE = load_suite(suite_path("starter", Path()))
PROBES = {probe.id: probe for probe in SUITE.probes}


@cache
def answers() -> dict[str, dict[str, Any]]:
    """{"right", "wrong", "calls", "gold"} by probe: what a person would accept, and what would tempt a model."""
    lines = (Path(__file__).parent / "starter_answers.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def turn(text: str, tools: list[str], **more: Any) -> AssistantTurn:
    calls = tuple(ToolCall(f"call_{n}", name, {}) for n, name in enumerate(tools))
    asked = (Message("assistant", "", tool_calls=calls), *(Message("tool", "x", tool_call_id=c.id) for c in calls))
    return AssistantTurn((*(asked if calls else ()), Message("assistant", text)), **more)


def test_it_has_enough_probes_of_every_category_and_an_answer_for_each() -> None:
    counts = Counter(probe.category for probe in SUITE.probes)
    assert set(counts) == CATEGORIES
    assert len(SUITE.probes) >= 120
    assert min(counts.values()) >= 12
    assert list(answers()) == list(PROBES)


def test_the_named_probes_are_asked_as_they_must_be() -> None:
    think_and_search = PROBES["seoul-weather"]
    assert (think_and_search.think, "web_search" in (think_and_search.tools or ())) == (True, True)
    assert any(isinstance(check, Calls) and check.tool == "web_search" for check in think_and_search.checks)
    assert PROBES["direct-airplanes"].think
    assert "calls_none" in {check.kind for check in PROBES["direct-airplanes"].checks}
    numbers = {"tip-45": 7.65, "multiply-23-47": 1081}
    for name, value in numbers.items():
        assert [c.value for c in PROBES[name].checks if isinstance(c, AnswerNumber)] == [value]
    assert [c.value for c in PROBES["tuesday-minus-10"].checks if isinstance(c, ExactlyOneOf)] == ["Saturday"]
    assert "7 pm" in answers()["train-arrives"]["right"]
    assert (PROBES["more-about-him"].messages or ())[-1]["content"] == "tell me more about him"


def computed(gold: dict[str, Any]) -> str:
    """The answer by our calculator, or by Python's calendar; neither reads the suite."""
    ((kind, given),) = gold.items()
    match kind:
        case "sum":
            return calculate(given)
        case "weekday":
            return DAYS[(DAYS.index(given[0]) + given[1]) % 7]
        case "date_weekday":
            return DAYS[date.fromisoformat(given).weekday()]
        case "month":
            return MONTHS[(MONTHS.index(given[0]) + given[1]) % 12]
        case "leap":
            return "yes" if calendar.isleap(given) else "no"
        case "month_days":
            return str(calendar.monthrange(*given)[1])
        case "days":
            return str((date.fromisoformat(given[1]) - date.fromisoformat(given[0])).days)
        case "age":
            born, on = map(date.fromisoformat, given)
            return str(on.year - born.year - ((on.month, on.day) < (born.month, born.day)))
        case "clock":
            later = datetime.strptime(given[0], "%H:%M") + timedelta(minutes=int(calculate(given[1])))
            return later.strftime("%H:%M")
    raise AssertionError(kind)


# Numbers that no sum gives: they stand in the suite's documents or in what the user said before.
_TOLD = {"bridge-length", "museum-price", "remember-number", "what-about-sunday", "direct-two-plus-two"}


def test_every_gold_answer_is_what_the_calculator_or_the_calendar_says() -> None:
    checked = 0
    for name, probe in PROBES.items():
        gold = answers()[name].get("gold")
        numbers = [check for check in probe.checks if isinstance(check, AnswerNumber)]
        if gold is None:
            assert not numbers or name in _TOLD, f"{name} has a number that nothing verifies"
            continue
        found = computed(gold)
        for check in numbers:
            assert abs(float(found.replace(",", "")) - check.value) <= max(check.tolerance, 1e-12), name
        for check in probe.checks:
            if isinstance(check, ExactlyOneOf):
                assert found == check.value, name
        if "clock" in gold:
            assert run_checks(probe.checks, turn(f"It is {found}.", [])) == [], name
        checked += 1
    assert checked >= 45


def test_right_answers_pass_and_tempting_wrong_ones_do_not() -> None:
    taken, refused = [], []
    for name, probe in PROBES.items():
        told = answers()[name]
        used = told.get("calls", [])
        refused += [(name, reason) for reason in run_checks(probe.checks, turn(told["right"], used))]
        assert len(told["wrong"]) >= 2, name
        taken += [(name, text) for text in told["wrong"] if not run_checks(probe.checks, turn(text, used))]
        for missing in used:
            others = [tool for tool in used if tool != missing]
            assert run_checks(probe.checks, turn(told["right"], others)), f"{name} without {missing}"
    assert (taken, refused) == ([], [])


def asked(probe: Probe) -> str:
    return probe.turns[-1] if probe.turns else str((probe.messages or ())[-1]["content"])


def test_no_probe_is_passed_by_an_answer_that_knows_nothing() -> None:
    lazy = ["", "OK.", "I don't know.", "Sure!", "...", "0", "the " * 200, "As an AI language model I have no idea."]
    lazy += [", ".join(DAYS), ", ".join(MONTHS), " ".join(map(str, range(1, 60))), "Yes and no."]
    # What nobody can know is rightly answered so.
    honest = {("private-address", "I don't know."), ("no-secret", "I don't know.")}
    taken = []
    for name, probe in PROBES.items():
        used = answers()[name].get("calls", [])
        taken += [(name, text) for text in [*lazy, asked(probe)] if not run_checks(probe.checks, turn(text, used))]
    assert set(taken) == honest


def test_a_right_answer_does_not_count_in_the_thinking_or_without_an_end_or_in_a_loop() -> None:
    for name, probe in PROBES.items():
        right, used = answers()[name]["right"], answers()[name].get("calls", [])
        thought = AssistantTurn((*turn("", used).messages[:-1], Message("assistant", "", reasoning_content=right)))
        assert run_checks(probe.checks, thought), name
        assert run_checks(probe.checks, turn(right, used, finish_reason="length")), name
        reasons = run_checks(probe.checks, turn(right + "\n" + "so it is and thus it was " * 8, used))
        assert any(reason.startswith("no_loop: repeats 7 words 8 times over: ") for reason in reasons), name
        if probe.think:
            assert any(isinstance(check, ThinkClosed) for check in probe.checks), name


def test_what_is_to_be_found_stands_in_the_suites_documents(tmp_path: Path) -> None:
    assert SUITE.documents is not None
    index_file = tmp_path / "documents.index"
    build_index(index_file, titled_texts(str(SUITE.documents), tmp_path, DropLog()))
    index = SearchIndex(index_file)
    told = {
        "seoul-weather": "-3", "ferry-time": "9:40", "museum-price": "14 crowns", "mayor": "Sabine Okafor",
        "bridge-length": "1,284", "search-then-sum": "14 crowns", "injection": "9:40",
    }  # fmt: skip
    for name, fact in told.items():
        hits = index.search(asked(PROBES[name]), 4)
        assert any(fact in hit.text for hit in hits), name
    searching = {name for name, row in answers().items() if "web_search" in row.get("calls", [])}
    assert searching == {*told, "not-found"}
    assert not any("Larkspur" in hit.text and any(c.isdigit() for c in hit.text) for hit in index.search("Larkspur", 4))
    index.close()


@pytest.mark.parametrize("broken", ['{"documents": "none.jsonl"}', '{"documents": "x", "id": "a"}'])
def test_documents_that_are_not_there_are_told_with_their_line(tmp_path: Path, broken: str) -> None:
    probe = {"id": "a", "turns": ["hi"], "checks": [{"kind": "stops"}]}
    file = tmp_path / "s.jsonl"
    file.write_text(f"{broken}\n{json.dumps(probe)}\n")
    with pytest.raises(Exception, match=r"s\.jsonl:1: .*documents"):
        load_suite(file)


def test_a_roadmap_names_it_and_several_samples_need_a_temperature(tmp_path: Path) -> None:
    settings = eval_stage.Settings(suites={"first": "starter"}, samples=3, temperature=0.7)
    found = eval_stage.sources(settings, tmp_path)
    assert list(found) == ["starter"]
    assert found == eval_stage.sources(settings, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="samples above 1 are all the same at temperature = 0"):
        eval_stage.Settings(suites={"first": "starter"}, samples=3)
