"""Pairs from judged samples of a model that knows a few conversations by heart."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gradus.conversation import artifacts
from gradus.conversation.checks import AnswerNumber, AssistantTurn, Calls, CallsNone
from gradus.conversation.messages import Conversation, Message, Pair, ToolCall
from gradus.core.errors import DataError
from gradus.data.pool import write_pool
from gradus.engine.engine import Engine
from gradus.engine.turn import Reply
from gradus.posttrain.pairs import PairSettings, artifact_reasons, make_pairs
from gradus.posttrain.prompts import PairPrompt, judge, prompt_from_conversation
from gradus.roadmap.stages.pairs import spread_prompts
from gradus.tools.toolbox import ToolBox

pytestmark = pytest.mark.usefixtures("one_thread")

Memory = tuple[Engine, dict[str, Conversation]]
TOOLS = ToolBox().schemas(["calculator"])
CALL = ToolCall("call_1", "calculator", {"expression": "2 * 3"})
RESULT = Message("tool", "6", tool_call_id="call_1")


def worked(answer: str) -> tuple[Message, ...]:
    return (Message("assistant", tool_calls=(CALL,)), RESULT, Message("assistant", answer))


def row(*turn: Message, **options: Any) -> Conversation:
    return Conversation((Message("user", "2 * 3?"), *turn), TOOLS, "sums", "row-1", **options)


class Scripted(Engine):
    """An engine whose samples are written down; requests are kept."""

    def __init__(self, engine: Engine, turns: list[AssistantTurn]) -> None:
        super().__init__(engine.model, engine.tokenizer, engine.form, engine.toolbox)
        self.turns = turns
        self.requests: list[Any] = []

    def generate(self, requests: Any, on_reply: Any = None) -> list[Reply]:
        self.requests = list(requests)
        replies = [Reply(turn, 1, 1) for turn in self.turns]
        for index, reply in enumerate(replies):
            on_reply(index, reply)
        return replies


def test_the_reference_number_and_tools_judge_where_no_checks_are_given() -> None:
    prompt = prompt_from_conversation(row(*worked("It is 6.")))
    assert prompt.conversation.messages == (Message("user", "2 * 3?"),)
    assert prompt.reference == worked("It is 6.")
    assert prompt.checks == (
        Calls(kind="calls", tool="calculator"),
        AnswerNumber(kind="answer_number", value=6),
    )
    assert judge(prompt, AssistantTurn(worked("So 6, I say."))) == []
    assert judge(prompt, AssistantTurn(worked("It is 7."))) == ["answer_number"]
    assert judge(prompt, AssistantTurn((Message("assistant", "6"),))) == ["calls"]


def test_a_citation_is_no_number_of_the_reference() -> None:
    prompt = prompt_from_conversation(row(Message("assistant", "It was lit in 1881 [2].")))
    assert judge(prompt, AssistantTurn((Message("assistant", "In 1881 [1]."),))) == []
    assert judge(prompt, AssistantTurn((Message("assistant", "In 1882 [2]."),))) == ["answer_number"]
    assert prompt_from_conversation(row(Message("assistant", "One queen [1]."))).exact


def test_a_reference_with_a_number_beyond_all_bounds_is_met_by_its_text() -> None:
    prompt = prompt_from_conversation(row(Message("assistant", f"It is 1{'0' * 400}.5")))
    assert prompt.exact


def test_a_reference_without_a_number_must_be_met_by_its_text() -> None:
    prompt = prompt_from_conversation(row(Message("assistant", "Hello  there.")))
    assert prompt.checks == (CallsNone(kind="calls_none"),)
    assert prompt.exact
    assert judge(prompt, AssistantTurn((Message("assistant", "hello there"),))) == []
    assert judge(prompt, AssistantTurn((Message("assistant", "goodbye"),))) == ["answer_text"]


def test_decimal_references_are_met_exactly() -> None:
    prompt = prompt_from_conversation(row(*worked("The tip is $7.65.")))
    assert judge(prompt, AssistantTurn(worked("$7.65"))) == []
    assert judge(prompt, AssistantTurn(worked("$7.650001"))) == ["answer_number"]


def test_a_reference_that_names_a_weekday_or_a_date_is_met_by_naming_it() -> None:
    weekday = prompt_from_conversation(row(Message("assistant", "It will be Friday.")))
    assert judge(weekday, AssistantTurn((Message("assistant", "That is a Friday"),))) == []
    assert judge(weekday, AssistantTurn((Message("assistant", "Friday or Monday"),))) == ["exactly_one_of"]
    date = prompt_from_conversation(row(Message("assistant", "It is March 7.")))
    assert judge(date, AssistantTurn((Message("assistant", "March 7"),))) == []
    assert judge(date, AssistantTurn((Message("assistant", "April 7"),))) == ["answer_regex"]
    assert judge(date, AssistantTurn((Message("assistant", "March 17"),))) == ["answer_regex", "answer_number"]


def test_broken_rules_and_endings_are_reasons() -> None:
    prompt = PairPrompt(row(think=True))
    unthought = AssistantTurn((Message("assistant", "6"),), "length", ("thinking never closed",))
    assert judge(prompt, unthought) == ["ended_by_length", "malformed", "think_missing"]
    foreign = ToolCall("call_1", "search", {})
    open_call = AssistantTurn((Message("assistant", tool_calls=(foreign,)),), "calls")
    assert judge(PairPrompt(row()), open_call) == ["ended_by_calls", "unknown_tool", "unfinished"]


def test_the_first_pass_meets_the_first_fail(memorised: Memory) -> None:
    prompt = prompt_from_conversation(row(*worked("It is 6.")))
    turns = [
        AssistantTurn(worked("It is 8.")),
        AssistantTurn(worked("Six is 6.")),
        AssistantTurn(worked("It is 9.")),
        AssistantTurn(worked("6")),
    ]
    seen: list[tuple[int, int]] = []
    result = make_pairs(
        Scripted(memorised[0], turns), [prompt], PairSettings(), on_progress=lambda *now: seen.append(now)
    )
    expected = Pair(prompt.conversation, worked("Six is 6."), worked("It is 8."), "sums", "row-1")
    assert result.pairs == (expected,)
    assert result.counts == {
        "prompts": 1,
        "samples": 4,
        "samples_passed": 2,
        "pairs": 1,
        "chosen_sampled": 1,
        "chosen_reference": 0,
    }
    assert result.failures == {"answer_number": 2}
    assert result.skipped == {}
    assert seen[-1] == (4, 4)


def test_the_reference_stands_in_where_no_sample_passes(memorised: Memory) -> None:
    prompt = prompt_from_conversation(row(*worked("It is 6.")))
    wrong = [AssistantTurn(worked("It is 8."))] * 4
    result = make_pairs(Scripted(memorised[0], wrong), [prompt], PairSettings())
    assert result.pairs[0].chosen == prompt.reference
    assert (result.counts["chosen_sampled"], result.counts["chosen_reference"]) == (0, 1)
    bare = replace(prompt, reference=())
    assert make_pairs(Scripted(memorised[0], wrong), [bare], PairSettings()).skipped == {"none_passed": 1}


def test_prompts_without_a_contrast_are_counted(memorised: Memory) -> None:
    prompt = prompt_from_conversation(row(*worked("It is 6.")))
    right = AssistantTurn(worked("It is 6."))
    cut = AssistantTurn((Message("assistant", "It"),), "length")
    result = make_pairs(Scripted(memorised[0], [right] * 4 + [right, cut, cut, cut]), [prompt, prompt], PairSettings())
    assert result.pairs == ()
    assert result.skipped == {"all_passed": 1, "no_whole_rejection": 1}
    assert result.failures["ended_by_length"] == 3


def test_a_real_model_gives_the_same_pairs_for_the_same_seed(memorised: Memory) -> None:
    engine, known = memorised
    prompts = [prompt_from_conversation(known[name]) for name in ("product", "greeting", "coffee", "name")]
    settings = PairSettings(samples=6, temperature=1.2, seed=1, max_tokens=100)
    first = make_pairs(engine, prompts, settings)
    assert first == make_pairs(engine, prompts, settings)
    assert first != make_pairs(engine, prompts, settings.model_copy(update={"seed": 2}))
    assert first.counts["samples"] == 24
    assert first.counts["pairs"] + sum(first.skipped.values()) == 4
    assert 0 < first.counts["samples_passed"] < 24
    for pair in first.pairs:
        prompt = next(p for p in prompts if p.conversation == pair.prompt)
        assert judge(prompt, AssistantTurn(pair.chosen)) == []
        assert judge(prompt, AssistantTurn(pair.rejected)) != []


def test_prompts_too_long_are_counted_and_left_out(memorised: Memory) -> None:
    engine, known = memorised
    long = Conversation((Message("user", "why " * 400), Message("assistant", "So.")))
    prompts = [prompt_from_conversation(long), prompt_from_conversation(known["greeting"])]
    result = make_pairs(engine, prompts, PairSettings(samples=1, max_tokens=30))
    assert result.skipped["prompt_too_long"] == 1
    assert result.counts["samples"] == 1


@pytest.mark.parametrize("messages", [(Message("user", "2 * 3?"),), (Message("system", "Hm."),), worked("6")[:2]])
def test_a_row_without_an_answered_question_is_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(DataError, match='row "r": a prompt for pairs must hold a user message and end with'):
        prompt_from_conversation(Conversation(messages, id="r"))


def test_prompts_come_from_all_over_the_pool(tmp_path: Path) -> None:
    rows = [Conversation((Message("user", f"{n}?"), Message("assistant", f"{n}."))) for n in range(7)]
    write_pool(tmp_path, rows, validation_fraction=0.0)
    prompts = spread_prompts(tmp_path, 4)
    assert [prompt.conversation.messages[0].content for prompt in prompts] == ["0?", "1?", "3?", "5?"]
    assert len(spread_prompts(tmp_path, 10)) == 7


def test_answers_with_artifacts_fail_and_a_reference_with_one_is_not_chosen(memorised: Memory) -> None:
    assert artifact_reasons(worked("<b>6</b>, as an AI")) == ["artifact_html_tag", "artifact_hedge"]
    assert artifact_reasons(worked("6. `<b>` is a tag.")) == []
    engine, known = memorised
    asked = prompt_from_conversation(known["greeting"], checks=(CallsNone(kind="calls_none"),))
    settings = PairSettings(samples=2, temperature=0.01, max_tokens=64)
    assert make_pairs(engine, [asked], settings).counts["samples_passed"] == 2
    # What is in the answer becomes an artifact: both samples fail, and so does the reference.
    said = re.escape(asked.reference[-1].content[:6])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(artifacts.ARTIFACTS, "html_tag", artifacts._matches(re.compile(said)))
        found = make_pairs(engine, [asked], settings.model_copy(update={"reject_artifacts": True}))
    assert found.counts["samples_passed"] == 0
    assert found.failures == {"artifact_html_tag": 2}
    assert found.skipped == {"none_passed": 1}
