"""Rows of a teacher: every task gives sound ones, each fault is caught by its name, and nothing is asked for twice."""

import asyncio
import contextlib
import json
import random
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

from gradus.conversation.messages import Conversation, Message
from gradus.conversation.validate import violations
from gradus.core.errors import BudgetError
from gradus.posttrain.synthesis import judge, problem_tasks
from gradus.posttrain.synthesis.config import TASK_NEEDS
from gradus.posttrain.synthesis.disjoint import probe_check
from gradus.posttrain.synthesis.judge import judge_conversation
from gradus.posttrain.synthesis.material import Material, banks
from gradus.posttrain.synthesis.synthesize import SynthesisSettings, plain_question, rejected_lines, synthesize
from gradus.posttrain.synthesis.tasks import TASKS, draw_brief, forecast
from gradus.posttrain.synthesis.teacher import Brief, Rejected, read_fields
from gradus.tools.answers import Answers
from gradus.tools.calculator import calculate
from gradus.tools.endpoint import Endpoint
from gradus.tools.endpoint_settings import EndpointSettings
from gradus.tools.passages import TitledText
from gradus.tools.search_index import SearchIndex, build_index
from gradus.tools.web_search import search_in, search_toolbox

sys.path.insert(0, str(Path(__file__).parents[1]))
from teacher_mind import faulty_mind, teacher_mind
from teacher_server import MODEL, Fault, running

