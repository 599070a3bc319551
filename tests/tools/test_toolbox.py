"""The toolbox: schemas for the model, and calls answered or refused as text."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from gradus.conversation.messages import Message, ToolCall, ToolSchema
from gradus.conversation.validate import call_faults
from gradus.core.errors import ConfigError
from gradus.tools import running as tool_calls
from gradus.tools.deadline import Deadline
from gradus.tools.running import Answer
from gradus.tools.toolbox import TOOLS, Budget, Tool, ToolBox


def _run(name: str, arguments: dict[str, object]) -> str:
    message = ToolBox().run(ToolCall("call_7", name, arguments))
    assert message == Message("tool", message.content, tool_call_id="call_7")
    return message.content


def test_a_call_of_the_calculator_is_answered():
    assert _run("calculator", {"expression": "17 * 45"}) == "765"


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("calculator", {"expression": "1/0"}, "error: division by zero"),
        ("calculator", {}, "error: missing argument 'expression'"),
        (
            "calculator",
            {"expression": "1", "expresion": "2"},
            "error: unknown argument 'expresion'; did you mean \"expression\"?",
        ),
        ("calculator", {"expression": 5}, "error: argument 'expression' must be text"),
        ("calculater", {"expression": "1"}, "error: unknown tool 'calculater'; did you mean \"calculator\"?"),
    ],
)
def test_what_goes_wrong_becomes_the_result(name: str, arguments: dict[str, object], text: str):
    assert _run(name, arguments) == text


def test_schemas_are_given_by_name():
    (schema,) = ToolBox().schemas(["calculator"])
    assert schema.name == "calculator"
    assert list(schema.parameters["properties"]) == ["expression"]
    assert call_faults(ToolCall("1", "calculator", {"expression": "1"}), {"calculator": schema}) == []
    with pytest.raises(ConfigError, match='unknown tool "calc"; known are calculator; did you mean "calculator"'):
        ToolBox().schemas(["calc"])


def test_a_toolbox_holds_the_tools_it_is_given():
    assert ToolBox().names == ("calculator",)
    assert ToolBox({}).names == ()
    assert ToolBox({}).run(ToolCall("1", "calculator", {})).content == "error: unknown tool 'calculator'"


def _tool(name: str, answer: Answer, timeout_seconds: float = 120.0) -> Tool:
    return Tool(ToolSchema(name, name, {"type": "object", "properties": {}}), answer, timeout_seconds)


def _calls(*names: str) -> list[ToolCall]:
    return [ToolCall(f"call_{number}", name, {}) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("schema", "arguments", "text"),
    [
        ({"properties": {"n": {"type": "integer"}}}, {"n": 3}, "ran"),
        ({"properties": {"n": {"type": "integer"}}}, {"n": "3"}, "error: n: '3' is not of type 'integer'"),
        ({"properties": {"n": True}}, {"n": []}, "ran"),
        ({"properties": {"n": {"type": "string", "enum": ["a"]}}}, {"n": "b"}, "error: n: 'b' is not one of ['a']"),
        ({"properties": {}, "additionalProperties": True}, {"free": 1}, "ran"),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"b": 1}, "ran"),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"c": 1}, "error: {'c': 1} is not valid under any"),
        ({"properties": {"n": {"$ref": "https://evil.example/schema"}}}, {"n": 1}, "error: "),
    ],
)
def test_arguments_are_held_to_any_json_schema(schema: dict[str, Any], arguments: dict[str, Any], text: str):
    tool = Tool(ToolSchema("t", "t", {"type": "object", **schema}), lambda arguments, deadline: "ran", instant=True)
    assert ToolBox({"t": tool}).run(ToolCall("c", "t", arguments)).content.startswith(text)


def test_calls_run_at_the_same_time_and_are_answered_in_their_order():
    together = threading.Barrier(3)

    def meet(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        return f"met {together.wait(deadline.seconds_left()) in range(3)}"

    done = threading.Event()
    running = ToolBox({"meet": _tool("meet", meet), **TOOLS}).start(
        [*_calls("meet", "meet", "meet"), ToolCall("sum", "calculator", {"expression": "2 + 2"})], on_done=done.set
    )
    assert done.wait(120)
    assert running.done
    assert [message.content for message in running.results()] == ["met True"] * 3 + ["4"]
    assert [message.tool_call_id for message in running.results()] == ["call_0", "call_1", "call_2", "sum"]


def test_a_call_that_takes_too_long_is_an_error_and_what_it_says_later_is_dropped():
    go_on, over = threading.Event(), threading.Event()

    def wait(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        go_on.wait(120)
        over.set()
        return "too late"

    box = ToolBox({"slow": _tool("slow", wait, 0.05), "quick": _tool("quick", lambda arguments, deadline: "here")})
    running = box.start(_calls("quick", "slow"))
    assert [message.content for message in running.results()] == ["here", "error: it took longer than 0.05 s"]
    go_on.set()
    assert over.wait(120)
    assert running.results()[1].content == "error: it took longer than 0.05 s"


def test_cancelled_calls_end_at_once_and_a_tool_that_looks_is_told():
    told = threading.Event()

    def look(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        try:
            while deadline.seconds_left():
                time.sleep(0.005)
        finally:
            told.set()
        return "never"

    done: list[bool] = []
    running = ToolBox({"look": _tool("look", look)}).start(_calls("look"), on_done=lambda: done.append(True))
    assert not running.wait(0.02)
    running.cancel()
    assert running.results()[0].content == "error: cancelled"
    assert told.wait(120)
    running.cancel()
    assert done == [True]


def test_a_call_that_is_cancelled_before_its_turn_is_never_run(monkeypatch):
    monkeypatch.setattr(tool_calls, "_threads", slots := threading.BoundedSemaphore(1))
    slots.acquire()
    ran: list[bool] = []

    def run(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        ran.append(True)
        return "ran"

    running = ToolBox({"t": _tool("t", run)}).start(_calls("t"))
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "tool t"]
    running.cancel()
    slots.release()
    thread.join(120)
    assert not thread.is_alive()
    assert ran == []


def test_instant_tools_have_no_thread_and_are_answered_before_start_returns():
    before = threading.active_count()
    running = ToolBox().start([ToolCall("a", "calculator", {"expression": "1 + 1"}), ToolCall("b", "clock", {})])
    assert running.done
    assert threading.active_count() == before
    assert [message.content for message in running.results()] == ["2", "error: unknown tool 'clock'"]
    assert ToolBox().start([]).results() == []


def test_a_tool_that_breaks_leaves_nobody_waiting_and_is_not_silent(monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: told.set())

    def broken(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        raise RuntimeError("a bug")

    assert ToolBox({"t": _tool("t", broken)}).start(_calls("t")).results()[0].content == "error: the tool broke"
    assert told.wait(120)


def test_halves_of_characters_in_a_result_are_no_trouble_to_whoever_encodes_it():
    box = ToolBox({"odd": _tool("odd", lambda arguments, deadline: "a\ud800b")})
    assert [message.content for message in box.start(_calls("odd")).results()] == ["a?b"]


def test_a_conversation_has_a_budget_of_calls_and_of_result_text():
    box = ToolBox(budget=Budget(calls=2, characters=10))
    sums = [ToolCall(str(n), "calculator", {"expression": f"{n} + 1"}) for n in range(3)]
    spent = "error: all 2 tool calls of this conversation are spent; answer with what is known"
    assert [message.content for message in box.start(sums).results()] == ["1", "2", spent]
    before = [Message("user", "x" * 50), Message("tool", "12345678901", tool_call_id="0")]
    assert "room for tool results" in box.start(sums[:1], before).results()[0].content
