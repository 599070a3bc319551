"""Constrained decoding judged by parser, validator and jsonschema, over random choices among what is allowed."""

import json
import math
import random
import sys
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_schemas import NODE, SCHEMAS

from gradus.conversation.formats.hermes import HermesFormat, call_text
from gradus.conversation.messages import Conversation, Message, ToolCall, ToolSchema
from gradus.conversation.validate import call_faults, turn_violations
from gradus.core.errors import ConfigError, MissingPackageError
from gradus.engine.constraint import Constraints
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.schema import UnenforceableError, narrowed
from gradus.engine.turn import Request
from gradus.roadmap.stage import SourceError
from gradus.roadmap.stages.eval import Settings, sources
from gradus.tokenizer.training import train_tokenizer

pytest.importorskip("llguidance", reason='constrained decoding needs pip install "gradus[engine]"')

pytestmark = pytest.mark.usefixtures("one_thread")

Memory = tuple[Engine, dict[str, Conversation]]
CLOSING = (b'"', b"}", b"]")
TEXTS = ['{"name": "f", "arguments": {"a": "<think>x</tool_call>", "b": -1.5}} caf\u00e9 \U0001f600 <|im_end|>']


@pytest.fixture(scope="module")
def form() -> HermesFormat:
    return HermesFormat(train_tokenizer(TEXTS * 5, vocab_size=310))


@pytest.fixture(scope="module")
def shared(form: HermesFormat) -> Constraints:
    return Constraints(form)


def tool(parameters: dict[str, Any], name: str = "f") -> ToolSchema:
    return ToolSchema(name, "", parameters)


def properties(**schemas: Any) -> dict[str, Any]:
    return {"type": "object", "properties": schemas, "required": list(schemas)}


def written(form: HermesFormat, shared: Constraints, tools: list[ToolSchema], draw: random.Random) -> list[int] | None:
    """The ids of a call, each drawn from what is allowed; None where it went on for too long."""
    segment = shared.segment("calls", tools, think=False, opens=False)
    end = form.tokenizer.special("</tool_call>")
    closing = {i for i in range(form.tokenizer.vocab_size) if form.tokenizer.decode_bytes([i])[:1] in CLOSING}
    ids = [form.tokenizer.special("<tool_call>")]
    segment.push(ids[0])
    for _ in range(400):
        allowed = np.flatnonzero(segment.allowed()).tolist()
        closers = [token for token in allowed if token in closing or token == end]
        ids.append(draw.choice(closers if closers and draw.random() < 0.4 else allowed))
        segment.push(ids[-1])
        if ids[-1] == end:
            return ids
    return None


def is_allowed(form: HermesFormat, shared: Constraints, tools: list[ToolSchema], text: str) -> bool:
    """Whether a call of that text may be written."""
    segment = shared.segment("calls", tools, think=False, opens=False)
    call, end = form.tokenizer.special("<tool_call>"), form.tokenizer.special("</tool_call>")
    for token in (call, *form.tokenizer.encode(text), end):
        if not segment.allowed()[token]:
            return False
        segment.push(token)
    return True


def says(form: HermesFormat, shared: Constraints, parameters: dict[str, Any], arguments: str) -> bool:
    before, after = form.call_frame("f")
    return is_allowed(form, shared, [tool(parameters)], before + arguments + after)


# Random schemas


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_whatever_is_drawn_satisfies_the_schema(
    form: HermesFormat, shared: Constraints, schema: dict[str, Any], seed: int
) -> None:
    tools = [tool({**schema, "$defs": {"node": NODE}}), tool({"type": "object", "properties": {}}, "no arguments")]
    draw = random.Random(seed)
    for _ in range(3):
        ids = written(form, shared, tools, draw)
        if ids is None:
            continue
        parsed = form.parse(ids)
        assert parsed.problems == ()
        (call,) = parsed.message.tool_calls
        assert call_faults(call, {tool.name: tool for tool in tools}) == []


