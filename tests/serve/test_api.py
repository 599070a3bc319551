"""What clients of the API get: the same answers as from the engine, in every way of asking, or a refusal by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from small_server import CHAT, Running, body, folded

from gradus.conversation.messages import Conversation, Message
from gradus.engine.continuation import continue_texts
from gradus.engine.engine import Engine
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.sampling import Sampling
from gradus.engine.turn import Request
from gradus.serve.completions import text_logprobs

CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluates arithmetic.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def engine(memorised: Any) -> Engine:
    return memorised[0]


def test_a_reply_is_the_engines_own_whole_and_streamed_at_every_seed(running: Running, engine: Engine) -> None:
    for given in ({}, {"seed": 3, "temperature": 2.5, "top_k": 40, "max_tokens": 20}, {"seed": -1, "temperature": 1.5}):
        rule = Sampling(
            temperature=given.get("temperature", 0.0), top_k=given.get("top_k"), seed=given.get("seed", 0) % 2**64
        )
        request = Request(
            Conversation((Message("user", "coffee?"),)), sampling=rule, max_tokens=given.get("max_tokens", 4096)
        )
        (expected,) = engine.generate([request])
        said = expected.turn.messages[0]
        whole = running.chat("coffee?", **given).json()
        message = whole["choices"][0]["message"]
        assert (message["content"], message.get("reasoning_content")) == (said.content, said.reasoning_content)
        assert whole["choices"][0]["finish_reason"] == expected.finish_reason
        assert whole["usage"]["completion_tokens"] == expected.num_tokens
        assert whole["usage"]["prompt_tokens"] == expected.num_prompt_tokens
        chunks = running.stream("coffee?", **given, stream_options={"include_usage": True})
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"] == whole["usage"]
        assert chunks[-1]["gradus"]["timings"]["seconds"] > 0
        got = folded(chunks)
        assert got["content"] == said.content
        assert (got["reasoning_content"] or None) == said.reasoning_content
        assert got["finish"] == [expected.finish_reason]


def test_tools_of_the_server_are_run_and_told_as_events_and_calls_of_the_clients_end_the_reply(
    running: Running, engine: Engine
) -> None:
    run = {"gradus": {"tools": ["calculator"], "think": True}}
    called = {"type": "tool_call", "id": "call_1", "name": "calculator", "arguments": {"expression": "12 * 3"}}
    result = {"type": "tool_result", "tool_call_id": "call_1", "content": "36", "error": False}
    got = folded(running.stream("what is 12 * 3?", **run))
    assert (got["content"], got["events"], got["finish"]) == ("12 * 3 = 36.", [called, result], ["stop"])
    message = running.chat("what is 12 * 3?", **run).json()["choices"][0]["message"]
    assert (message["content"], message["gradus"]["events"]) == ("12 * 3 = 36.", [called, result])

    own = {"tools": [tool_of(engine)], "chat_template_kwargs": {"enable_thinking": True}}
    got = folded(running.stream("what is 12 * 3?", **own))
    assert got["tool_calls"] == {0: {"id": "call_1", "name": "calculator", "arguments": '{"expression": "12 * 3"}'}}
    assert (got["events"], got["finish"]) == ([], ["tool_calls"])
    choice = running.chat("what is 12 * 3?", **own).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    # The client sends back what it got, with its result; another order of results is put right.
    messages = [body("what is 12 * 3?")["messages"][0], choice["message"]]
    messages.append({"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "36"}]})
    reply = running.http.post(CHAT, json=body("") | own | {"messages": messages}).json()
    assert reply["choices"][0]["message"]["content"] == "12 * 3 = 36."


def tool_of(engine: Engine) -> dict[str, Any]:
    """The calculator as a client declares it, in the words that the model knows."""
    (tool,) = engine.toolbox.schemas(["calculator"])
    return {"type": "function", "function": tool.to_json()}


def test_several_answers_and_log_probabilities_are_the_engines(running: Running, engine: Engine) -> None:
    given = {"n": 3, "seed": 5, "temperature": 1.5, "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    ask = Request(Conversation((Message("user", "hello"),)), max_tokens=12, logprobs=2)
    replies = engine.generate([replace(ask, sampling=Sampling(temperature=1.5, seed=5 + n)) for n in range(3)])
    whole = running.chat(**given).json()
    chunks = running.stream(**given)
    assert whole["usage"]["completion_tokens"] == sum(reply.num_tokens for reply in replies)
    assert whole["usage"]["prompt_tokens"] == replies[0].num_prompt_tokens
    for place, reply in enumerate(replies):
        told = whole["choices"][place]["logprobs"]["content"]
        assert [one["logprob"] for one in told] == pytest.approx([one.logprob for one in reply.logprobs], abs=1e-5)
        assert [len(one["top_logprobs"]) for one in told] == [2] * reply.num_tokens
        assert folded(chunks, place)["content"] == whole["choices"][place]["message"]["content"]
        last = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["index"] == place][-1]
        assert [one["token"] for one in last["content"]] == [one["token"] for one in told]


def test_a_character_that_tokens_share_is_counted_once(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    single = {tokenizer.decode_bytes([token]): token for token in range(256)}
    parts = [b"a", *(bytes([byte]) for byte in "\N{GRINNING FACE}".encode()), b"b", b"\xff", b"c"]
    told = text_logprobs([TokenLogprobs(single[part], -1.0) for part in parts], tokenizer)
    text = b"".join(parts).decode("utf-8", "replace")
    assert told["text_offset"] == [0, 1, 1, 1, 1, 2, 3, 4]
    assert [text[told["text_offset"][place]] for place in (0, 1, 5, 6, 7)] == [
        "a",
        "\N{GRINNING FACE}",
        "b",
        "\ufffd",
        "c",
    ]


def test_text_is_gone_on_from_and_tokens_are_told(running: Running, engine: Engine) -> None:
    rule = Sampling(temperature=0.0)
    texts = ["Hello", "They are"]
    expected = continue_texts(engine.model, engine.tokenizer, texts, rule, 9)
    given = {"model": "small", "prompt": texts, "max_tokens": 9, "temperature": 0, "logprobs": 1}
    whole = running.http.post("/v1/completions", json=given).json()
    assert [choice["text"] for choice in whole["choices"]] == expected
    told = whole["choices"][0]["logprobs"]
    assert len(told["tokens"]) == len(told["text_offset"]) == 9
    tokens = running.http.post("/tokenize", json={"model": "small", "prompt": "Hello"}).json()
    assert tokens == {"tokens": engine.tokenizer.encode("Hello"), "count": tokens["count"], "max_model_len": 512}
    # More tokens than the context holds are counted; what no tokens could make fit is refused before it is encoded.
    longer = running.http.post("/tokenize", json={"model": "small", "prompt": "zq" * 400}).json()
    assert longer["count"] == len(engine.tokenizer.encode("zq" * 400)) > 512
    for path in ("/tokenize", "/v1/completions"):
        error = running.http.post(path, json={"model": "small", "prompt": "long " * 400_000}).json()["error"]
        assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
        assert "holds at least" in error["message"]
    end = engine.tokenizer.special("<|endoftext|>")
    with running.http.stream(
        "POST", "/v1/completions", json=given | {"prompt": [end, *tokens["tokens"]], "stream": True}
    ) as reply:
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    prompt = body("hello", gradus={"think": False})
    rendered = engine.open_turn(Request(Conversation((Message("user", "hello"),)), think=False)).prompt_ids
    assert running.http.post("/tokenize", json=prompt).json()["tokens"] == rendered


def test_a_response_is_told_as_items_whose_events_build_it(running: Running, engine: Engine) -> None:
    tool = {"type": "function", **tool_of(engine)["function"]}
    given = {"model": "small", "input": "what is 12 * 3?", "temperature": 0, "tools": [tool], "gradus": {"think": True}}
    whole = running.http.post("/v1/responses", json=given).json()
    thought, call = whole["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "The calculator knows 12 * 3."}]
    assert (call["type"], call["name"], call["arguments"]) == (
        "function_call",
        "calculator",
        '{"expression": "12 * 3"}',
    )
    assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 5
    items = [{"role": "user", "content": "what is 12 * 3?"}, thought, call]
    items.append({"type": "function_call_output", "call_id": call["call_id"], "output": "36"})
    with running.http.stream("POST", "/v1/responses", json=given | {"input": items, "stream": True}) as reply:
        lines = list(reply.iter_lines())
    names = [line[7:] for line in lines if line.startswith("event: ")]
    assert names[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert set(names[4:-4]) == {"response.output_text.delta"}
    assert names[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event.get("delta", "") for event in events) == "12 * 3 = 36."
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "12 * 3 = 36."
    assert events[-1]["response"]["status"] == "completed"


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else []


def big_tool(schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    """A tool with one argument of this schema."""
    parameters = {"type": "object", "properties": {"a": schema}}
    return {"type": "function", "function": {"name": "f", "description": description, "parameters": parameters}}


def called(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """A conversation with an answered call."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps(arguments)}}
    return [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
    ({"logit_bias": {"1": 5}}, "logit_bias", "not supported"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "gradus.think"),
    ({"temprature": 1}, "temprature", 'did you mean "temperature"'),
    ({"temperature": -1}, "temperature", "at least 0"),
    ({"temperature": 1e-300}, "temperature", "0, or at least"),
    ({"x" * 500_000: 1}, "x" * 100, "unknown key"),
    ({"metadata": nested(65)}, None, "nested more than 64 deep"),
    ({"tools": [CALCULATOR] * 129}, "tools", "at most 128"),
    ({"tools": [big_tool({"allOf": [{}] * 2000})]}, "tools", "2,003 JSON objects in the parameters"),
    ({"messages": [{"role": "user", "content": " " * 2_000_000}]}, "messages", "at least"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}] * 1025}]}, "messages", "1,025 tool calls"),
    ({"temperature": "hot"}, "temperature", "expected a number"),
    ({"max_tokens": 10**9}, "max_tokens", "at most 4,096"),
    ({"n": 100}, "n", "at most 8"),
    ({"stop": [""]}, "stop", "1 to 256"),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
    ({"gradus": {"tools": ["claculator"]}}, "gradus.tools", 'did you mean "calculator"'),
    ({"gradus": {"tools": ["calculator"]}, "tools": [CALCULATOR]}, "tools", "rename yours"),
    ({"gradus": {"think": True}, "reasoning_effort": "none"}, "gradus.think", "contradict"),
    ({"tools": [CALCULATOR, CALCULATOR]}, "tools", "one name"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "function"),
    ({"messages": []}, "messages", "at least 1"),
    (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "messages[1].role",
        "last",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "image_url"),
    ({"messages": [{"role": "user", "name": "Al", "content": "x"}]}, "messages[0].name", "not supported"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "tool_call_id"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages", "king"),
    ({"messages": [{"role": "user", "content": "long " * 600}]}, "messages", "context is 512"),
    ({"model": "smal"}, "model", 'did you mean "small"'),
    ({"gradus": {"tools": ["calculator"] * 2}}, "gradus.tools", "names a tool twice"),
    # Told before schemas are looked at and remembered, and before anything is encoded: "at least".
    ({"tools": [big_tool({"enum": list(range(9_000))})]}, "messages", "holds at least"),
    ({"tools": [big_tool({}, "long " * 9_000)]}, "messages", "holds at least"),
    ({"messages": called({"expression": "1 + " * 9_000})}, "messages", "holds at least"),
]


