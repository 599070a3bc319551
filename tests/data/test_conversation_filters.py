"""Filters of pools: what each takes and leaves, code untouched, drops counted with samples, previews that agree."""

import json
import time
from pathlib import Path

import pytest

from gradus.conversation.artifacts import ARTIFACTS
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.conversation.records import Quarantined
from gradus.core.errors import ConfigError
from gradus.data.conversation_filters import ARTIFACT_KINDS, FilterEntry, conversation_filters
from gradus.data.pool import write_pool
from gradus.data.pool_preview import preview_filters

LONG = "This answer has more than forty characters, so that its length is no reason. "
THOUGHT = "First I add one and one, which makes two; then I look whether that is right."


def chat(answer: str, thinking: str | None = None, question: str = "a?") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer, thinking)), source="s", id="i")


def reason(conversation: Conversation, *entries: FilterEntry) -> str | None:
    faults = (judge(conversation) for _, judge in conversation_filters(entries))
    return next((fault.reason for fault in faults if fault is not None), None)


TAKEN = [
    (LONG + "It is <b>bold</b>.", "html_tag"),
    ("Answer: it is so. " + LONG, "stock_label"),
    (LONG + "![a chart]", "image_placeholder"),
    (LONG + "😀😀🚀", "emoji_run"),
    (LONG + "AS AN AI language model, no.", "hedge"),
    (LONG + "I’m sorry, but I can’t do that.", "refusal"),
    (LONG + "\nso\nso\nso", "repeated_line"),
    (LONG + "and on and on and on and on and on and on and on and on", "loop"),
    ("Too short.", "too_short"),
]


@pytest.mark.parametrize(("answer", "expected"), TAKEN)
def test_each_filter_takes_what_it_is_for(answer: str, expected: str) -> None:
    assert reason(chat(answer), "artifacts", "length") == expected


@pytest.mark.parametrize("answer", [a for a, r in TAKEN if r != "too_short"])
def test_the_same_inside_a_code_fence_is_left_alone(answer: str) -> None:
    assert reason(chat(f"{LONG}\n\n```html\n{answer}\n```\n"), "artifacts", "length") is None


def test_only_answers_that_are_trained_are_judged() -> None:
    user = Message("user", "Answer: <b>As an AI</b> 😀😀😀")
    untrained = Message("assistant", "As an AI, no.", train=False)
    whole = Conversation((user, untrained, user, Message("assistant", LONG)))
    assert reason(whole, "artifacts", "length") is None


def test_length_counts_all_answers_and_their_calls() -> None:
    call = ToolCall("call_1", "calculator", {"expression": "12 * 3"})
    used = Conversation(
        (
            Message("user", "12 * 3?"),
            Message("assistant", tool_calls=(call,)),
            Message("tool", "36", tool_call_id="call_1"),
            Message("assistant", "It is 36."),
        )
    )
    assert reason(used, "length") is None
    assert reason(used, {"name": "length", "min_characters": 80}) == "too_short"
    assert reason(chat(LONG * 9), {"name": "length", "max_characters": 200}) == "too_long"


@pytest.mark.parametrize(
    ("answer", "thinking", "expected"),
    [
        (LONG, THOUGHT, None),
        (LONG, None, None),
        (LONG, "", None),  # thinking switched off
        (LONG, "Easy.", "short_thinking"),
        (LONG + "</think>", THOUGHT, "unclosed_thinking"),
        (LONG + "Write `<thinking>` first.", THOUGHT, None),  # code
        (LONG, THOUGHT + "<|begin_of_thought|>", "unclosed_thinking"),
        ("So the answer is:", THOUGHT, "no_final_answer"),
        (LONG, THOUGHT + " So \\boxed{42}", "answer_inside_thinking"),
        (LONG + "It is $42$.", THOUGHT + " So \\boxed{42}", None),
        (LONG + "It is 1,000.", THOUGHT + " maybe \\boxed{7}, no: \\boxed{1{,}000}", None),
        (LONG, THOUGHT + "\nFinal answer: 42", "answer_inside_thinking"),
        (LONG + "It is 42.", THOUGHT + "\n**Final Answer:** 42", None),
        (LONG, THOUGHT + " in the form \\boxed{ANSWER}", None),
        (LONG, THOUGHT + "<answer>yes</answer>", "answer_inside_thinking"),
    ],
)
def test_thinking_must_end_in_an_answer_that_is_said(answer: str, thinking: str | None, expected: str | None) -> None:
    assert reason(chat(answer, thinking), "thinking") == expected


