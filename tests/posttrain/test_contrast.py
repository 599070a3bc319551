"""Pairs with a teacher: the chosen side sound and in the form of its row, the rejected side the model's or spoiled."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from gradus.conversation.checks import AssistantTurn
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.conversation.validate import turn_violations
from gradus.posttrain.prompts import prompt_from_conversation
from gradus.posttrain.synthesis.contrast import contrast
from gradus.tools.answers import Answers
from gradus.tools.endpoint import Endpoint
from gradus.tools.endpoint_settings import EndpointSettings
from gradus.tools.toolbox import ToolBox

sys.path.insert(0, str(Path(__file__).parents[1]))
from teacher_mind import faulty_mind, teacher_mind
from teacher_server import MODEL, running

TOOLS = ToolBox().schemas(("calculator",))
TALK = Conversation((Message("user", "What about rivers?"), Message("assistant", "They flow.")), id="talk")
THINKING = Conversation(
    (Message("user", "What about hills?"), Message("assistant", "They stand.", "Hills are a matter of some thought.")),
    id="thinking",
)
CALL = ToolCall("call_1", "calculator", {"expression": "17% of 45"})
TOOL = Conversation(
    (Message("user", "how much is 17% of 45?"), Message("assistant", "", "A share is asked for.", (CALL,)),
     Message("tool", "7.65", tool_call_id="call_1"), Message("assistant", "It is 7.65.")),
    TOOLS, id="tool",
)  # fmt: skip


def pairs(server, folder, rows, answers=None, tries=2):
    settings = EndpointSettings(base_url=server.base_url, model=MODEL, timeout_seconds=60)

    async def go():
        with Answers(folder / "answers.sqlite") as kept:
            async with Endpoint(settings, kept, "test") as endpoint:
                prompts = [prompt_from_conversation(row) for row in rows]
                return await contrast(endpoint, ToolBox(), prompts, answers, tries)

    return asyncio.run(go())


def test_without_a_model_the_rejected_side_is_spoiled_and_nothing_else_differs(tmp_path):
    with running(teacher_mind) as server:
        result = pairs(server, tmp_path, [TALK, THINKING, TOOL])
    assert [pair.id for pair in result.pairs] == ["talk", "thinking", "tool"]
    for pair, row in zip(result.pairs, (TALK, THINKING, TOOL), strict=True):
        assert not turn_violations(pair.chosen, row.tools)
        assert pair.chosen[:-1] == pair.rejected[:-1]
        assert pair.chosen[-1].reasoning_content == pair.rejected[-1].reasoning_content
        assert "As an AI" in pair.rejected[-1].content
        assert bool(AssistantTurn(pair.chosen).thinking) == bool(AssistantTurn(row.messages).thinking)
    chosen = result.pairs[2].chosen
    assert [message.role for message in chosen] == ["assistant", "tool", "assistant"]
    assert chosen[1].content == "7.65"  # by our own calculator
    assert result.failed == 3  # all of them hold a hedge


def test_the_models_own_answer_is_the_rejected_side(tmp_path):
    own = [
        AssistantTurn((Message("assistant", "Rivers, hm."),)),
        AssistantTurn((Message("assistant", "Cut"),), "length"),
    ]
    with running(teacher_mind) as server:
        result = pairs(server, tmp_path, [TALK, THINKING], own)
        # A prompt without a whole answer of the model costs nothing.
        assert len(server.requests) == 1
    assert [pair.rejected for pair in result.pairs] == [own[0].messages]
    assert result.skipped == {"no_whole_rejection": 1}


def test_a_model_that_says_the_same_gives_no_pair(tmp_path):
    same = json.dumps({"answer": "They flow, as ever."})
    own = [AssistantTurn((Message("assistant", "they flow,  as ever."),))]
    with running(lambda body: same) as server:
        result = pairs(server, tmp_path, [TALK], own)
    assert result.pairs == []
    assert result.skipped == {"same_answers": 1}


def test_a_chosen_answer_must_pass_what_the_row_passes(tmp_path):
    row = Conversation((Message("user", "6 times 7?"), Message("assistant", "It is 42.")), id="sum")
    with running(lambda body: json.dumps({"answer": "It is 43."})) as server:
        result = pairs(server, tmp_path, [row])
    assert result.skipped == {"answer_number": 1}
    assert [one.reason for one in result.rejected] == ["answer_number"] * 2
    assert result.rejected[0].answer == "It is 43."


def test_where_the_row_cites_the_chosen_answer_cites(tmp_path):
    row = Conversation((Message("user", "Why do bees hum?"), Message("assistant", "For warmth [1].")), id="cited")
    with running(lambda body: json.dumps({"answer": "To keep warm."})) as server:
        result = pairs(server, tmp_path, [row])
    assert result.skipped == {"citation": 1}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [("no JSON", "wrong_format"), ('{"expression": "1/0"}', "tool_error"), ('{"sum": "1"}', "tool_error")],
)
def test_calls_that_do_not_work_are_rejected(tmp_path, arguments, reason):
    reply = json.dumps({"thinking": "It is a sum of two numbers.", "arguments": arguments, "answer": "x"})
    with running(lambda body: reply) as server:
        result = pairs(server, tmp_path, [TOOL])
    assert result.skipped == {reason: 1}


def test_faulty_answers_are_tried_again(tmp_path):
    rows = [
        Conversation((Message("user", f"And number {n}?"), Message("assistant", "Yes.")), id=f"{n}") for n in range(30)
    ]
    with running(faulty_mind(0.2)) as server:
        result = pairs(server, tmp_path, rows, tries=4)
    assert len(result.pairs) >= 28
    assert result.rejected