def test_what_cannot_be_honoured_is_refused_by_its_name(running: Running) -> None:
    for given, param, words in REFUSED:
        reply = running.chat(**given)
        error = reply.json()["error"]
        assert reply.status_code == (404 if given.get("model") else 400), given
        assert (error["param"], error["type"]) == (param, "invalid_request_error"), (given, error)
        assert words in error["message"], error
    neutral = {"presence_penalty": 0, "logit_bias": None, "parallel_tool_calls": True, "store": False, "user": "me"}
    neutral |= {"n": 1, "max_tokens": 2, "tool_choice": "auto", "response_format": {"type": "text"}}
    assert running.chat(**neutral).status_code == 200
    refused = running.http.post("/v1/responses", json={"model": "small", "input": "x", "previous_response_id": "r"})
    assert refused.json()["error"]["param"] == "previous_response_id"
    searching = {"model": "small", "input": "x", "gradus": {"search": "force"}}
    assert running.http.post("/v1/responses", json=searching).json()["error"]["param"] == "gradus.search"
    items = [{"type": "reasoning", "content": 5}]
    refused = running.http.post("/v1/responses", json={"model": "small", "input": items})
    assert refused.json()["error"]["param"] == "input[0].content"
    refused = running.http.post("/v1/completions", json={"model": "small", "prompt": "x", "echo": True})
    assert refused.json()["error"]["param"] == "echo"