ARRAYS_OF_OBJECTS = {"type": "array", "items": properties(n={"type": "integer"})}
SAMPLES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "text": (
        properties(a={"type": "string"}),
        ['{"a": "x"}', '{"a": "\\"\\\\\\n"}', '{"a": "caf\u00e9 \U0001f600"}'],
        ["{}", '{"a": 1}', '{"a":"x"}', '{"a": "\\ud800"}', '{"a": "x", "b": 1}', '{"a": "x", "a": "y"}'],
    ),
    "whole number": (
        properties(a={"type": "integer"}),
        ['{"a": -12}', '{"a": 0}'],
        ['{"a": 1.0}', '{"a": 01}', '{"a": 1e3}', '{"a": "1"}', '{"a": 12345678901234567}'],
    ),
    "number": (
        properties(a={"type": "number"}),
        ['{"a": 0.5}', '{"a": -17}'],
        ['{"a": 1e999}', '{"a": .5}', '{"a": NaN}', '{"a": 0.1234567891}'],
    ),
    "number below": (
        properties(a={"type": "number", "exclusiveMaximum": 0.3}),
        ['{"a": 0.25}'],
        ['{"a": 0.3}', '{"a": 0.29999999999999999999}'],
    ),
    "choice": (
        properties(a={"enum": ["x", None]}),
        ['{"a": "x"}', '{"a": null}'],
        ['{"a": "y"}'],
    ),
    "format is a note": (
        properties(a={"type": "string", "format": "time"}),
        ['{"a": "10:00"}'],
        [],
    ),
    "any object": (
        properties(a={"type": "object"}),
        ['{"a": {}}', '{"a": {"k": [1, {"l": null}]}}'],
        ['{"a": {"k": 1e999}}', '{"a": []}'],
    ),
    "nested": (
        properties(a=ARRAYS_OF_OBJECTS),
        ['{"a": []}', '{"a": [{"n": 1}, {"n": 2}]}'],
        ['{"a": [{"m": 1}]}', '{"a": [{}]}', '{"a": {"n": 1}}'],
    ),
    "optional keys": (
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
        ["{}", '{"b": 1}', '{"a": 1, "b": 2}'],
        ['{"c": 1}'],
    ),
    "no arguments": (
        {"type": "object", "properties": {}},
        ["{}"],
        ["{ }", '{"a": 1}', "[]"],
    ),
    "nothing said": (
        {},
        ["{}", '{"a": 1}', '{"\u00e9": [true]}'],
        ["1", "[]", '{"\\u0061": 1}'],
    ),
    "itself": (
        {"type": "object", "properties": {"n": {"$ref": "#"}}},
        ['{"n": {"n": {}}}'],
        ['{"n": 1}'],
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_calls_that_satisfy_the_schema_can_be_written_and_others_cannot(
    form: HermesFormat, shared: Constraints, name: str
) -> None:
    schema, good, bad = SAMPLES[name]
    assert [arguments for arguments in good if not says(form, shared, schema, arguments)] == []
    assert [arguments for arguments in bad if says(form, shared, schema, arguments)] == []


def test_the_call_that_the_format_renders_is_one_that_may_be_written(form: HermesFormat, shared: Constraints) -> None:
    tools = [tool(properties(s={"type": "string"}, l={"type": "array", "items": {"type": "boolean"}}), 'a"b\\c \u00e9')]
    call = ToolCall("call_1", tools[0].name, {"s": "</tool_call> \t\u2028", "l": [True, False]})
    assert is_allowed(form, shared, tools, f"\n{call_text(call)}\n")
    assert not is_allowed(form, shared, tools, "\n" + call_text(replace(call, name="a")) + "\n")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (properties(a={"not": {"type": "string"}}), "not"),
        (properties(a={"type": "array", "uniqueItems": True}), "uniqueItems"),
        (properties(a={"type": "number", "multipleOf": 0.1}), "multipleOf 0.1"),
        (properties(a={"type": "number", "multipleOf": math.inf}), "multipleOf inf"),
        (properties(a={"type": "string", "pattern": "(?i)yes"}), "more than one way"),
        (properties(a={"type": "string", "pattern": "^\\S+$"}), "more than one way"),
        (properties(a={"type": "string", "pattern": "a(?=b)"}), "more than one way"),
        (properties(a={"type": "object", "minProperties": 2}), "keys could repeat"),
        (properties(a={"type": "dict"}), "no JSON schema"),
        (reduce(lambda inner, _: properties(a=inner), range(200), {}), "nested deeper than 60 levels"),
        (properties(a={"$ref": "https://example.org/x"}), "https://example.org/x"),
        (properties(a=False), "[Uu]nsatisfiable"),
        ({"type": "array"}, "arguments are an object"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_with_its_tool_and_the_reason(
    shared: Constraints, schema: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=f'tool "f": its parameters cannot be enforced: .*{reason}'):
        shared.check([tool(properties(a={}), "fine"), tool(schema)])


def test_all_tools_that_cannot_be_enforced_are_named_at_once(shared: Constraints) -> None:
    with pytest.raises(ConfigError) as found:
        shared.check([tool({"not": {}}), tool({"not": {}}, "g"), tool({}, "h"), tool({}, "h")])
    assert [problem.split(":")[0] for problem in found.value.problems] == ['tool "h"', 'tool "f"', 'tool "g"']


def test_a_narrowed_schema_leaves_the_given_one_as_it_was() -> None:
    schema = properties(a={"type": "number", "exclusiveMinimum": 0}, b={"anyOf": [{}, {"type": "object"}]})
    before = json.dumps(schema)
    narrowed(schema)
    assert json.dumps(schema) == before
    with pytest.raises(UnenforceableError):
        narrowed({"type": "text"})


def test_without_the_package_a_constraint_is_an_error_that_names_the_extra(
    memorised: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = memorised
    monkeypatch.setitem(sys.modules, "llguidance", None)
    fresh = Engine(engine.model, engine.tokenizer, engine.form, engine.toolbox)
    ask = Conversation((Message("user", "hi"),))
    with pytest.raises(MissingPackageError, match=r'pip install "gradus\[engine\]"'):
        fresh.generate([Request(ask, constrain="calls")])
    assert len(fresh.generate([Request(ask, max_tokens=3)])) == 1


def test_an_eval_stage_says_before_the_walk_that_the_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gradus.roadmap.stages.eval.find_spec", lambda name: None)
    assert sources(Settings(), tmp_path) == {}
    with pytest.raises(SourceError) as found:
        sources(Settings(constrain="calls"), tmp_path)
    (problem,) = found.value.problems
    assert problem.path == ("constrain",)
    assert 'pip install "gradus[engine]"' in problem.text


# Whole turns

TOOLS = (
    tool(properties(a={"type": "integer", "minimum": 0, "maximum": 99}, b={"enum": ["x", "\u00e9"]})),
    tool({"type": "object", "properties": {}}, "now"),
)
MADE = (Message("assistant", tool_calls=(ToolCall("c", "now", {}),)), Message("tool", "-", tool_call_id="c"))


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("think", [None, True, False])
@pytest.mark.parametrize("tools", [TOOLS, ()])
def test_a_turn_drawn_at_random_breaks_no_rule(
    form: HermesFormat, shared: Constraints, tools: tuple[ToolSchema, ...], think: bool | None, opens: bool
) -> None:
    draw = random.Random(f"{think} {opens} {len(tools)}")
    think = think if opens else None
    controls = list(form.tokenizer.special_tokens.values())
    spelling = set(form.tokenizer.encode("<think></tool_call>"))
    num_calls = num_stopped = 0
    for _ in range(60):
        segment = shared.segment("turn", tools, think=think, opens=opens)
        ids: list[int] = []
        while len(ids) < 300 and form.stop_ids[0] not in ids:
            allowed = np.flatnonzero(segment.allowed()).tolist()
            # Often a control token or a piece of a spelled one, or there would be hardly any.
            wanted = controls if draw.random() < 0.3 else spelling
            likely = [token for token in allowed if token in wanted]
            ids.append(draw.choice(likely if likely and draw.random() < 0.5 else allowed))
            segment.push(ids[-1])
        if form.stop_ids[0] not in ids:
            continue
        parsed = form.parse(ids, think)
        assert parsed.stopped
        assert parsed.problems == ()
        results = [Message("tool", "-", tool_call_id=call.id) for call in parsed.message.tool_calls]
        turn = [parsed.message, *results, *([Message("assistant", "done")] if results else [])]
        before = () if opens else MADE
        assert turn_violations([*before, *turn], tools or (() if opens else TOOLS), think) == []
        num_calls, num_stopped = num_calls + len(results), num_stopped + 1
    assert num_stopped > 20
    assert (num_calls > 10) == bool(tools)


def test_without_tools_no_call_is_opened_and_the_rest_is_left_alone(form: HermesFormat, shared: Constraints) -> None:
    mask = shared.segment("calls", (), think=None, opens=True).allowed()
    forbidden = {form.tokenizer.special("<tool_call>"), form.tokenizer.special("</tool_call>")}
    assert set(np.flatnonzero(~mask).tolist()) == forbidden
    mask = shared.segment("calls", TOOLS, think=None, opens=True).allowed()
    assert np.flatnonzero(~mask).tolist() == [form.tokenizer.special("</tool_call>")]


@pytest.mark.parametrize("constrain", ["calls", "turn"])
def test_what_is_well_formed_anyway_comes_out_the_same_under_a_constraint(memorised: Memory, constrain: Any) -> None:
    engine, known = memorised
    requests = []
    for conversation in known.values():
        last = max(i for i, message in enumerate(conversation.messages) if message.role == "user")
        requests.append(Request(replace(conversation, messages=conversation.messages[: last + 1])))
    held = [replace(request, constrain=constrain) for request in requests]
    assert engine.generate(held) == engine.generate(requests)


def test_hot_answers_are_sound_in_a_batch_and_equal_to_those_alone(memorised: Memory) -> None:
    engine, known = memorised
    ask = replace(known["product"], messages=known["product"].messages[:1], think=None)
    asked = [replace(ask, tools=TOOLS if i % 2 else (), think=(None, True, False)[i % 3]) for i in range(24)]
    rules = [Sampling(temperature=2.0, seed=i, top_p=0.95 if i % 5 else None) for i in range(24)]
    requests = [
        Request(conversation, sampling=rule, max_tokens=60, max_calls=0, constrain="turn" if i % 4 else "calls")
        for i, (conversation, rule) in enumerate(zip(asked, rules, strict=True))
    ]
    replies = engine.generate(requests)
    for request, reply in zip(requests, replies, strict=True):
        declared = {tool.name: tool for tool in request.conversation.tools}
        for call in reply.turn.calls:
            assert call_faults(call, declared) == []
        if request.constrain == "turn" and reply.finish_reason != "length":
            assert reply.turn.problems == ()
    assert sum(len(reply.turn.calls) for reply in replies) > 1
    for index in (1, 2, 4, 7):
        assert engine.generate([requests[index]]) == [replies[index]]


def test_a_prompt_that_ends_with_a_result_opens_no_thinking(memorised: Memory) -> None:
    engine, known = memorised
    after_result = replace(known["product"], messages=known["product"].messages[:3])
    (reply,) = engine.generate([Request(after_result, think=True)])
    assert reply.turn.messages == known["product"].messages[3:]
    assert reply.turn.problems == ()