@pytest.mark.parametrize("part", ["\n", "<answer>", "\\boxed{", "\\boxed{x"])
def test_thinking_that_repeats_a_mark_is_judged_in_linear_time(part: str) -> None:
    began = time.thread_time()
    assert reason(chat(LONG, THOUGHT + part * 50_000 + "end"), "thinking") is None
    assert time.thread_time() - began < 15  # the first two took half a minute and more


def test_thinking_can_be_required() -> None:
    assert reason(chat(LONG), {"name": "thinking", "required": True}) == "no_thinking"
    assert reason(chat(LONG, THOUGHT), {"name": "thinking", "required": True, "min_characters": 10}) is None


def test_a_function_beside_the_roadmap_is_a_filter(tmp_path: Path) -> None:
    (tmp_path / "pool_rules.py").write_text("def shouting(text):\n    return 'loud' if text.isupper() else None\n")
    ((_, judge),) = conversation_filters(["pool_rules:shouting"], tmp_path)
    fault = judge(chat("LOUD"))
    assert fault is not None
    assert fault.reason == "pool_rules:shouting.loud"
    assert judge(chat("Quiet.")) is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["html"], 'no filter of conversations is called "html"; did you mean "html_tag"?'),
        (["wild"], 'no filter of conversations is called "wild"; filters are artifacts, html_tag'),
        ([{"name": "length", "min": 3}], 'filter "length": unknown key "min"; did you mean "min_characters"?'),
        ([{"name": "artifacts", "min": 3}], 'filter "artifacts": it takes no settings, found min'),
        (["artifacts", "hedge"], 'filter "hedge" is listed twice'),
        ([{"min": 3}], 'a filter is a name, or a table with a "name"'),
    ],
)
def test_wrong_filters_are_refused_in_words(entries: list[FilterEntry], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        conversation_filters(entries)
    assert message in str(caught.value)


def test_the_kinds_are_those_of_the_artifacts() -> None:
    assert tuple(ARTIFACTS) == ARTIFACT_KINDS


def test_a_pool_counts_what_filters_take_and_keeps_samples(tmp_path: Path) -> None:
    rows = [
        chat(LONG, question="one"),
        chat("As an AI, I <b>cannot</b> say. " + LONG, question="two"),
        chat("No.", question="three"),
        Quarantined("f", 3, "no JSON", source="s"),
        chat("", question="four"),
    ]
    judges = conversation_filters(["artifacts", "length"])
    counts = write_pool(tmp_path, rows, 0.0, filters=[judge for _, judge in judges])
    assert counts["dropped"] == {"empty_answer": 1, "html_tag": 1, "too_short": 1, "unreadable": 1}
    assert counts["dropped_by_source"] == {"s": counts["dropped"]}
    samples = json.loads((tmp_path / "drops.json").read_text())["samples"]
    assert samples["html_tag"][0]["detail"] == "message 1: As an AI, I [[<b>]]cannot</b> say. This answer ha"
    assert samples["html_tag"][0]["excerpt"] == "two"

    found = preview_filters(rows, judges)
    assert (found["read"], found["sound"], found["kept"]) == (5, 3, 1)
    removed = {name: (counts["removed"], counts["alone"]) for name, counts in found["filters"].items()}
    # The preview judges by each filter, so that a conversation counts for both that would take it.
    assert {name: n for name, n in removed.items() if n[0]} == {"html_tag": (1, 0), "hedge": (1, 0), "length": (1, 1)}
    assert found["unsound"] == {"empty_answer": 1, "unreadable": 1}
    assert found["by_source"] == {"s": {"sound": 3, "kept": 1, "html_tag": 1, "hedge": 1, "length": 1}}


def test_conversations_that_end_with_calls_are_taken_where_that_is_asked(tmp_path: Path) -> None:
    from gradus.conversation.calculator_marks import CALCULATOR

    call = ToolCall("call_1", "calculator", {"expression": "1"})
    row = Conversation((Message("user", "a"), Message("assistant", tool_calls=(call,))), (CALCULATOR,))
    cut = Conversation((Message("user", "b"), Message("assistant", "c"), Message("user", "d")))
    counts = write_pool(tmp_path, [row, cut], 0.0, calls_may_end=True)
    assert (counts["kept"], counts["dropped"]) == (1, {"unfinished": 1})
