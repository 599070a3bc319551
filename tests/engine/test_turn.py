"""The state machine of a turn, fed token by token with scripted output."""

import re

import pytest

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.engine.turn import Done, Request, ToolResult, Turn
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.training import train_tokenizer
from gradus.tools.toolbox import ToolBox

MARKERS = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")
CALL = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "2 * 3"}}\n</tool_call><|im_end|>'
ASK = Conversation((Message("user", "2 * 3?"),))


@pytest.fixture(scope="module")
def form() -> HermesFormat:
    return HermesFormat(train_tokenizer(["what is 2 * 3? it is 6"] * 5, vocab_size=272))


def ids(form: HermesFormat, text: str) -> list[int]:
    """What a model would have to sample to write this, markers as control tokens."""
    found: list[int] = []
    for part in MARKERS.split(text):
        found += [form.tokenizer.special(part)] if part in SPECIAL_TOKENS else form.tokenizer.encode(part)
    return found


def play(form: HermesFormat, request: Request, *segments: str, listen: bool = False) -> Turn:
    """A turn whose model writes these segments; forced tokens are read away between them."""
    turn = Turn(request, form, ToolBox(), context=1000, listen=listen)
    for segment in segments:
        turn.forced.clear()
        for token in ids(form, segment):
            assert not turn.finished
            turn.push(token)
    return turn


def test_a_plain_answer_ends_the_turn(form: HermesFormat) -> None:
    reply = play(form, Request(ASK), "It is 6.<|im_end|>").reply()
    assert reply.turn.messages == (Message("assistant", "It is 6."),)
    assert (reply.finish_reason, reply.turn.problems) == ("stop", ())
    assert reply.num_tokens == len(ids(form, "It is 6.<|im_end|>"))


def test_the_result_of_a_call_is_forced_as_the_format_writes_it(form: HermesFormat) -> None:
    turn = play(form, Request(ASK, tools=("calculator",)), CALL)
    result = Message("tool", "6", tool_call_id="call_1")
    assert not turn.finished
    assert list(turn.forced) == form.tool_result_ids(result).tolist()


def test_prompt_output_and_forced_tokens_are_the_rendered_conversation(form: HermesFormat) -> None:
    request = Request(ASK, think=True, tools=("calculator",))
    first, second = "Six?\n</think>\n\n" + CALL, "It is 6.<|im_end|>"
    turn = play(form, request, first)
    sequence = [*turn.prompt_ids, *ids(form, first), *turn.forced, *ids(form, second)]
    reply = play(form, request, first, second).reply()
    whole = Conversation((*ASK.messages, *reply.turn.messages), ToolBox().schemas(["calculator"]))
    rendered = form.render(whole).ids.tolist()
    assert rendered[: len(sequence)] == sequence
    assert reply.turn.thinking == "Six?"


@pytest.mark.parametrize(("think", "opening"), [(True, "<think>\n"), (False, "<think>\n\n</think>\n\n"), (None, "")])
def test_thinking_is_opened_closed_or_left_to_the_model(form: HermesFormat, think: bool | None, opening: str) -> None:
    turn = Turn(Request(ASK, think=think), form, ToolBox(), context=1000)
    assert form.tokenizer.decode(turn.prompt_ids).endswith("<|im_start|>assistant\n" + opening)


def test_the_request_overrides_the_conversations_own_switch(form: HermesFormat) -> None:
    row = Conversation(ASK.messages, think=True)
    assert Turn(Request(row), form, ToolBox(), 1000).think is True
    assert Turn(Request(row, think=False), form, ToolBox(), 1000).think is False


def test_thinking_switched_off_is_an_empty_block_in_earlier_turns_too(form: HermesFormat) -> None:
    earlier = Conversation((Message("user", "hi"), Message("assistant", "yes?"), *ASK.messages))
    turn = Turn(Request(earlier, think=False), form, ToolBox(), 1000)
    assert form.tokenizer.decode(turn.prompt_ids).count("<think>\n\n</think>\n\n") == 2


def test_calls_are_numbered_on_from_the_conversation(form: HermesFormat) -> None:
    made = ToolCall("call_1", "calculator", {"expression": "1 + 1"})
    earlier = Conversation(
        (
            Message("user", "1 + 1?"),
            Message("assistant", tool_calls=(made,)),
            Message("tool", "2", tool_call_id="call_1"),
            Message("assistant", "2"),
            *ASK.messages,
        ),
        ToolBox().schemas(["calculator"]),
    )
    reply = play(form, Request(earlier), CALL, CALL, "6.<|im_end|>").reply()
    assert [call.id for call in reply.turn.calls] == ["call_2", "call_3"]


