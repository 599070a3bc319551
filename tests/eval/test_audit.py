"""The artifact audit: what is counted in a turn, bounds, paired items, and a real model's answers by seed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gradus.conversation.artifacts import find_artifacts
from gradus.conversation.checks import AssistantTurn
from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import DataError
from gradus.core.gate import Gate, judge
from gradus.core.statistics import rule_of_three
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.eval.audit import KINDS, AuditedSample, AuditResult, audit, questions, turn_artifacts

Memory = tuple[Engine, dict[str, Conversation]]


def kinds(*messages: Message, finish_reason: str = "stop", problems: tuple[str, ...] = ()) -> list[str]:
    return [kind for kind, _ in turn_artifacts(AssistantTurn(messages, finish_reason, problems))]


def test_answers_are_looked_through_and_thinking_for_loops_only() -> None:
    assert kinds(Message("assistant", "Fine.", "Answer: <b>3</b>")) == []
    assert kinds(Message("assistant", "Fine.", "the " * 12)) == ["loop"]
    assert kinds(Message("assistant", "Answer: 3")) == ["stock_label"]
    assert kinds(Message("user", "Answer: 3"), Message("assistant", "As an AI, no")) == ["hedge"]


def test_loops_are_told_by_their_period_and_repeats() -> None:
    turn = AssistantTurn((Message("assistant", "Well. " + "I see it " * 9, "ha" * 14),))
    assert turn_artifacts(turn) == [
        ("loop", "3 words 9 times over: " + "I see it " * 8 + "I see it"),
        ("loop", "2 letters 14 times over: " + "ha" * 14),
    ]


def test_figures_alone_loop_too_where_they_come_often_enough_and_a_short_row_of_a_table_does_not() -> None:
    assert kinds(Message("assistant", "It is " + "7 5 " * 20)) == ["loop"]
    assert kinds(Message("assistant", "| 0 | 0 | 0 | 0 | 0 | 0 |")) == []
    assert list(find_artifacts("It is " + "7 5 " * 20)) == []


def test_what_went_wrong_with_the_turn_counts() -> None:
    said = Message("assistant", "Fine.")
    assert kinds(said, finish_reason="length") == ["missing_stop"]
    assert kinds(said, problems=("thinking never closed",)) == ["unclosed_think"]
    assert kinds(said, problems=("a tool call that is no JSON: {",)) == ["malformed"]


def result(dirty: int, n: int) -> AuditResult:
    samples = [AuditedSample(str(i), ("html_tag", "hedge") if i < dirty else (), "", "") for i in range(n)]
    return AuditResult("m", tuple(samples))


def test_none_in_a_hundred_means_below_three_percent() -> None:
    measures = result(0, 100).measures()
    assert measures["any"]["upper"] == measures["html_tag"]["upper"] == pytest.approx(0.03)
    assert rule_of_three(2) == 1.0
    assert rule_of_three(0) == 1.0
    # With one found it is Wilson's: 1 in 100 is [0.18 %, 5.45 %].
    assert result(1, 100).measures()["any"]["upper"] == pytest.approx(0.0545, abs=1e-4)


def test_gates_read_a_bound_and_a_paired_test() -> None:
    before, after = {"audit": result(30, 100).measures()}, {"audit": result(2, 100).measures()}
    assert set(after["audit"]) == {"clean", "any", *KINDS}
    assert judge(Gate(measure="audit.any", bound="upper", at_most=0.08), after).passed
    assert not judge(Gate(measure="audit.any", bound="upper", at_most=0.03), after).passed
    gate = Gate(measure="audit.clean", not_worse_than="before")
    assert judge(gate, after, {"before": before}).passed
    worse = judge(gate, before, {"before": after})
    assert not worse.passed
    assert "0 won, 28 lost of 100 shared items" in worse.text


def test_a_model_is_audited_by_seed_over_prompts_in_turn(memorised: Memory) -> None:
    engine, known = memorised
    prompts = questions(known.values, 3)
    assert len(prompts) == 3
    assert all(prompt.messages[-1].role == "user" for prompt in prompts)
    sampling = Sampling(temperature=1.0, seed=3)
    first = audit(engine, prompts, 7, sampling, model="memory")
    assert [sample.id for sample in first.samples] == [f"{prompts[i % 3].id}#{i // 3}" for i in range(7)]
    again = audit(engine, prompts, 7, sampling, model="memory")
    assert first.samples == again.samples
    assert first.to_json()["rates"]["any"]["n"] == 7


def test_prompts_come_from_every_source_and_no_others_are_held() -> None:
    def rows() -> Iterator[Conversation]:
        for number in range(400):
            said = Message("user", str(number)), Message("assistant", "." * 10_000)
            yield Conversation((said[1], *said), source="ab"[number % 2])
        yield Conversation((Message("assistant", "nothing is asked"),), source="c")

    tracemalloc.start()
    found = questions(rows, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(one.source, one.messages[-1].content) for one in found] == [
        ("a", "0"),
        ("b", "1"),
        ("a", "200"),
        ("b", "201"),
    ]
    assert peak < 1_000_000


def test_prompts_without_room_are_an_error_that_says_so(memorised: Memory) -> None:
    engine, known = memorised
    prompt = replace(questions(known.values, 1)[0], messages=(Message("user", "cat " * 5000),))
    with pytest.raises(DataError, match="none of 1 prompts can be asked: each is as long as the model's context"):
        audit(engine, [prompt], 5, Sampling())
    with pytest.raises(DataError, match="there is nothing to ask"):
        audit(engine, [], 5, Sampling())
