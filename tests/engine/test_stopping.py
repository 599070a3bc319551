"""Stop strings, the think budget and cancellation: of a turn fed token by token, and of the engine."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.conversation.formats.hermes import call_text
from gradus.conversation.formats.wire import TextDelta, ThinkDelta
from gradus.conversation.messages import Conversation, Message
from gradus.core.errors import ConfigError
from gradus.engine.engine import Engine
from gradus.engine.stop_strings import StopStrings
from gradus.engine.turn import Done, Request, Turn
from gradus.tokenizer.specials import TOOL_CALL, TOOL_CALL_END
from gradus.tools.toolbox import ToolBox

pytestmark = pytest.mark.usefixtures("one_thread")

Memory = tuple[Engine, dict[str, Conversation]]


@given(
    pieces=st.lists(st.text("ab☕", max_size=4), max_size=8),
    strings=st.lists(st.text("ab☕", min_size=1, max_size=4), max_size=3),
)
def test_text_in_pieces_ends_where_the_whole_text_would(pieces: list[str], strings: list[str]) -> None:
    stop, out = StopStrings(strings), []
    for index, piece in enumerate(pieces):
        out.append(stop.push(piece))
        # Nothing is held back that cannot be the beginning of a stop string any more.
        held = len("".join(pieces[: index + 1])) - len("".join(out))
        assert stop.found or held < max([1, *map(len, strings)])
    whole = "".join(pieces)
    places = [whole.find(string) for string in strings if string in whole]
    assert stop.found == bool(places)
    # The first to be complete ends the text; one that begins earlier may have been complete with the same piece.
    assert "".join([*out, stop.finish()]) in {whole[:place] for place in places} if places else {whole}
    assert not any(string in "".join(out) for string in strings)


def question(conversation: Conversation, **options: object) -> Request:
    last = max(i for i, message in enumerate(conversation.messages) if message.role == "user")
    return Request(replace(conversation, messages=conversation.messages[: last + 1]), **options)  # type: ignore[arg-type]


def test_an_answer_ends_before_its_stop_string_and_is_streamed_so_far(memorised: Memory) -> None:
    engine, known = memorised
    for stop, answer in ((("déjà",), "café ☕ "), (("xyz", "é ☕"), "caf"), (("vu!",), "café ☕ déjà vu")):
        request = question(known["coffee"], stop=stop)
        events = list(engine.stream(request))
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == answer
        (reply,) = engine.generate([request])
        assert events[-1] == Done(reply)
        assert (reply.turn.answer, reply.turn.thinking, reply.finish_reason) == (answer, "I think of ☕ first.", "stop")


def test_a_stop_string_does_not_count_in_thinking_or_in_calls(memorised: Memory) -> None:
    engine, known = memorised
    (reply,) = engine.generate([question(known["product"], stop=("12 * 3.", "expression"))])
    assert reply.turn.messages == known["product"].messages[1:]
    (reply,) = engine.generate([question(known["product"], stop=("36",))])
    assert reply.turn.messages[-1] == Message("assistant", "12 * 3 = ")


def test_a_stop_string_is_not_put_together_of_text_on_both_sides_of_a_result(memorised: Memory) -> None:
    engine, known = memorised
    form, tokenizer = engine.form, engine.tokenizer
    turn = Turn(question(known["product"], stop=("abc",), think=False), form, ToolBox(), 500, listen=True)
    call = tokenizer.encode(call_text(known["product"].messages[1].tool_calls[0]))
    stop = form.stop_ids[0]
    ids = [tokenizer.special(TOOL_CALL), *call, tokenizer.special(TOOL_CALL_END), *tokenizer.encode("ab"), stop]
    for token in [*ids, *tokenizer.encode("cd"), stop]:
        turn.push(token)
    told = [event.text if isinstance(event, TextDelta) else "|" for event in turn.take_events()]
    assert [message.content for message in turn.reply().turn.messages] == ["ab", "36", "cd"]
    assert "".join(told) == "||ab|cd|"


def test_thinking_is_closed_when_its_budget_is_spent_and_the_answer_goes_on(memorised: Memory) -> None:
    engine, known = memorised
    whole = engine.generate([question(known["product"])])[0].turn.thinking
    for budget in (0, 1, 5):
        request = question(known["product"], think_budget=budget, max_tokens=40)
        events = list(engine.stream(request))
        (reply,) = engine.generate([request])
        assert events[-1] == Done(reply)
        thinking = reply.turn.messages[0].reasoning_content
        assert thinking is not None
        assert whole.startswith(thinking)
        assert len(thinking) < len(whole)
        assert bool(thinking) == (budget > 0)
        assert "".join(event.text for event in events if isinstance(event, ThinkDelta)) == thinking
        assert "thinking never closed" not in reply.turn.problems
    (enough,) = engine.generate([question(known["product"], think_budget=500)])
    assert enough.turn.messages == known["product"].messages[1:]


def test_what_is_forced_at_the_end_of_thinking_is_what_a_row_has_there(memorised: Memory) -> None:
    engine, known = memorised
    form = engine.form
    turn = Turn(question(known["product"], think=True, think_budget=3), form, ToolBox(), 500)
    thought = form.tokenizer.encode("The calcul")[:3]
    for token in thought:
        turn.push(token)
    answer = form.tokenizer.encode("Yes.")
    forced = list(turn.forced)
    turn.forced.clear()
    for token in (*answer, form.stop_ids[0]):
        turn.push(token)
    row = Conversation(
        (*known["product"].messages[:1], *turn.reply().turn.messages), known["product"].tools, think=True
    )
    sequence = [*turn.prompt_ids, *thought, *forced, *answer, form.stop_ids[0]]
    assert form.render(row).ids.tolist()[: len(sequence)] == sequence
    assert turn.reply().num_tokens == 3 + len(answer) + 1


def test_a_budget_counts_no_token_outside_of_thinking(memorised: Memory) -> None:
    engine, known = memorised
    assert engine.generate([question(known["name"], think_budget=2)]) == engine.generate([question(known["name"])])


def test_a_cancelled_turn_keeps_what_was_said(memorised: Memory) -> None:
    engine, known = memorised
    form = engine.form
    turn = Turn(question(known["name"]), form, ToolBox(), 500, listen=True)
    for token in form.tokenizer.encode("You are"):
        turn.push(token)
    turn.cancel()
    turn.cancel()
    reply = turn.reply()
    assert (reply.finish_reason, reply.turn.answer) == ("cancelled", "You are")
    assert [type(event) for event in turn.take_events()][-1] is Done


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stop": ("a", "")}, "stop: an empty string"), ({"think_budget": -1}, "think_budget"), ({"logprobs": -2}, "-2")],
)
def test_impossible_requests_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Request(Conversation((Message("user", "hi"),)), **options)  # type: ignore[arg-type]


def test_log_probabilities_come_with_the_reply_one_for_each_sampled_token(memorised: Memory) -> None:
    engine, known = memorised
    (reply,) = engine.generate([question(known["product"], logprobs=2)])
    assert len(reply.logprobs) == reply.num_tokens
    for told in reply.logprobs:
        assert told.top[0] == (told.token, told.logprob)  # greedy: what was taken is the likeliest
        assert told.top[1][1] <= told.logprob <= 0
    assert engine.generate([question(known["product"])])[0].logprobs == ()