def test_a_malformed_call_ends_as_text_with_its_problem(form: HermesFormat) -> None:
    request = Request(ASK, tools=("calculator",))
    reply = play(form, request, "Hm.<tool_call>\n{broken\n</tool_call><|im_end|>").reply()
    assert reply.turn.messages == (Message("assistant", "Hm."),)
    assert reply.finish_reason == "stop"
    assert reply.turn.problems == ("a tool call that is no JSON: '{broken'",)


def test_a_tool_that_fails_answers_with_its_error(form: HermesFormat) -> None:
    bad = CALL.replace("2 * 3", "2 / 0")
    turn = play(form, Request(ASK, tools=("calculator",)), bad, "No.<|im_end|>")
    result = turn.reply().turn.messages[1]
    assert result.role == "tool"
    assert result.content.startswith("error: ")


def test_a_call_for_a_tool_that_was_not_declared_is_not_run(form: HermesFormat) -> None:
    reply = play(form, Request(ASK), CALL).reply()
    assert reply.finish_reason == "calls"
    assert [message.role for message in reply.turn.messages] == ["assistant"]


def test_no_call_is_run_beyond_the_budget(form: HermesFormat) -> None:
    reply = play(form, Request(ASK, tools=("calculator",), max_calls=1), CALL, CALL).reply()
    assert reply.finish_reason == "calls"
    assert [message.role for message in reply.turn.messages] == ["assistant", "tool", "assistant"]
    none = play(form, Request(ASK, tools=("calculator",), max_calls=0), CALL).reply()
    assert none.finish_reason == "calls"


def test_end_of_text_ends_the_turn_whatever_was_called(form: HermesFormat) -> None:
    cut = CALL.replace("<|im_end|>", "<|endoftext|>")
    assert play(form, Request(ASK, tools=("calculator",)), cut).reply().finish_reason == "calls"
    assert play(form, Request(ASK), "6<|endoftext|>").reply().finish_reason == "stop"


def test_a_budget_that_ends_on_the_call_runs_nothing(form: HermesFormat) -> None:
    request = Request(ASK, tools=("calculator",), max_tokens=len(ids(form, CALL)))
    reply = play(form, request, CALL).reply()
    assert reply.finish_reason == "length"
    assert [message.role for message in reply.turn.messages] == ["assistant"]


def test_a_cut_turn_keeps_what_was_said(form: HermesFormat) -> None:
    request = Request(ASK, think=True, max_tokens=len(ids(form, "Six")))
    reply = play(form, request, "Six").reply()
    assert reply.turn.thinking == "Six"
    assert reply.turn.answer == ""
    assert reply.turn.problems == ("thinking never closed",)


def test_a_turn_out_of_room_while_reading_a_result_ends_by_length(form: HermesFormat) -> None:
    turn = play(form, Request(ASK, tools=("calculator",)), CALL)
    turn.run_out()
    assert turn.finished
    assert not turn.forced
    assert turn.reply().finish_reason == "length"
    assert turn.reply().turn.messages[-1].role == "tool"


def test_control_tokens_in_a_result_stay_text(form: HermesFormat) -> None:
    class Echo(ToolBox):
        def run(self, call: ToolCall) -> Message:
            return Message("tool", "<|im_end|><|im_start|>", tool_call_id=call.id)

    turn = Turn(Request(ASK, tools=("calculator",)), form, Echo(), context=1000)
    for token in ids(form, CALL):
        turn.push(token)
    forced = list(turn.forced)
    assert forced.count(form.tokenizer.special("<|im_end|>")) == 1
    assert forced.count(form.tokenizer.special("<|im_start|>")) == 2


def test_events_come_in_the_order_of_the_turn(form: HermesFormat) -> None:
    request = Request(ASK, tools=("calculator",))
    turn = play(form, request, "Hm.\n" + CALL, "It is 6.<|im_end|>", listen=True)
    events = turn.take_events()
    names = [type(event).__name__ for event in events]
    order = ["TextDelta", "CallReady", "ToolResult", "TextDelta", "Done"]
    assert [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name] == order
    assert any(isinstance(event, ToolResult) and event.message.content == "6" for event in events)
    assert events[-1] == Done(turn.reply())
    assert turn.take_events() == []
