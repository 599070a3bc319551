"""Clients as they are: curl, and what others were seen to send, told again without them."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from small_server import CHAT, Running, body, folded, serving

from gradus.conversation.calculator_marks import CALCULATOR as SCHEMA
from gradus.engine.turn import Request
from gradus.serve.searching import read_chat

CALCULATOR = {"type": "function", "function": SCHEMA.to_json()}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sees_a_stream_as_it_is_made(running: Running) -> None:
    asked = {"model": "small", "messages": [{"role": "user", "content": "coffee?"}], "stream": True, "temperature": 0}
    words = ["curl", "-sN", f"{running.url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    done = subprocess.run([*words, "-d", json.dumps(asked)], capture_output=True, text=True, check=True, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    got = folded([json.loads(line[6:]) for line in lines[:-1]])
    assert (got["reasoning_content"], got["content"]) == ("I think of ☕ first.", "café ☕ déjà vu")


# As Open WebUI 0.12.4 sends them to a connection whose key is "none".
WEBUI = {"Authorization": "Bearer none", "Content-Type": "application/json", "Accept-Encoding": "gzip, deflate, br"}


def test_open_webui_lists_streams_has_its_own_tool_called_and_asks_for_a_title(running: Running) -> None:
    models = running.http.get("/v1/models", headers=WEBUI).json()["data"]
    assert [model["id"] for model in models] == ["small"]
    chosen = {
        "stream": True, "model": "small", "temperature": 0, "seed": 3, "max_tokens": 200, "top_k": 20, "min_p": 0.05,
        "repeat_penalty": 1, "frequency_penalty": 0, "stop": ["@@"], "chat_template_kwargs": {"enable_thinking": True},
        "tools": [CALCULATOR],
    }  # fmt: skip
    question = {"role": "user", "content": "what is 12 * 3?"}
    called = folded(sent(running, chosen | {"messages": [question]}))
    assert (called["finish"], called["tool_calls"][0]["arguments"]) == (["tool_calls"], '{"expression": "12 * 3"}')
    # It writes the arguments anew, has no thinking in what it sends back, and its text is empty.
    call = {"id": "call_1", "type": "function"}
    call |= {"function": {"name": "calculator", "arguments": '{"expression":"12 * 3"}'}}
    turns = [question, {"role": "assistant", "content": "", "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "call_1", "content": "36"})
    assert folded(sent(running, chosen | {"messages": turns}))["finish"]
    title = {"role": "user", "content": "### Task:\nA title.\n<chat_history>\nUSER: hello\nASSISTANT: \n"}
    told = running.http.post(CHAT, json={"model": "small", "messages": [title], "stream": False, "max_tokens": 1000})
    assert isinstance(told.json()["choices"][0]["message"]["content"], str)
    both = running.http.post(CHAT, json=chosen | {"messages": [question], "repetition_penalty": 1}).json()["error"]
    assert (both["param"], "repetition_penalty" in both["message"]) == ("repeat_penalty", True)


def sent(running: Running, given: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a streamed answer to Open WebUI."""
    with running.http.stream("POST", CHAT, json=given, headers=WEBUI) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream"), reply.read()
        lines = [line for line in reply.iter_lines() if line]
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_the_servers_tools_are_run_for_who_knows_nothing_of_them_and_for_nobody_else(load: Any) -> None:
    think = {"chat_template_kwargs": {"enable_thinking": True}}
    with serving(load, run_tools=("calculator",)) as found:
        reply = found.chat("what is 12 * 3?", **think).json()["choices"][0]
        assert (reply["message"]["content"], reply["finish_reason"]) == ("12 * 3 = 36.", "stop")
        assert folded(found.stream("what is 12 * 3?", **think))["content"] == "12 * 3 = 36."
        asked = {"model": "small", "input": "what is 12 * 3?", "temperature": 0}
        response = found.http.post("/v1/responses", json=asked | {"gradus": None}).json()
        assert response["tools"] == []
        for other in ({"gradus": {"think": True}}, {"tools": [CALCULATOR]} | think, {"tool_choice": "none"} | think):
            message = found.chat("what is 12 * 3?", **other).json()["choices"][0]["message"]
            assert "36" not in (message["content"] or ""), other


