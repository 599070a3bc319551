"""Forced calls and JSON answers over HTTP: whole, streamed, as items, and what is refused of them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from small_server import Running, folded

from gradus.conversation.calculator_marks import CALCULATOR as SCHEMA

pytest.importorskip("llguidance", reason='constrained decoding needs pip install "gradus[engine]"')
pytestmark = pytest.mark.usefixtures("one_thread")

CALCULATOR = {"type": "function", "function": SCHEMA.to_json()}
PARAMETERS = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,5}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["tea", "coffee ☕"]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    inner = {"mode": mode, "tools": [named(name) for name in names]}
    return {"type": "allowed_tools", "allowed_tools": inner}


@pytest.mark.parametrize("think", [None, True, False])
@pytest.mark.parametrize("choice", ["required", named("weather"), allowed("required", "weather")])
def test_a_call_is_forced_whole_and_streamed(running: Running, choice: Any, think: bool | None) -> None:
    asked = {"tools": [CALCULATOR, WEATHER], "tool_choice": choice, "temperature": 1.0, "max_tokens": 400}
    asked["gradus"] = {"think": think, "think_budget": 8}
    for seed in range(2):
        whole = running.chat("hello", seed=seed, **asked).json()["choices"][0]
        streamed = folded(running.stream("hello", seed=seed, **asked))
        assert (whole["finish_reason"], streamed["finish"]) == ("tool_calls", ["tool_calls"])
        assert (whole["message"]["content"], streamed["content"]) == (None, "")
        calls = [call["function"] for call in whole["message"]["tool_calls"]]
        assert calls == [{k: call[k] for k in ("name", "arguments")} for call in streamed["tool_calls"].values()]
        for call in calls:
            judge = {"calculator": SCHEMA.parameters, "weather": PARAMETERS}[call["name"]]
            jsonschema.validate(json.loads(call["arguments"]), judge)
            assert choice == "required" or call["name"] == "weather"


def test_one_call_is_forced_where_no_more_may_be_and_none_where_none_may(running: Running) -> None:
    asked = {"tools": [CALCULATOR, WEATHER], "temperature": 1.0}
    for seed in range(4):
        one = asked | {"tool_choice": "required", "parallel_tool_calls": False, "seed": seed}
        assert len(running.chat("two sums", **one).json()["choices"][0]["message"]["tool_calls"]) == 1
    none = running.chat("two sums", tools=[CALCULATOR], tool_choice="none").json()["choices"][0]
    assert "tool_calls" not in none["message"]
    # What may not be called is not, and what may be need not be.
    only = {"tools": [CALCULATOR, WEATHER], "tool_choice": allowed("auto", "weather")}
    for text in ("two sums", "hello"):
        calls = running.chat(text, **only, max_tokens=60).json()["choices"][0]["message"].get("tool_calls", [])
        assert {call["function"]["name"] for call in calls} <= {"weather"}


def test_a_tool_of_the_servers_is_forced_once_and_its_result_is_answered(running: Running) -> None:
    asked = {"gradus": {"tools": ["calculator"], "think": True}}
    for choice in ("required", named("calculator")):
        got = running.chat("what is 12 * 3?", tool_choice=choice, **asked).json()["choices"][0]
        assert (got["finish_reason"], got["message"]["content"]) == ("stop", "12 * 3 = 36.")
        assert [event["type"] for event in got["message"]["gradus"]["events"]] == ["tool_call", "tool_result"]


@pytest.mark.parametrize("think", [None, True, False])
def test_a_reply_is_json_of_the_schema_behind_its_thinking(running: Running, think: bool | None) -> None:
    asked = {"response_format": FORMAT, "temperature": 1.0, "n": 3, "gradus": {"think": think, "think_budget": 8}}
    for seed in (1, 7):
        whole = running.chat("coffee?", seed=seed, **asked).json()["choices"]
        chunks = running.stream("coffee?", seed=seed, **asked)
        for place, choice in enumerate(whole):
            jsonschema.validate(json.loads(choice["message"]["content"]), PERSON)
            assert choice["finish_reason"] == "stop"
            assert folded(chunks, place)["content"] == choice["message"]["content"]
            assert bool(choice["message"].get("reasoning_content")) <= (think is not False)


def test_json_objects_cut_replies_and_answers_behind_calls(running: Running) -> None:
    free = {"response_format": {"type": "json_object"}, "temperature": 1.0, "max_tokens": 300}
    said = [running.chat("hello", seed=seed, **free).json()["choices"][0] for seed in range(4)]
    whole = [choice["message"]["content"] for choice in said if choice["finish_reason"] == "stop"]
    assert whole
    assert all(isinstance(json.loads(text), dict) for text in whole)
    cut = running.chat("hello", response_format=FORMAT, max_tokens=3).json()["choices"][0]
    assert cut["finish_reason"] == "length"
    asked = {"gradus": {"tools": ["calculator"], "think": True}, "tool_choice": "required", "response_format": FORMAT}
    last = running.chat("what is 12 * 3?", **asked).json()["choices"][0]
    jsonschema.validate(json.loads(last["message"]["content"]), PERSON)
    assert last["message"]["gradus"]["events"][1]["content"] == "36"


def test_responses_are_forced_in_the_same_ways_and_say_how(running: Running) -> None:
    form = {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}
    asked = {"model": "small", "input": "coffee?", "temperature": 1, "seed": 3, "gradus": {"think": False}}
    given = asked | {"text": {"format": form, "verbosity": "medium"}}
    told = running.http.post("/v1/responses", json=given).json()
    jsonschema.validate(json.loads(told["output"][0]["content"][0]["text"]), PERSON)
    assert (told["text"], told["tool_choice"], told["status"]) == ({"format": form}, "auto", "completed")
    with running.http.stream("POST", "/v1/responses", json=given | {"stream": True}) as reply:
        events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: ")]
    assert events[-1]["response"]["output"][0]["content"] == told["output"][0]["content"]
    cut = running.http.post("/v1/responses", json=given | {"max_output_tokens": 3}).json()
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    tools = [{"type": "function", **tool["function"]} for tool in (CALCULATOR, WEATHER)]
    flat = {"type": "function", "name": "weather"}
    for choice in (flat, "required", {"type": "allowed_tools", "mode": "required", "tools": [flat]}):
        told = running.http.post("/v1/responses", json=asked | {"tools": tools, "tool_choice": choice}).json()
        kinds = {item["type"] for item in told["output"]}
        names = {item["name"] for item in told["output"]}
        assert (kinds, told["tool_choice"]) == ({"function_call"}, choice)
        assert choice == "required" or names == {"weather"}


def schema_of(**schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


AT = "response_format.json_schema"
REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"tool_choice": "required"}, "tool_choice", "declare some"),
    ({"tool_choice": "always", "tools": [WEATHER]}, "tool_choice", "found 'always'"),
    ({"tool_choice": {"type": "web_search"}, "tools": [WEATHER]}, "tool_choice", "found {'type': 'web_search'}"),
    ({"tool_choice": named("wether"), "tools": [WEATHER]}, "tool_choice", 'did you mean "weather"'),
    ({"tool_choice": {"type": "function"}, "tools": [WEATHER]}, "tool_choice", "the name of a function"),
    ({"tool_choice": allowed("none", "weather"), "tools": [WEATHER]}, "tool_choice", '"auto" or "required"'),
    ({"tool_choice": allowed("auto"), "tools": [WEATHER]}, "tool_choice", "1 to 128 tools"),
    ({"tool_choice": allowed("auto", "calculator"), "tools": [WEATHER]}, "tool_choice", "tools[0]"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "found 'xml'"),
    ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema", "unknown"),
    ({"response_format": {"type": "json_schema"}}, AT, '"name" and "schema"'),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, f"{AT}.name", "expected a text"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, f"{AT}.schema", "a JSON schema"),
    (schema_of(type="text"), f"{AT}.schema", "'text' is not valid"),
    (schema_of(properties={"a": {"not": {}}}), f"{AT}.schema", "properties.a: not is not known here"),
    (schema_of(enum=["x" * 70_000]), f"{AT}.schema", "at most 65,536"),
    (schema_of(**{"$ref": "#"}), f"{AT}.schema", "without end"),
    ({"tool_choice": "required", "tools": [{"type": "function", "function": {
        "name": "f", "parameters": {"type": "object", "properties": {"a": {"uniqueItems": True}}}}}]},
     None, 'tool "f": its parameters cannot be enforced: properties.a: uniqueItems'),
]  # fmt: skip


def test_what_cannot_be_forced_is_refused_with_its_place(running: Running) -> None:
    for given, param, words in REFUSED:
        reply = running.chat(**given)
        error = reply.json()["error"]
        assert (reply.status_code, error["param"], words in error["message"]) == (400, param, True), (given, error)
    asked = {"model": "small", "input": "x"}
    for text, param in (
        ({"verbosity": "low"}, "text.verbosity"),
        ({"format": {"type": "xml"}}, "text.format.type"),
        ({"format": {"type": "json_schema", "schema": {}}}, "text.format.name"),
        ({"format": {"type": "json_schema", "name": "x", "schema": {"if": {}}}}, "text.format.schema"),
    ):
        refused = running.http.post("/v1/responses", json=asked | {"text": text})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    # Beside others it is the tool that may be called alone that has to be enforceable.
    odd = {"type": "function", "function": {"name": "odd", "parameters": {"type": "object", "not": {}}}}
    assert running.chat(tools=[odd, WEATHER], tool_choice=named("weather"), max_tokens=100).status_code == 200
