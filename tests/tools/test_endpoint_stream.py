"""Answers of a remote model as they come, against a service on this machine."""

import asyncio
import time
from typing import Any

import pytest
from teacher_server import MODEL, Fault, TeacherServer, running

from gradus.conversation.formats.wire import TextDelta, ThinkDelta
from gradus.conversation.messages import Message
from gradus.core.errors import EndpointError
from gradus.tools.endpoint import ChatAnswer, ChatRequest
from gradus.tools.endpoint_settings import EndpointSettings
from gradus.tools.endpoint_stream import stream_chat

QUESTION = ChatRequest((Message("user", "How many ☃ are there?"),))
SAID: dict[str, Any] = {
    "content": "There are 12 ☃.",
    "reasoning_content": "3 times 4.",
    "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "calculator", "arguments": '{"expression": "3*4"}'}},
        {"id": "b", "type": "function", "function": {"name": "web_search", "arguments": '{"query": "☃"}'}},
    ],
}


def streamed(server: TeacherServer, most: int | None = None, **settings: Any) -> list[Any]:
    """Up to so many pieces, then it is closed."""

    async def gather() -> list[Any]:
        found: list[Any] = []
        pieces = stream_chat(EndpointSettings(base_url=server.base_url, model=MODEL, **settings), QUESTION)
        async for piece in pieces:
            found.append(piece)
            if len(found) == most:
                await pieces.aclose()
                break
        return found

    return asyncio.run(gather())


def test_pieces_come_as_they_are_said_and_the_whole_answer_last() -> None:
    with running(lambda body: SAID) as server:
        *pieces, answer = streamed(server, temperature=0.5, max_tokens=77)
    assert "".join(piece.text for piece in pieces if isinstance(piece, ThinkDelta)) == "3 times 4."
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)) == "There are 12 ☃."
    assert len(pieces) == 4 + 5
    assert isinstance(answer, ChatAnswer)
    assert (answer.message.content, answer.message.reasoning_content) == ("There are 12 ☃.", "3 times 4.")
    assert [(call.id, call.name, call.arguments) for call in answer.message.tool_calls] == [
        ("a", "calculator", {"expression": "3*4"}),
        ("b", "web_search", {"query": "☃"}),
    ]
    assert answer.finish_reason == "tool_calls"
    assert answer.usage.output_tokens > 0
    (body,) = server.requests
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert (body["temperature"], body["max_tokens"]) == (0.5, 77)


def test_the_first_piece_does_not_wait_for_the_last_and_closing_ends_the_answer() -> None:
    with running(lambda body: "x" * 30_000) as server:
        server.event_delay = 0.05
        began = time.monotonic()
        assert len(streamed(server, most=2)) == 2
        # All of it would take 500 seconds.
        assert time.monotonic() - began < 250


def test_a_service_that_does_not_stream_is_understood() -> None:
    body = '{"choices": [{"message": {"role": "assistant", "content": "Hm.", "reasoning": "So."}}], "usage": null}'
    with running() as server:
        server.faults = [Fault(body=body)]
        think, text, answer = streamed(server)
    assert (think, text) == (ThinkDelta("So."), TextDelta("Hm."))
    assert (answer.message.content, answer.finish_reason) == ("Hm.", "stop")


def test_line_separators_inside_a_text_end_no_event() -> None:
    body = 'data: {"choices": [{"delta": {"content": "a\u2028b\x85c"}, "finish_reason": "stop"}]}\r\n\r\n'
    with running() as server:
        server.faults = [Fault(headers={"Content-Type": "text/event-stream"}, body=body)]
        assert streamed(server)[0] == TextDelta("a\u2028b\x85c")


def test_halves_of_a_character_are_joined_and_one_alone_is_replaced() -> None:
    pieces = [r"\ud83d", r"\ude00 and \ud83d", "x"]
    events = [
        f'data: {{"choices": [{{"delta": {{"content": "{piece}"}}, "finish_reason": "stop"}}]}}' for piece in pieces
    ]
    with running() as server:
        server.faults = [Fault(headers={"Content-Type": "text/event-stream"}, body="\n\n".join([*events, ""]))]
        *texts, answer = streamed(server)
    assert [piece.text for piece in texts] == ["", "😀 and ", "\ufffdx"]
    assert answer.message.content == "😀 and \ufffdx"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(status=401), "refuses the key"),
        (Fault(status=404), 'does not know the model or the address.*did you mean "teacher-1"'),
        (Fault(status=429, headers={"Retry-After": "7"}), "rate_limit"),
        (Fault(status=400), "status 400"),
        (Fault(status=503), "status_503"),
        (Fault(drop=True), "no connection"),
        (Fault(cut=4), "no connection"),
        (
            Fault(change=lambda completion: completion.update(model="other")),
            'asked for "teacher-1", answered by "other"',
        ),
        (Fault(headers={"Content-Type": "text/event-stream"}, body='data: {"error": {"message": "boom"}}\n\n'), "boom"),
        (Fault(headers={"Content-Type": "text/event-stream"}, body="data: {\n\n"), "truncated_json"),
        (Fault(headers={"Content-Type": "text/event-stream"}, body=""), "it ended before the answer did"),
        (Fault(silent_seconds=1.0), "silent for 0.3 s"),
    ],
)
def test_what_goes_wrong_is_told_at_once(fault: Fault, message: str) -> None:
    with running() as server:
        server.faults = [fault]
        with pytest.raises(EndpointError, match=message):
            # A busy machine may take a while for the others.
            streamed(server, timeout_seconds=0.3 if fault.silent_seconds else 30.0)
        assert len(server.requests) == 1