def test_bodies_that_are_none_are_refused_and_models_are_listed(running: Running) -> None:
    json_type = {"Content-Type": "application/json"}
    for data in (b"", b"{", b"[1]", b'{"model": NaN}', b'{"a": "\\ud800"}', b"\xff", b"[" * 100_000, b'{"model": 3}'):
        reply = running.http.post(CHAT, content=data, headers=json_type)
        assert reply.status_code == 400, data
        assert reply.json()["error"]["type"] == "invalid_request_error"
    assert running.http.post(CHAT, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert running.http.post(CHAT, content=b" " * (4 * 2**20 + 1), headers=json_type).status_code == 413
    assert running.http.get(CHAT).status_code == 405
    assert running.http.get("/nowhere").json()["error"]["message"] == "there is nothing at /nowhere"
    (listed,) = running.http.get("/v1/models").json()["data"]
    assert listed == running.http.get("/v1/models/small").json()
    assert listed["gradus"] | {"fingerprint": ""} == {
        "stage": "up", "kind": "sft", "label": "made/up", "fingerprint": "", "context": 512, "tools": ["calculator"],
        "thinks": True, "default": True,
    }  # fmt: skip
    assert running.http.get("/health").json() == {"status": "ok", "models": 1}
    assert running.http.get("/config.json").json() == {"title": "gradus", "needs_key": False, "models_url": "/v1"}
    metrics = running.http.get("/metrics").text
    assert 'gradus_slots{model="small"} 4.0' in metrics
    assert 'gradus_requests_total{path="other",status="404"} 1.0' in metrics