def test_strict_tools_are_held_to_their_schemas_and_a_single_call_is_one(running: Running) -> None:
    """As openai-agents and pydantic-ai declare tools, and LangChain asks for one call."""
    function = CALCULATOR["function"]
    strict = {"type": "function", "function": function | {"strict": True}}
    model = running.state.models.find("small")
    for given, constrain in (([strict], "calls"), ([CALCULATOR], None)):
        asked = read_chat(body("two sums", tools=given), model, running.state.settings)
        assert [request.constrain for request in asked.requests if isinstance(request, Request)] == [constrain]
    both = folded(running.stream("two sums", tools=[strict]))
    assert [call["arguments"] for call in both["tool_calls"].values()] == [
        '{"expression": "1 + 1"}', '{"expression": "2 + 2"}',
    ]  # fmt: skip
    one = {"tools": [strict], "parallel_tool_calls": False}
    assert [*folded(running.stream("two sums", **one))["tool_calls"].values()] == [both["tool_calls"][0]]
    assert len(running.chat("two sums", **one).json()["choices"][0]["message"]["tool_calls"]) == 1
    items = {"model": "small", "input": "two sums", "temperature": 0, "parallel_tool_calls": False}
    items |= {"tools": [{"type": "function", "strict": True} | function]}
    told = running.http.post("/v1/responses", json=items).json()
    assert [item["type"] for item in told["output"]] == ["message", "function_call"]
    assert (told["parallel_tool_calls"], told["tools"][0]["strict"]) == (False, True)
    # The AI SDK refers to what it takes to be stored, unless it is told otherwise.
    refused = running.http.post("/v1/responses", json=items | {"input": [{"type": "item_reference", "id": "rs_1"}]})
    assert '"store": false' in refused.json()["error"]["message"]


def test_a_reply_of_the_servers_tools_that_is_sent_back_is_read_as_what_was_said(running: Running) -> None:
    """As openai's client does with `messages.append(reply.choices[0].message)`, and LiteLLM with notes of its own."""
    asked = {"gradus": {"tools": ["calculator"], "think": True}}
    question, thanks = {"role": "user", "content": "what is 12 * 3?"}, {"role": "user", "content": "thanks"}
    message = running.chat("what is 12 * 3?", **asked).json()["choices"][0]["message"]
    call = {"id": "call_1", "type": "function"}
    call |= {"function": {"name": "calculator", "arguments": '{"expression": "12 * 3"}'}}
    said = [
        {"role": "assistant", "reasoning_content": message["reasoning_content"], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "36"},
        {"role": "assistant", "content": "12 * 3 = 36."},
    ]

    def tokens(*messages: dict[str, Any]) -> Any:
        given = {"model": "small", "messages": [question, *messages, thanks]}
        return running.http.post("/tokenize", json=given).json()

    assert tokens(message)["tokens"] == tokens(*said)["tokens"]
    assert tokens(said[2] | {"provider_specific_fields": {"a": 1}}) == tokens(said[2])
    # A call that nobody answered is left out; what is no reply of ours is refused.
    unanswered = {"role": "assistant", "content": "so", "gradus": {"events": message["gradus"]["events"][:1]}}
    assert tokens(unanswered) == tokens({"role": "assistant", "content": "so"})
    assert tokens(said[2] | {"gradus": None}) == tokens(said[2])
    listed = {"type": "tool_result", "tool_call_id": ["call_1"], "content": "36"}
    for odd in ({"events": 5}, {"events": [5]}, [1], {"events": [listed]}, {"events": [{"type": [], "id": "call_1"}]}):
        error = tokens({"role": "assistant", "content": "so", "gradus": odd})["error"]
        assert (error["param"], "as a reply had it" in error["message"]) == ("messages[1].gradus", True)
    # Errors tell of messages by their places in the request.
    for wrong, told in (
        ({"role": "user", "content": 5}, "messages[2].content: expected text, found 5"),
        ({"role": "tool", "tool_call_id": "call_9", "content": "1"}, "messages[2]: no open call 'call_9'"),
    ):
        assert tokens(message, wrong)["error"]["message"] == told
    # As many messages as they tell of.
    events = message["gradus"]["events"] * 600
    error = tokens({"role": "assistant", "content": "so", "gradus": {"events": events}})["error"]
    assert error["message"] == "1,203 messages, and at most 1,024 are taken"
