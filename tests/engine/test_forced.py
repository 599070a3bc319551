"""Forced calls and JSON answers, sampled from random weights at temperature 1, judged by json and jsonschema."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_schemas import NODE, SCHEMAS

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation, JsonObject, Message, ToolCall, ToolSchema
from gradus.conversation.validate import call_faults
from gradus.core.errors import ConfigError
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.schema import MOST_CHARACTERS, UnenforceableError, narrowed
from gradus.engine.turn import Reply, Request
from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.tokenizer.training import train_tokenizer
from gradus.tools.toolbox import ToolBox

pytest.importorskip("llguidance", reason='constrained decoding needs pip install "gradus[engine]"')

pytestmark = pytest.mark.usefixtures("one_thread")

Memory = tuple[Engine, dict[str, Conversation]]
TEXTS = ['{"name": "f", "arguments": {"a": "<think>x</tool_call>", "b": -1.5}} caf\u00e9 \U0001f600 <|im_end|>']
ASK = Conversation((Message("user", "hello"),))


def properties(**schemas: Any) -> JsonObject:
    return {"type": "object", "properties": schemas, "required": list(schemas)}


COLOUR = {"enum": ["red", "caf\u00e9", None]}
TOOLS = (
    ToolSchema("paint", "", properties(colour=COLOUR, coats={"type": "integer", "minimum": 0, "maximum": 9})),
    ToolSchema("now", "", {"type": "object", "properties": {}}),
)
AFTER_RESULT = Conversation(
    (
        Message("user", "hello"),
        Message("assistant", tool_calls=(ToolCall("call_1", "now", {}),)),
        Message("tool", "noon", tool_call_id="call_1"),
    ),
    TOOLS,
)
# What ends soon however it is drawn: a random model finds the end of a text once in three hundred tokens.
FORM = properties(
    kind={"enum": ["a", "b", "</think><|im_end|>"]},
    code={"type": "string", "pattern": "^[a-z]{2}[0-9]{3}$"},
    note={"type": "string", "maxLength": 6},
    size={"anyOf": [{"type": "number"}, {"type": "null"}]},
    marks={"type": "array", "items": {"type": "integer"}, "maxItems": 3},
)


@pytest.fixture(scope="module")
def raw() -> Engine:
    """An engine of random weights, which knows nothing."""
    tokenizer = train_tokenizer(TEXTS * 5, vocab_size=300)
    table = {"depth": 1, "width": 32, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}
    config = model_config(table, tokenizer.vocab_size, 700)
    model = build_model(config, torch.Generator().manual_seed(0))
    return Engine(model, tokenizer, HermesFormat(tokenizer), ToolBox(), max_batch=16)


def drawn(engine: Engine, request: Request, number: int, seed: int = 0) -> list[Reply]:
    """So many replies to the request at temperature 1; thinking, where there is any, is closed early."""
    seeds = range(seed, seed + number)
    rules = [Sampling(temperature=1.0, seed=one) for one in seeds]
    return engine.generate([replace(request, sampling=rule, think_budget=4) for rule in rules])


def controls(reply: Reply, engine: Engine) -> list[str]:
    """The control tokens of what was written, in order."""
    names = {number: name for name, number in engine.tokenizer.special_tokens.items()}
    return [names[token] for token in reply.ids if token in names]


def spelled(digits: str) -> str:
    """A number as text, so that "-0" stays what it is."""
    return f"number {digits}"


# Answers


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_every_answer_of_random_weights_satisfies_a_random_schema(raw: Engine, schema: JsonObject, seed: int) -> None:
    schema = {**schema, "$defs": {"node": NODE}}
    judge = jsonschema.Draft202012Validator(schema)
    for reply in drawn(raw, Request(ASK, think=False, max_tokens=150, answer_schema=schema), 3, seed):
        if reply.finish_reason == "stop":
            judge.validate(json.loads(reply.turn.messages[0].content))
        assert controls(reply, raw) == ["<|im_end|>"] * (reply.finish_reason == "stop")


@pytest.mark.parametrize("constrain", [None, "turn"])
@pytest.mark.parametrize("think", [None, True, False])
def test_an_answer_stands_behind_free_thinking_and_nothing_stands_beside_it(
    raw: Engine, think: bool | None, constrain: Any
) -> None:
    judge = jsonschema.Draft202012Validator(FORM)
    request = Request(ASK, think=think, max_tokens=300, constrain=constrain, answer_schema=FORM)
    num_thought = 0
    for reply in drawn(raw, request, 12):
        assert (reply.finish_reason, reply.turn.problems, len(reply.turn.messages)) == ("stop", (), 1)
        (message,) = reply.turn.messages
        value = json.loads(message.content)
        judge.validate(value)
        # As json.dumps writes it: white space cannot go on for ever, and keys come in the schema's order.
        digits = json.loads(message.content, parse_float=spelled, parse_int=spelled)
        told = json.dumps(digits, ensure_ascii=False)
        assert re.sub('"number (.*?)"', r"\1", told) == message.content
        assert list(value) == list(FORM["properties"])
        num_thought += bool(message.reasoning_content)
        thought = think is not False and message.reasoning_content is not None
        opened = ["<think>"] * (thought and think is None)
        assert controls(reply, raw) == [*opened, *["</think>"] * thought, "<|im_end|>"]
    assert (num_thought > 0) == (think is not False)


def test_any_object_any_value_and_roots_of_every_kind_can_be_asked_for(raw: Engine) -> None:
    kinds: list[tuple[JsonObject, type | tuple[type, ...]]] = [
        ({"type": "integer"}, int),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 4}, list),
        ({"enum": ["one", "two"]}, str),
        ({"anyOf": [{"type": "null"}, {"const": 5}]}, (int, type(None))),
        ({"$ref": "#/$defs/n", "$defs": {"n": properties(n={"anyOf": [{"$ref": "#/$defs/n"}, {"const": 0}]})}}, dict),
    ]
    for schema, kind in kinds:
        for reply in drawn(raw, Request(ASK, max_tokens=200, answer_schema=schema), 4):
            assert isinstance(json.loads(reply.turn.messages[-1].content), kind), schema
    replies = drawn(raw, Request(ASK, think=False, max_tokens=300, answer_schema={"type": "object"}), 16)
    whole = [json.loads(reply.turn.messages[0].content) for reply in replies if reply.finish_reason == "stop"]
    assert whole
    assert all(isinstance(value, dict) for value in whole)


def test_what_max_tokens_cuts_off_says_so(raw: Engine) -> None:
    (reply,) = drawn(raw, Request(ASK, think=False, max_tokens=5, answer_schema=FORM), 1)
    assert (reply.finish_reason, reply.num_tokens) == ("length", 5)
    (reply,) = drawn(raw, Request(replace(ASK, tools=TOOLS), think=False, max_tokens=2, must_call=True), 1)
    assert (reply.finish_reason, reply.turn.calls) == ("length", ())


# Calls


@pytest.mark.parametrize("conversation", [replace(ASK, tools=TOOLS), AFTER_RESULT])
@pytest.mark.parametrize("think", [None, True, False])
def test_random_weights_call_where_they_must_and_what_they_may(
    raw: Engine, think: bool | None, conversation: Conversation
) -> None:
    declared = {tool.name: tool for tool in TOOLS}
    request = Request(conversation, think=think, max_tokens=200, max_calls=0, must_call=True)
    called = set()
    for names, single in ((None, False), (("paint",), False), (("now",), True), (("paint", "now"), True)):
        for reply in drawn(raw, replace(request, callable_tools=names, single_call=single), 8):
            if reply.finish_reason == "length":
                continue  # calls without end
            (message,) = reply.turn.messages
            assert (reply.finish_reason, reply.turn.problems, message.content) == ("calls", (), "")
            assert message.tool_calls
            for call in message.tool_calls:
                assert call_faults(call, declared) == []
                assert names is None or call.name in names
            assert not single or len(message.tool_calls) == 1
            called.add((names, len(message.tool_calls) > 1))
    assert {("paint",), ("now",), ("paint", "now"), None} == {names for names, _ in called}
    assert (None, True) in called  # more than one, where not forbidden


def test_tools_that_may_be_called_need_not_be(raw: Engine) -> None:
    request = Request(replace(ASK, tools=TOOLS), think=False, max_tokens=40, max_calls=0, callable_tools=("now",))
    replies = drawn(raw, request, 40)
    assert {call.name for reply in replies for call in reply.turn.calls} <= {"now"}
    assert any(not reply.turn.calls for reply in replies)


def test_calls_that_are_run_come_before_an_answer_and_end_in_one(raw: Engine) -> None:
    tools = ToolBox().schemas(["calculator"])
    judge = jsonschema.Draft202012Validator(FORM)
    asked = replace(ASK, tools=tools)
    request = Request(asked, think=False, max_tokens=600, max_calls=2, must_call=True, answer_schema=FORM)
    ends = []
    for reply in drawn(raw, request, 12):
        messages = reply.turn.messages
        ends.append(reply.finish_reason)
        assert len(reply.turn.calls) <= 2
        if reply.finish_reason == "stop":
            assert messages[0].tool_calls
            assert messages[1].role == "tool"
            judge.validate(json.loads(messages[-1].content))
    assert "stop" in ends
    assert "calls" not in ends


def test_a_trained_model_that_is_forced_to_what_it_does_anyway_does_the_same(memorised: Memory) -> None:
    engine, known = memorised
    ask = Request(replace(known["product"], messages=known["product"].messages[:1]))
    forced = [replace(ask, must_call=True), replace(ask, must_call=True, callable_tools=("calculator",))]
    assert engine.generate(forced) == engine.generate([ask]) * 2
    # The next turn is not forced again, or it would never end.
    (reply,) = engine.generate([forced[0]])
    assert reply.turn.messages[-1].content == "12 * 3 = 36."
    # One that it would not have called.
    greet = Request(replace(known["greeting"], messages=known["greeting"].messages[:1], tools=TOOLS), max_calls=0)
    (reply,) = engine.generate([replace(greet, must_call=True, callable_tools=("now",), single_call=True)])
    assert [(call.name, call.arguments) for call in reply.turn.calls] == [("now", {})]


def test_one_call_a_message_needs_no_constraint(memorised: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, known = memorised
    monkeypatch.setitem(sys.modules, "llguidance", None)
    fresh = Engine(engine.model, engine.tokenizer, engine.form, engine.toolbox)
    ask = Request(replace(known["two"], messages=known["two"].messages[:1]), max_calls=0)
    (both,) = fresh.generate([ask])
    (one,) = fresh.generate([replace(ask, single_call=True)])
    assert [call.arguments for call in both.turn.calls] == [{"expression": "1 + 1"}, {"expression": "2 + 2"}]
    assert one.turn.calls == both.turn.calls[:1]
    assert (one.finish_reason, one.turn.problems, one.turn.messages[0].content) == ("calls", (), "Both:")
    assert one.ids == (*both.ids[: len(one.ids) - 1], engine.form.stop_ids[0])
    assert (one.sampled[-2:], one.num_tokens) == ((True, False), len(one.ids) - 1)
    # Where its calls are run, each message of the turn holds one.
    (run,) = fresh.generate([replace(ask, single_call=True, max_calls=3, max_tokens=200)])
    assert all(len(message.tool_calls) <= 1 for message in run.turn.messages)
    assert run.turn.messages[1] == Message("tool", "2", tool_call_id="call_1")


# Refusals


def test_what_cannot_be_forced_is_an_error_before_anything_is_generated(raw: Engine) -> None:
    for request, words in (
        (Request(ASK, must_call=True), "no tool that may be called"),
        (
            Request(replace(ASK, tools=TOOLS), callable_tools=("point",)),
            '"point" is not declared; did you mean "paint"',
        ),
        (Request(ASK, answer_schema={"type": "text"}), "schema of the answer cannot be enforced: no JSON schema"),
    ):
        with pytest.raises(ConfigError, match=words.replace("(", "\\(")):
            raw.check(request)


LOOP = {"$defs": {"a": properties(b={"$ref": "#/$defs/b"}), "b": properties(a={"$ref": "#/$defs/a"})}}
TWICE = [properties(l={"$ref": f"#/$defs/{i + 1}"}, r={"$ref": f"#/$defs/{i + 1}"}) for i in range(30)]
TREE = {"$defs": {**{str(i): one for i, one in enumerate(TWICE)}, "30": {"const": 0}}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (properties(a=properties(b={"not": {}})), "properties.a.properties.b: not is not known here"),
        (properties(a={"items": {"if": {}}}), "properties.a.items: if is not known here"),
        ({"anyOf": [{}, {"uniqueItems": True}]}, "anyOf.1: uniqueItems is not known here"),
        (properties(a={"propertyNames": {"minLength": 2}}), "properties.a: propertyNames is not known here"),
        (properties(a={"$ref": "http://x/y"}), "properties.a: $ref 'http://x/y' leads to no schema in here"),
        (properties(a={"$ref": "#/$defs/b"}), "properties.a: $ref '#/$defs/b' leads to no schema in here"),
        (properties(a={"$ref": "#"}), "properties.a: it needs another of itself"),
        ({**LOOP, "$ref": "#/$defs/a"}, "it needs another of itself"),
        ({**LOOP, "type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}, "it needs another of itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "anyOf": [{"$ref": "#/$defs/a"}, {"const": 1}]}, ": it needs another"),
        ({"type": "array", "minItems": 1, "items": {"$ref": "#"}}, "items: it needs another of itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/a", "const": 1}}, "oneOf": [{"$ref": "#/$defs/a"}]}, "$defs.a: it needs"),
        ({"$defs": {"any_json_value": {"type": "null"}}}, "$defs.any_json_value: the name has a meaning here"),
        ({"type": "string", "pattern": "(a{100}){101}"}, "patterns repeat more than 10,000 times"),
        (properties(a={"enum": ["x" * MOST_CHARACTERS]}), "characters, and at most 65,536 are taken"),
        ({"anyOf": [{"const": i} for i in range(1000)]}, "1,001 objects in it, and at most 1,000 are taken"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_with_the_place_that_is_wrong(
    schema: JsonObject, words: str
) -> None:
    with pytest.raises(UnenforceableError) as found:
        narrowed(schema)
    assert words in str(found.value)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (properties(a=False), "unsatisfiable"),
        ({"type": "array", "items": {}, "minItems": 2.0}, "Expected positive integer for 'minItems'"),
        ({"type": "string", "pattern": "(a)\\1"}, r"pattern '\(a\)\\\\1': backreferences are not supported"),
        ({"oneOf": [{"type": "string"}, {"const": "a"}]}, "oneOf: its choices may go together; use anyOf"),
        ({**TREE, "$ref": "#/$defs/0"}, "Too many items"),
        ({"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(900)}}, "items; max is"),
    ],
)
def test_what_the_compiler_gives_up_on_is_refused_before_anything_is_generated(
    raw: Engine, schema: JsonObject, words: str
) -> None:
    with pytest.raises(ConfigError, match=f"schema of the answer cannot be enforced: .*{words}"):
        raw.check_answer(schema)


TAGGED = {
    "word": properties(kind={"const": "word"}, word={"type": "string", "maxLength": 3}),
    "number": properties(kind={"enum": ["number", "count"]}, number={"type": "integer"}),
    "untold": properties(kind={"type": "string", "maxLength": 3}),
}


def test_choices_that_a_key_tells_apart_are_alternatives_and_others_are_not(raw: Engine) -> None:
    def choice(*kinds: str) -> JsonObject:
        return {"$defs": TAGGED, **properties(given={"oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds]})}

    schema = choice("word", "number")
    judge = jsonschema.Draft202012Validator(schema)
    found = set()
    for reply in drawn(raw, Request(ASK, think=False, max_tokens=200, answer_schema=schema), 12):
        value = json.loads(reply.turn.messages[0].content)
        judge.validate(value)
        found.add(value["given"]["kind"])
    assert found == {"word", "number", "count"}
    for kinds in (("word", "untold"), ("word", "word")):
        with pytest.raises(ConfigError, match="oneOf"):
            raw.check_answer(choice(*kinds))


HALF = {"$defs": {"half": properties(a={"type": "number"})}}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [properties(a={"type": "boolean"}), properties(b={"enum": ["x", 2, 0.5]}), {"maxProperties": 3}]},
        {**HALF, "allOf": [{"$ref": "#/$defs/half"}], **properties(b={"const": 1})},
        {**HALF, "$ref": "#/$defs/half", "anyOf": [properties(b={"const": 1}), properties(c={})]},
        properties(a={"anyOf": [{"type": "number"}], "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.3}),
        properties(a={"allOf": [{"type": "number"}], "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.3}),
    ],
)
def test_what_several_schemas_say_of_one_value_holds(raw: Engine, schema: JsonObject) -> None:
    judge = jsonschema.Draft202012Validator(schema)
    replies = drawn(raw, Request(ASK, think=False, max_tokens=200, answer_schema=schema), 6)
    whole = [json.loads(reply.turn.messages[0].content) for reply in replies if reply.finish_reason == "stop"]
    assert whole
    for value in whole:
        judge.validate(value)


def test_what_libraries_write_into_schemas_is_taken(raw: Engine) -> None:
    """A discriminated union of pydantic, a record of zod, an optional list that holds its own kind."""
    kinds = [properties(kind={"const": kind, "type": "string", "title": "Kind"}) for kind in ("cat", "dog")]
    mapping = {"propertyName": "kind", "mapping": {"cat": "#/$defs/cat", "dog": "#/$defs/dog"}}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": dict(zip(("cat", "dog"), kinds, strict=True)),
        "title": "Reply",
        **properties(
            pet={"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "discriminator": mapping},
            counts={
                "type": "object", "propertyNames": {"type": "string"}, "maxProperties": 0,
                "additionalProperties": {"type": "number"},
            },
            when={"type": "string", "format": "date-time", "maxLength": 3, "default": "x", "description": "d"},
            rest={"anyOf": [{"type": "array", "items": {"$ref": "#"}, "maxItems": 1}, {"type": "null"}]},
        ),
    }  # fmt: skip
    judge = jsonschema.Draft202012Validator(schema)
    found = set()
    for reply in drawn(raw, Request(ASK, think=False, max_tokens=500, answer_schema=schema), 8):
        if reply.finish_reason == "stop":
            value = json.loads(reply.turn.messages[0].content)
            judge.validate(value)
            found.add(value["pet"]["kind"])
    assert found == {"cat", "dog"}