PERSONA = "The assistant is called Miro. The Harbour Library made it in 2024. It is curious and brief."
SUBJECTS = ("lanterns", "otters", "bridges", "violins", "tides", "bakeries", "comets", "saddles")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Eight documents of prose, searchable."""
    words = (
        "slowly",
        "gently",
        "often",
        "rarely",
        "always",
        "quietly",
        "loudly",
        "brightly",
        "near",
        "beyond",
        "under",
    )
    texts = []
    for number, subject in enumerate(SUBJECTS):
        draw = random.Random(number)
        text = ". ".join(f"{subject.title()} {' '.join(draw.sample(words, 6))} the {subject}" for _ in range(8)) + "."
        texts.append(TitledText(subject.title(), f"{subject}.md", text))
    path = tmp_path_factory.mktemp("index") / "documents.index"
    facts = build_index(path, texts)
    index = SearchIndex(path)
    return Material(search_toolbox(search_in(index)), index, facts.passages, PERSONA)


def write(server, folder, material, counts, *, probes=None, settings=None, **changes):
    """(endpoint, result) of synthesis against a server."""
    asked = EndpointSettings(base_url=server.base_url, model=MODEL, **({"timeout_seconds": 5} | (settings or {})))

    async def go():
        with Answers(folder / "answers.sqlite") as answers:
            async with Endpoint(asked, answers, "test") as endpoint:
                wanted = SynthesisSettings(counts, seed=changes.pop("seed", 3), **changes)
                return endpoint, await synthesize(endpoint, material, wanted, probes)

    return asyncio.run(go())


def test_every_task_gives_sound_rows(material, tmp_path):
    with running(teacher_mind) as server:
        _, result = write(server, tmp_path, material, dict.fromkeys(TASKS, 6))
    assert result.rows_by_task == dict.fromkeys(TASKS, 6)
    assert [violations(row) for row in result.rows] == [[]] * len(result.rows)
    assert len({plain_question(row) for row in result.rows}) == len(result.rows)


def test_the_three_patterns_of_thinking_with_tools(material, tmp_path):
    counts = {"think_search_answer": 5, "think_calculator_answer": 5, "think_answer": 4}
    with running(teacher_mind) as server:
        _, result = write(server, tmp_path, material, counts)
    for row in result.rows:
        assert row.messages[1].reasoning_content
        names = [call.name for message in row.messages for call in message.tool_calls]
        if row.source == "teacher/think_answer":
            assert names == []
            continue
        # One call, right after the thinking, with the result that our own tool gives; the answer last.
        assert [m.role for m in row.messages] == ["user", "assistant", "tool", "assistant"]
        (call,) = row.messages[1].tool_calls
        assert row.messages[2] == material.toolbox.run(call)
        assert call.name in [tool.name for tool in row.tools]
        if call.name == "calculator":
            assert calculate(call.arguments["expression"]) in row.messages[3].content
        else:
            assert "[1]" in row.messages[3].content
    # Of the rows without a call, half declare the tools.
    assert [bool(row.tools) for row in result.rows if row.source == "teacher/think_answer"].count(True) == 2


def test_a_second_walk_costs_nothing_and_gives_the_same(material, tmp_path):
    counts = {"temporal": 8, "reasoning": 4}
    with running(faulty_mind(0.2)) as server:
        _, first = write(server, tmp_path, material, counts)
        asked = len(server.requests)
        endpoint, second = write(server, tmp_path, material, counts)
        assert len(server.requests) == asked
        # More rows of a task leave the ones before them as they are.
        _, more = write(server, tmp_path, material, {"temporal": 12})
    assert second == first
    assert endpoint.traffic.answered == 0
    assert more.rows[:5] == first.rows[:5]


def test_rejected_tries_are_counted_kept_and_made_up_for(material, tmp_path):
    with running(faulty_mind(0.3)) as server:
        _, result = write(server, tmp_path, material, {"tone": 40})
    assert len(result.rows) == 40
    assert set(result.rejected_by_reason) >= {"refused", "wrong_format"}
    refused = next(one for one in result.rejected if one.reason == "refused")
    assert refused.answer == "I'm sorry, I can't help with that."
    assert result.attempted["tone"] >= 40


def test_a_hopeless_teacher_ends_with_what_there_is(material, tmp_path):
    with running(lambda body: "I cannot do that.") as server:
        _, result = write(server, tmp_path, material, {"tone": 10})
    assert result.rows == []
    assert result.attempted == {"tone": 15}
    assert result.rejected_by_reason == {"refused": 30}


def test_one_wording_for_every_prompt_is_one_row(material, tmp_path):
    same = json.dumps({"question": "Why, though?", "answer": "Because it was late."})
    with running(lambda body: same) as server:
        _, result = write(server, tmp_path, material, {"tone": 12})
    assert len(result.rows) == 1
    assert result.rejected_by_reason == {"repeated_question": 17}


def test_a_stormy_service_gives_the_rows_of_a_calm_one(material, tmp_path, monkeypatch):
    monkeypatch.setattr("gradus.tools.endpoint._FIRST_DELAY_SECONDS", 0.01)
    counts = {"temporal": 15, "think_search_answer": 5, "reasoning": 10}
    with running(teacher_mind) as server:
        _, calm = write(server, tmp_path / "calm", material, counts)
    storm = [
        Fault(status=429, headers={"Retry-After": "0.05"}), Fault(status=500), Fault(status=503), Fault(cut=50),
        Fault(drop=True), Fault(body='{"choices": [{"mess'), Fault(silent_seconds=1.5), Fault(silent_seconds=0.1),
        Fault(), Fault(), Fault(), Fault(),
    ]  # fmt: skip
    with running(teacher_mind) as server:
        server.faults = random.Random(5).choices(storm, k=60)
        settings = {"timeout_seconds": 1.0, "concurrency": 8, "max_attempts": 20}
        endpoint, stormy = write(server, tmp_path / "storm", material, counts, settings=settings)
    assert stormy == calm
    assert {"rate_limit", "status_500", "connection_lost", "truncated_json", "timeout"} <= set(endpoint.traffic.faults)


def test_a_budget_stops_and_a_higher_one_goes_on(material, tmp_path):
    prices = {"input_price": 100.0, "output_price": 100.0, "max_tokens": 200, "concurrency": 4}
    with running(teacher_mind) as server:
        with pytest.raises(BudgetError, match="raise budget"):
            write(server, tmp_path, material, {"tone": 30}, settings={**prices, "budget": 0.8})
        asked = len(server.requests)
        assert 2 < asked < 30
        endpoint, result = write(server, tmp_path, material, {"tone": 30}, settings={**prices, "budget": 50.0})
        assert len(result.rows) == 30
        assert len(server.requests) == 30
        assert endpoint.traffic.reused == asked


def test_questions_that_hold_a_probe_are_left_out(material, tmp_path):
    probe = {"id": "p", "messages": [{"role": "user", "content": "How heavy is the moon of Saturn called Titan?"}],
             "checks": [{"kind": "stops"}]}  # fmt: skip
    suite = tmp_path / "suite.jsonl"
    suite.write_text(json.dumps(probe))

    def mind(body):
        question = (
            "Hello! how heavy is the moon of saturn, called Titan? Thanks." if len(server.requests) == 1 else None
        )
        found = json.loads(teacher_mind(body))
        return json.dumps(found | ({"question": question} if question else {}))

    with running(mind) as server:
        _, result = write(
            server,
            tmp_path,
            material,
            {"tone": 3},
            probes=probe_check([str(suite)], tmp_path),
            settings={"concurrency": 1},
        )
    assert result.rejected_by_reason == {"in_probe_suite": 1}
    assert result.rejected[0].detail.endswith(": p")
    assert not any("Titan" in message.content for row in result.rows for message in row.messages)
    assert len(result.rows) == 3


# What is asked


def test_briefs_differ_and_depend_on_their_own_number_alone(material):
    for name in TASKS:
        briefs = [draw_brief(name, 1, index, material) for index in range(300)]
        assert len({brief.prompt for brief in briefs}) >= 285, name
        assert draw_brief(name, 1, 7, material) == briefs[7]
        assert draw_brief(name, 2, 7, material) != briefs[7]


def test_the_banks_have_thousands_of_combinations():
    bank = banks()
    for rule in ("topic", "puzzle", "money", "subject", "situation"):
        combinations = bank.num_wordings(rule) * bank.num_wordings("person") * bank.num_wordings("manner")
        assert combinations > 100_000, rule


def test_every_task_is_in_both_tables():
    assert list(TASKS) == list(TASK_NEEDS)


@pytest.mark.parametrize("seed", range(40))
def test_the_truth_of_arithmetic_is_that_of_its_steps(seed):
    brief = problem_tasks.draw_arithmetic(random.Random(seed), Material())
    given = [int(text) for text in brief.facts["given"].split("\n")]
    steps = brief.prompt.split("exactly these steps: ")[1].split(". The story")[0]
    if "long multiplication" in steps:
        assert given[0] * given[1] == int(brief.facts["result"])
        return
    value = 0
    for step, number in zip(steps.split(", then "), given, strict=True):
        word = step.split()[0]
        value = {"start": number, "add": value + number, "subtract": value - number,
                 "multiply": value * number, "divide": Fraction(value, number)}[word]  # fmt: skip
        assert value == int(value) > 0
    assert value == int(brief.facts["result"])


def test_the_truth_of_dates_is_known():
    rng = random.Random(1)
    given, _, truth = problem_tasks._weekday_after(rng)
    days = int(given[1].split()[0])
    names = problem_tasks._DAYS
    assert names[(names.index(given[0]) + days) % 7] == truth
    for _ in range(50):
        (start, spent), _, end = problem_tasks._clock_after(rng)
        hours, minutes = [int(p) for p in spent.split() if p.isdigit()] if "h" in spent else [0, int(spent.split()[0])]
        at = [int(p) for p in start.split(":")]
        total = (at[0] + hours) * 60 + at[1] + minutes
        assert end == f"{total // 60 % 24}:{total % 60:02d}"


def test_a_forecast_is_near_what_it_takes(material, tmp_path):
    counts = {"think_calculator_answer": 20, "tone": 20}
    priced = {"input_price": 1.0, "output_price": 0.0}
    with running(teacher_mind) as server:
        endpoint, _ = write(server, tmp_path, material, counts, settings=priced)
        expected = forecast(counts, 3, endpoint.settings, PERSONA)
    assert expected.rows == 40
    assert endpoint.traffic.answered == 60
    assert expected.requests == pytest.approx(60 * 1.15)
    # The stand-in counts four characters of JSON as a token.
    assert expected.input_tokens == pytest.approx(endpoint.traffic.usage.input_tokens, rel=0.35)


# How it is judged


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"a": "x", "b": "y"}', {"a": "x", "b": "y"}),
        ('```json\n{"a": "x", "b": "y"}\n```', {"a": "x", "b": "y"}),
        ('Here you are: {"a": "x", "b": "y"} I hope it helps {!}', {"a": "x", "b": "y"}),
        ('<think>{"a": "no"}</think>{"a": "x", "b": "y"}', {"a": "x", "b": "y"}),
        ('{"a": "two\nlines", "b": 12, "c": "more"}', {"a": "two\nlines", "b": "12"}),
        ('{not json} {"a": " x ", "b": "{}"}', {"a": "x", "b": "{}"}),
    ],
)
def test_an_object_is_found_wherever_it_stands(text, fields):
    assert read_fields(text, dict.fromkeys(("a", "b"), "")) == fields


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": "x"}', "wrong_format"),
        ('{"a": "x", "b": ""}', "wrong_format"),
        ('{"a": "x", "b": ["y"]}', "wrong_format"),
        ('{"a": "x", "b": "\\ud800"}', "wrong_format"),
        ("I'm sorry, but I can't.", "refused"),
        ("", "wrong_format"),
        ("[" * 5000, "wrong_format"),
        ('{"a":' * 5000, "wrong_format"),
    ],
)
def test_what_is_no_object_with_these_texts_is_rejected(text, reason):
    with pytest.raises(Rejected) as error:
        read_fields(text, dict.fromkeys(("a", "b"), ""))
    assert error.value.reason == reason


def reason_of(function, *arguments):
    try:
        function(*arguments)
    except Rejected as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("As an AI language model I think so.", "artifact_hedge"),
        ("Certainly! Here it is.", "stock_opener"),
        ("This is <b>bold</b>.", "artifact_html_tag"),
        ("Well done \U0001f600\U0001f600\U0001f600", "artifact_emoji_run"),
        ("Use `<b>` in HTML.", None),
        ("Nothing is certainly known.", None),
        ("I can't provide that.", "artifact_refusal"),
        ("It ends here.<|im_end|>", "marker_in_text"),
    ],
)
def test_artifacts_are_found_outside_code(answer, reason):
    row = Conversation((Message("user", "hm?"), Message("assistant", answer)))
    assert reason_of(judge_conversation, row) == reason


def test_a_kind_no_is_allowed_where_it_is_asked_for():
    row = Conversation((Message("user", "hm?"), Message("assistant", "I won't help you with that; ask her instead.")))
    assert reason_of(judge_conversation, row) == "artifact_refusal"
    assert reason_of(judge_conversation, row, TASKS["tone"].allowed) is None


@pytest.mark.parametrize(
    ("answer", "value", "reason"),
    [
        ("It is 7.65 dollars.", "7.65", None),
        ("About 7.7.", "7.65", None),
        ("About 8 of them.", "7.65", None),
        ("It is 7.6.", "7.66", "wrong_number"),
        ("A total of $1,234.50.", "1234.5", None),
        ("No idea.", "3", "wrong_number"),
        ("Of 12, 3 are left.", "3", None),
    ],
)
def test_an_answer_states_the_result_as_rounded_as_it_shows(answer, value, reason):
    assert reason_of(judge.require_number, answer, Fraction(value)) == reason


def test_a_number_of_the_question_is_no_rounded_result():
    assert reason_of(judge.require_number, "Of 45 it is 44.9.", Fraction("45.2"), "a share of 45") == "wrong_number"
    assert reason_of(judge.require_number, "It is 45.2.", Fraction("45.2"), "a share of 45") is None
    assert reason_of(judge.require_number, "It stays 45.", Fraction(45), "all of 45") is None


@pytest.mark.parametrize("answer", ["It is 1e400.", f"[{'9' * 5000}]", "9" * 5000, "\n" * 100_000 + "1e999"])
def test_a_runaway_answer_is_rejected_and_stops_nothing(answer):
    began = time.thread_time()
    with pytest.raises(Rejected):
        judge.require_citations(answer, {1}, {1})
    with pytest.raises(Rejected):
        judge.require_last_number(answer, Fraction(3))
    with contextlib.suppress(Rejected):
        judge.require_grounded(answer, "")
    assert time.thread_time() - began < 20


def test_half_pairs_in_what_a_service_says_lose_no_walk(material, tmp_path):
    refusal = Fault(status=400, body='{"error": {"message": "no \\ud800 today"}}')
    with running(lambda body: "{}") as server, Answers(tmp_path / "a.sqlite") as answers:
        server.faults = [refusal]
        endpoint = Endpoint(EndpointSettings(base_url=server.base_url, model=MODEL), answers, "test")

        async def go():
            async with endpoint:
                return await synthesize(endpoint, material, SynthesisSettings({"think_answer": 1}, 1, tries=1))

        (line, *_) = rejected_lines(asyncio.run(go()).rejected)
    assert "no ? today" in json.loads(line.encode("utf-8"))["detail"]


def test_numbers_must_come_from_the_sources():
    ground = "The tower of 1889 is 330 m high; see note 4."
    assert reason_of(judge.require_grounded, "It is 330 m high [1].", ground) is None
    assert reason_of(judge.require_grounded, "1. First\n2. It dates from 1889", ground) is None
    assert reason_of(judge.require_grounded, "It is 324 m high.", ground) == "ungrounded_number"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((judge.require_citations, "So it is [1].", {1, 2}, {1}), None),
        ((judge.require_citations, "So it is [1][2].", {1, 2}, {1}), None),
        ((judge.require_citations, "So it is.", {1, 2}, {1}), "no_citation"),
        ((judge.require_citations, "So it is [2].", {1, 2}, {1}), "wrong_citation"),
        ((judge.require_citations, "So it is [1][7].", {1, 2}, {1}), "wrong_citation"),
        ((judge.refuse_copied, "Is it so that a b c d e f g?", "x A b  c d e f g h"), None),
        ((judge.refuse_copied, "Why a b c d e f g h?", "x A b c d e f g h? y"), "copied_text"),
        ((judge.require_parts, "at 19:30", ["9:30"], "lacks"), "lacks"),
        ((judge.require_parts, "1,234 and May 3, 2026", ["1234", "May 3, 2026"], "lacks"), None),
        ((judge.refuse_number, "17% of 45 is 7.65, but 120 is it", Fraction(120), "17 and 45"), "answer_in_thinking"),
        ((judge.refuse_number, "I need 120 divided by 1", Fraction(120), "what is 120/1"), None),
        ((judge.require_thinking, "short", "an answer"), "short_thinking"),
        ((judge.require_thinking, "x" * 60 + " The whole answer is here.", "The whole answer is here."),
         "answer_in_thinking"),
        ((judge.require_last_number, "12 and then 40.", Fraction(40)), None),
        ((judge.require_last_number, "40 and then 12.", Fraction(40)), "wrong_number"),
        ((judge.refuse_other_names, "I am ChatGPT.", "Miro", "who are you?"), "other_assistant"),
        ((judge.refuse_other_names, "No, I am not ChatGPT.", "Miro", "are you ChatGPT?"), None),
    ],
)  # fmt: skip
def test_each_fault_has_its_name(arguments, reason):
    assert reason_of(*arguments) == reason


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("42", "42 apples", True), ("42", "43", False), ("The red key.", "red key", True), ("yes", "no", False),
     ("7", "seven", False), ("1/3", "2/3", False), ("$5", "5.00 dollars", True),
     ("3 h 20 min", "3 hours, 20 minutes", True)],
)  # fmt: skip
def test_short_answers_are_compared_by_meaning(one, other, same):
    assert judge.same_text(one, other) is same


FAULTY_FIELDS = [
    ("temporal", {"answer": "I cannot say."}, "wrong_answer"),
    ("arithmetic", {"question": "no numbers at all"}, "fact_missing"),
    ("think_calculator_answer", {"expression": "9**9**9"}, "tool_error"),
    ("think_search_answer", {"query": "zebra quagga"}, "search_missed"),
    ("think_search_answer", {"question": "What does the text say?"}, "mentions_text"),
    (
        "think_search_answer",
        {"thinking": "It must be looked up, although I know of 1889 already."},
        "answer_in_thinking",
    ),
    ("think_search_answer", {"answer": "It was so in 1902 [1]."}, "ungrounded_number"),
    ("documents", {"quote": "words that stand nowhere at all"}, "quote_not_in_document"),
    ("follow_up", {"question 2": "Tell me more."}, "no_pronoun"),
    ("identity", {"answer": "I am Claude."}, "other_assistant"),
    ("reasoning", {"final": "elephant", "answer": "It is the elephant."}, "solutions_disagree"),
]


@pytest.mark.parametrize(("task", "change", "reason"), FAULTY_FIELDS, ids=[f"{t}-{r}" for t, _, r in FAULTY_FIELDS])
def test_a_fault_of_the_teacher_is_caught(task, change, reason, material, tmp_path):
    def mind(body):
        found = json.loads(teacher_mind(body))
        if task == "reasoning" and "question" not in found:
            return json.dumps(found)
        return json.dumps(found | {key: value for key, value in change.items() if key in found})

    with running(mind) as server:
        _, result = write(server, tmp_path, material, {task: 1}, tries=1)
    assert result.rows == []
    assert set(result.rejected_by_reason) == {reason}


def test_briefs_name_their_fields():
    request = Brief("Prompt.", {"question": "what", "answer": "that"}).request(4)
    assert request.draw == 4
    assert request.messages[1].content.endswith('- "question": what\n- "answer": that')
