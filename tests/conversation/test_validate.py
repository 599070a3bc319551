"""The invariants of thinking with tools: one broken rule at a time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import reduce

import pytest

from gradus.conversation.messages import Conversation, Message, ToolCall, ToolSchema
from gradus.conversation.validate import Violation, turn_violations, violations

USER = Message("user", "What is 2 + 2?")
FOUR = Message("assistant", "4")
TOOL = ToolSchema(
    "calculator",
    "",
    {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
)


def _call(name: str = "calculator", call_id: str = "call_1", **arguments: object) -> ToolCall:
    return ToolCall(call_id, name, dict(arguments) or {"expression": "2 + 2"})


CALLING = Message("assistant", "", "Use the tool.", (_call(),))
RESULT = Message("tool", "4", tool_call_id="call_1")


def test_sound_conversations_have_no_violation(full: Conversation):
    assert violations(full) == []
    assert violations(Conversation((USER, FOUR))) == []
    assert violations(Conversation((USER, CALLING, RESULT, FOUR), (TOOL,), think=True)) == []
    assert violations(Conversation((USER, replace(FOUR, reasoning_content="")), think=False)) == []


BROKEN: list[tuple[str, Conversation, list[tuple[str, int | None, str]]]] = [
    ("no answer", Conversation((USER,)), [("no_answer", None, "there is no assistant message")]),
    (
        "assistant first",
        Conversation((FOUR,)),
        [("order", 0, "assistant at the start")],
    ),
    (
        "user twice",
        Conversation((USER, USER, FOUR)),
        [("order", 1, "user after user")],
    ),
    (
        "late system",
        Conversation((USER, FOUR, Message("system", "x"), USER, FOUR)),
        [("order", 2, "system after assistant")],
    ),
    (
        "open end",
        Conversation((USER, FOUR, USER)),
        [("unfinished", 2, "the last turn does not end with an answer")],
    ),
    (
        "call at the end",
        Conversation((USER, CALLING), (TOOL,)),
        [("unfinished", 1, "the last turn does not end with an answer")],
    ),
    ("empty user", Conversation((Message("user", " "), FOUR)), [("empty_user", 0, "a user message without text")]),
    (
        "empty answer",
        Conversation((USER, Message("assistant", "\n", "hm"))),
        [("empty_answer", 1, "neither text nor calls")],
    ),
    (
        "thinking late",
        Conversation((USER, CALLING, RESULT, replace(FOUR, reasoning_content="so")), (TOOL,)),
        [("think_not_first", 3, "thinking after a tool result")],
    ),
    (
        "thinking missing",
        Conversation((USER, FOUR), think=True),
        [("think_missing", 1, "thinking was asked for")],
    ),
    (
        "thinking unwanted",
        Conversation((USER, replace(FOUR, reasoning_content="so")), think=False),
        [("think_unwanted", 1, "thinking was switched off")],
    ),
    (
        "answer in thinking",
        Conversation((USER, Message("assistant", "4", "so</think>4"))),
        [("marker_in_text", 1, "</think> in the thinking")],
    ),
    (
        "call as text",
        Conversation((USER, Message("assistant", "<tool_call>{}"))),
        [("marker_in_text", 1, "<tool_call> in the answer")],
    ),
    (
        "undeclared tool",
        Conversation((USER, CALLING, RESULT, FOUR)),
        [("unknown_tool", 1, "'calculator' is not declared (declared: none)")],
    ),
    (
        "wrong arguments",
        Conversation((USER, replace(CALLING, tool_calls=(_call(expression=5),)), RESULT, FOUR), (TOOL,)),
        [("bad_arguments", 1, "calculator: expression: 5 is not of type 'string'")],
    ),
    (
        "missing argument",
        Conversation((USER, replace(CALLING, tool_calls=(_call(x=5),)), RESULT, FOUR), (TOOL,)),
        [("bad_arguments", 1, "calculator: 'expression' is a required property")],
    ),
    (
        "no schema",
        Conversation((USER, CALLING, RESULT, FOUR), (replace(TOOL, parameters={"type": "dict"}),)),
        [
            (
                "bad_schema",
                1,
                "calculator: its parameters are no JSON schema (type: 'dict' is not valid under any of the "
                "given schemas)",
            )
        ],
    ),
    (
        "two tools of one name",
        Conversation((USER, FOUR), (TOOL, TOOL)),
        [("duplicate_tool", None, "two declared tools have one name")],
    ),
    (
        "no result",
        Conversation((USER, CALLING, FOUR), (TOOL,)),
        [("order", 2, "assistant after assistant"), ("result_missing", 1, "no result for call call_1 (calculator)")],
    ),
    (
        "result of nothing",
        Conversation((USER, CALLING, replace(RESULT, tool_call_id="call_9"), FOUR), (TOOL,)),
        [
            ("result_missing", 1, "no result for call call_1 (calculator)"),
            ("result_unknown", 2, "no open call 'call_9'"),
        ],
    ),
    (
        "two results",
        Conversation((USER, CALLING, RESULT, RESULT, FOUR), (TOOL,)),
        [("result_unknown", 3, "no open call 'call_1'")],
    ),
    (
        "results swapped",
        Conversation(
            (
                USER,
                replace(CALLING, tool_calls=(_call(), _call(call_id="call_2"))),
                replace(RESULT, tool_call_id="call_2"),
                RESULT,
                FOUR,
            ),
            (TOOL,),
        ),
        [("result_order", 2, "result of call_2 before that of an earlier call")],
    ),
    (
        "id used twice",
        Conversation((USER, CALLING, RESULT, FOUR, USER, CALLING, RESULT, FOUR), (TOOL,)),
        [("duplicate_call_id", 5, "call id call_1 is used twice")],
    ),
]


@pytest.mark.parametrize(("conversation", "expected"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_each_broken_rule_is_named_with_its_place(
    conversation: Conversation, expected: list[tuple[str, int | None, str]]
):
    found = [(v.reason, v.message_index, v.detail) for v in violations(conversation)]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_all_violations_are_returned_in_order_of_messages():
    conversation = Conversation((FOUR, USER, Message("assistant", "")))
    assert [v.message_index for v in violations(conversation)] == [0, 2]


def test_a_turn_is_judged_alone():
    assert turn_violations((CALLING, RESULT, FOUR), (TOOL,)) == []
    assert turn_violations((CALLING,), (TOOL,)) == [
        Violation("unfinished", 0, "the last turn does not end with an answer")
    ]
    assert turn_violations((FOUR,), think=True) == [Violation("think_missing", 0, "thinking was asked for")]


def test_a_schema_never_makes_us_fetch_an_address():
    tool = replace(TOOL, parameters={"$ref": "http://127.0.0.1:9/schema.json"})
    (violation,) = violations(Conversation((USER, CALLING, RESULT, FOUR), (tool,)))
    assert violation.reason == "bad_schema"


def test_arguments_too_deep_for_a_schema_that_refers_to_itself_are_a_violation():
    tool = replace(TOOL, parameters={"type": "object", "properties": {"in": {"$ref": "#"}}})
    for levels, reasons in ((99, []), (900, ["bad_arguments"])):
        arguments = reduce(lambda inner, _: {"in": inner}, range(levels), {})
        calling = replace(CALLING, tool_calls=(replace(_call(), arguments=arguments),))
        assert [v.reason for v in violations(Conversation((USER, calling, RESULT, FOUR), (tool,)))] == reasons


def test_a_schema_that_refers_to_itself_without_end_is_a_violation():
    tool = replace(TOOL, parameters={"type": "object", "anyOf": [{"$ref": "#"}]})
    (violation,) = violations(Conversation((USER, CALLING, RESULT, FOUR), (tool,)))
    assert violation.reason == "bad_schema"


def test_validating_without_calls_does_not_import_jsonschema():
    script = (
        "import sys\n"
        "from gradus.conversation.messages import Conversation, Message\n"
        "from gradus.conversation.validate import violations\n"
        "from gradus.conversation.formats.hermes import HermesFormat\n"
        "import gradus.tools.toolbox, gradus.conversation.lint, gradus.conversation.records\n"
        "assert not violations(Conversation((Message('user', 'a'), Message('assistant', 'b'))))\n"
        "slow = {'jsonschema', 'jinja2', 'transformers', 'torch', 'tokenizers', 'tiktoken', 'huggingface_hub'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
