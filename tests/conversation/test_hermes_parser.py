"""Reading generated ids back: whole, in a stream, and malformed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.formats.wire import CallReady, Problem, Stop, TextDelta, ThinkDelta
from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.tokenizer.specials import SPECIAL_TOKENS


def _ids(hermes: HermesFormat, wire: str) -> list[int]:
    """Ids of wire text, in which control tokens are meant."""
    ids: list[int] = []
    rest = wire
    while rest:
        at, name = min(((rest.find(n), n) for n in SPECIAL_TOKENS if n in rest), default=(len(rest), ""))
        ids += hermes.tokenizer.encode(rest[:at])
        if name:
            ids.append(hermes.tokenizer.special(name))
        rest = rest[at + len(name) :]
    return ids


def _reply(hermes: HermesFormat, message: Message, think: bool | None) -> list[int]:
    """What a model generates for this message, from the end of the prompt to its stop token."""
    asked = Conversation((Message("user", "?"),), think=think)
    prompt = hermes.render_prompt(asked, think)
    row = hermes.render(replace(asked, messages=(*asked.messages, message))).ids
    assert row[: len(prompt)].tolist() == prompt.tolist()
    return row[len(prompt) : -1].tolist()


TEXT = st.text(max_size=12).map(str.strip)
CALLS = st.lists(
    st.dictionaries(TEXT, TEXT | st.integers() | st.none() | st.lists(TEXT, max_size=2), max_size=2), max_size=3
).map(lambda rows: tuple(ToolCall(f"call_{n}", f"tool{n}", row) for n, row in enumerate(rows, start=1)))


@settings(max_examples=200, deadline=None)
@given(content=TEXT, thinking=st.none() | TEXT, calls=CALLS, think=st.sampled_from([None, True, False]))
def test_what_is_rendered_parses_back(
    hermes: HermesFormat, content: str, thinking: str | None, calls: tuple[ToolCall, ...], think: bool | None
):
    if think is True and not thinking:
        thinking = "because"
    elif think is False:
        thinking = ""
    message = Message("assistant", content, thinking, calls)
    ids = _reply(hermes, message, think)
    parsed = hermes.parse(ids, think)
    assert parsed.message == message
    assert parsed.problems == ()
    assert parsed.stopped
    # Piece by piece, the same, and text never has to be taken back.
    parser = hermes.stream_parser(think)
    events = [event for token_id in ids for event in parser.push(token_id)] + parser.finish()
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == content
    assert "".join(e.text for e in events if isinstance(e, ThinkDelta)) == (thinking or "")
    assert tuple(e.call for e in events if isinstance(e, CallReady)) == calls
    assert events[-1] == Stop(hermes.stop_ids[0])


def test_events_come_as_soon_as_they_are_certain(hermes: HermesFormat):
    wire = '<think>\nAdd.\n</think>\n\nNow:\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|im_end|>'
    parser = hermes.stream_parser(first_call=4)
    seen: list[object] = []
    after_call: list[object] = []
    for token_id in _ids(hermes, wire):
        events = parser.push(token_id)
        seen += events
        if any(isinstance(event, CallReady) for event in events):
            after_call = events
    assert after_call == [CallReady(ToolCall("call_4", "f", {}))]
    assert isinstance(seen[0], ThinkDelta)
    assert seen[-1] == Stop(hermes.stop_ids[0])
    assert parser.push(1) == []
    assert parser.finish() == []


def test_multi_byte_text_streams_whole(hermes: HermesFormat):
    parser = hermes.stream_parser()
    texts = [e.text for i in _ids(hermes, "é 🙂中") for e in parser.push(i) if isinstance(e, TextDelta)]
    assert "".join(texts) == "é 🙂中"
    assert "\ufffd" not in "".join(texts)


GOOD_CALL = '{"name": "f", "arguments": {"x": 1}}'


@pytest.mark.parametrize(
    ("wire", "message", "problems"),
    [
        ("<think>\nhm", Message("assistant", "", "hm"), ("thinking never closed",)),
        ("<think>\nhm<|im_end|>", Message("assistant", "", "hm"), ("thinking never closed",)),
        (
            "<think>\na\n</think>\n\nb\n<think>\nc\n</think>\n\nd<|im_end|>",
            Message("assistant", "b\n\n\nd", "a\n\nc"),
            ("a second think block",),
        ),
        (
            "b<think>\nc\n</think><|im_end|>",
            Message("assistant", "b", "c"),
            ("thinking after the answer began",),
        ),
        ("b</think>c<|im_end|>", Message("assistant", "bc"), ("</think> without <think>",)),
        ("<think><think>x</think>y<|im_end|>", Message("assistant", "y", "x"), ("<think> inside thinking",)),
        (
            f"<think>x<tool_call>{GOOD_CALL}</tool_call><|im_end|>",
            Message("assistant", "", "x", (ToolCall("call_1", "f", {"x": 1}),)),
            ("a tool call inside thinking",),
        ),
        (
            "<tool_call>{nope}</tool_call><|im_end|>",
            Message("assistant"),
            ("a tool call that is no JSON: '{nope}'",),
        ),
        *(
            (
                f"<tool_call>{call}</tool_call><|im_end|>",
                Message("assistant"),
                (f"a tool call that is no JSON: {call!r}",),
            )
            # Python reads these, and no client could be sent them.
            for call in (f'{{"name": "f", "arguments": {{"x": {value}}}}}' for value in (r'"\ud800"', "1e999", "NaN"))
        ),
        (
            '<tool_call>["f"]</tool_call><|im_end|>',
            Message("assistant"),
            ("a tool call without just a name and arguments: '[\"f\"]'",),
        ),
        (
            '<tool_call>{"name": "f", "arguments": "{}"}</tool_call><|im_end|>',
            Message("assistant"),
            ('a tool call without just a name and arguments: \'{"name": "f", "arguments": "{}"}\'',),
        ),
        (
            f"<tool_call>{GOOD_CALL}",
            Message("assistant"),
            (f"a tool call never closed: {GOOD_CALL!r}",),
        ),
        (
            f"<tool_call>{GOOD_CALL}<tool_call>{GOOD_CALL}</tool_call>",
            Message("assistant", "", None, (ToolCall("call_1", "f", {"x": 1}),)),
            (f"a tool call never closed: {GOOD_CALL!r}",),
        ),
        (
            f"<tool_call>{GOOD_CALL}</tool_call>late<|im_end|>",
            Message("assistant", "late", None, (ToolCall("call_1", "f", {"x": 1}),)),
            ("text after a tool call",),
        ),
        ("</tool_call>x<|im_end|>", Message("assistant", "x"), ("</tool_call> without <tool_call>",)),
        (
            "a<tool_response>b<|im_start|>c<|im_end|>",
            Message("assistant", "abc"),
            ("unexpected control token <tool_response>", "unexpected control token <|im_start|>"),
        ),
        ("", Message("assistant"), ()),
        ("<think>\n\n</think>\n\nx<|im_end|>", Message("assistant", "x", ""), ()),
        ("x<|endoftext|>y", Message("assistant", "x"), ()),
    ],
)
def test_malformed_output_is_reported_and_read_as_well_as_it_can_be(
    hermes: HermesFormat, wire: str, message: Message, problems: tuple[str, ...]
):
    parsed = hermes.parse(_ids(hermes, wire))
    assert parsed.message == message
    assert parsed.problems == problems
    assert parsed.stopped == (wire.endswith("<|im_end|>") or "<|endoftext|>" in wire)


def test_a_call_nested_deeper_than_python_can_follow_is_malformed(hermes: HermesFormat):
    call = '{"name": "f", "arguments": {"x": ' + "[" * 600 + "]" * 600 + "}}"
    parsed = hermes.parse(_ids(hermes, f"<tool_call>{call}</tool_call><|im_end|>"))
    assert parsed.message == Message("assistant")
    (problem,) = parsed.problems
    assert problem.startswith("a tool call that is no JSON: ")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 399), max_size=40), st.sampled_from([None, True, False]))
def test_any_ids_parse_without_an_error(hermes: HermesFormat, ids: list[int], think: bool | None):
    parsed = hermes.parse(ids, think)
    assert parsed.message.content == parsed.message.content.strip()
    assert isinstance(json.dumps(parsed.message.to_json()), str)
    parser = hermes.stream_parser(think)
    events = [event for token_id in ids for event in parser.push(token_id)] + parser.finish()
    assert tuple(e.text for e in events if isinstance(e, Problem)) == parsed.problems
