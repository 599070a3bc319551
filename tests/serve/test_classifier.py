"""The search classifier: known faults of others, labelled turns by precision and recall, and text of any kind.

classifier_tuned.tsv: the rules were made with these turns. classifier_held_out.tsv: written before any rule, scored
once (EXPERIMENTS.md has it). A line is the label, what the query must hold (or the value of the sum), and the turns,
" // " between user and assistant.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.conversation.messages import Message
from gradus.serve.classifier import Decision, classify, search_query
from gradus.tools.calculator import calculate

TODAY = date(2026, 11, 22)


def conversation(text: str) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(roles[place % 2], turn) for place, turn in enumerate(text.split(" // "))]


def decided(text: str, today: date = TODAY) -> Decision:
    return classify(conversation(text), today)


def labelled(part: str) -> list[tuple[str, str, str]]:
    lines = (Path(__file__).parent / f"classifier_{part}.tsv").read_text(encoding="utf-8").splitlines()
    return [(label, expected, text) for label, expected, text in (line.split("\t") for line in lines)]


@pytest.mark.parametrize("part", ["tuned", "held_out"])
def test_precision_and_recall_are_above_95_percent(part):
    turns = labelled(part)
    assert len(turns) >= 200
    pairs = Counter((label, decided(text).action) for label, _, text in turns)
    for action in ("search", "calculator"):
        right = pairs[action, action]
        assert right / sum(n for (_, found), n in pairs.items() if found == action) >= 0.95, action
        assert right / sum(n for (label, _), n in pairs.items() if label == action) >= 0.95, action


def test_queries_name_what_was_meant_and_expressions_have_the_value_asked_for():
    for label, expected, text in labelled("tuned"):
        query = decided(text).query
        if label == "calculator":
            assert calculate(query) == expected, text
        elif label == "search" and expected != "-":
            assert all(word.lower() in query.lower() for word in expected.split()), (text, query)


@pytest.mark.parametrize(
    "text",
    [
        "Hi, what's the weather in Seoul?",
        "Can you search the web for the latest news on ISRO?",
        "who made you? // I am an assistant. // What's the weather in Seoul?",
    ],
)
def test_what_others_missed_is_searched_for(text):
    assert decided(text).action == "search"


@pytest.mark.parametrize(
    "text",
    [
        "What is the current in a 5 ohm resistor at 10 volts?",
        "In 2019 I moved to Delhi. Fix my grammar.",
        "Who is the main character of Hamlet?",
        "1999-05-06",
        "555-1234",
        "20-30 minutes",
        "who made you? // I am an assistant. // how old is it?",
        "",
        "   ",
        "?",
    ],
)
def test_what_others_fired_on_is_left_to_the_model(text):
    assert decided(text).action == "none"


def test_pronouns_mean_the_person_who_was_asked_for_and_never_a_word_that_only_began_a_sentence():
    told = "Who is the CEO of Google? // The CEO of Google is Sundar Pichai. // how old is he now?"
    assert decided(told).query == "how old is Sundar Pichai now November 2026"
    untold = "Who is the CEO of Google? // I am not sure. // how old is he now?"
    assert decided(untold).query == "how old is the CEO of Google now November 2026"
    rain = decided("Tell me about Python // Python is a programming language. // is it raining today?")
    assert rain == Decision("search", "is it raining 22 November 2026", "weather")
    assert decided("how old is she?").action == "none"


def test_a_whole_expression_is_calculated():
    assert decided("12*(3+4)") == Decision("calculator", "12*(3+4)", "sum")
    assert decided("what's 6 * 7? // 42. // divide that by 2").query == "42 / 2"


def test_dates_are_those_of_the_day_that_is_passed_in():
    assert decided("weather in Oslo tomorrow", date(2031, 12, 31)).query == "weather in Oslo 1 January 2032"
    assert decided("who won the Super Bowl last year?", date(2031, 1, 2)).query == "who won the Super Bowl 2030"
    # What is recent today is settled in five years.
    assert decided("who got the Nobel Prize in physics in 2025", date(2031, 1, 2)).action == "none"


def test_a_forced_search_has_a_query_whatever_the_turn_is():
    assert search_query(conversation("Who is the main character of Hamlet?"), TODAY) == (
        "Who is the main character of Hamlet"
    )
    assert (
        search_query(conversation("Tell me about Berlin. // A city. // how big is it?"), TODAY) == "how big is Berlin"
    )
    assert search_query([], TODAY) == ""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_gets_a_decision(turns):
    roles = ("user", "assistant")
    messages = [Message(roles[place % 2], turn) for place, turn in enumerate(turns)]
    found = classify(messages, TODAY)
    assert (found.query == "") == (found.action == "none") or found.action == "search"
    assert len(found.query) <= 300


@pytest.mark.parametrize(
    "text",
    [
        "a " * 50_000,
        "is it " * 3000 + "?",
        "(" * 5000 + "1+1",
        "how old is " * 2000,
        "A" * 20_000,
        "1," * 9000,
        "what's " * 999,
    ],
)
def test_long_and_hostile_text_takes_no_time(text):
    begin = time.thread_time()  # not the clock: the machine may be busy
    decided(f"{text} // ok // {text}")
    assert time.thread_time() - begin < 3


@pytest.mark.parametrize("turn", ["what is x" + " " * 2500, "who is " * 9000 + "who won"])
def test_an_earlier_turn_that_is_gone_back_to_takes_no_time_either(turn):
    begin = time.perf_counter()
    messages = [Message("user", turn), Message("assistant", "ok"), Message("user", "how big is it now, and is he in?")]
    assert classify(messages, TODAY).action in ("none", "search")
    assert search_query(messages, TODAY)
    assert time.perf_counter() - begin < 1.5


def test_it_needs_neither_torch_nor_a_web_framework():
    code = (
        "import sys, gradus.serve.classifier; print([m for m in ('torch', 'starlette', 'httpx2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
