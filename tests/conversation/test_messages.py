"""Conversations as JSON: what is read, what is refused and how the message says it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.conversation.messages import Conversation, Message, Pair, ToolCall, ToolSchema
from gradus.core.errors import DataError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def test_a_conversation_comes_back_from_its_json(full: Conversation):
    row = json.loads(json.dumps(full.to_json()))
    assert Conversation.from_json(row) == full
    named = Conversation((Message("user", "x"),), source="s", id="i", think=False)
    assert Conversation.from_json(named.to_json()) == named
    assert named.to_json() == {
        "messages": [{"role": "user", "content": "x"}],
        "source": "s",
        "id": "i",
        "think": False,
    }


@given(st.dictionaries(st.text(), JSON, max_size=3), st.text(), st.none() | st.text())
def test_any_arguments_and_text_come_back(arguments: dict, content: str, thinking: str | None):
    calls = (ToolCall("call_1", "f", arguments),)
    conversation = Conversation((Message("assistant", content, thinking, calls),))
    assert Conversation.from_json(json.loads(json.dumps(conversation.to_json()))) == conversation


def test_a_pair_comes_back_from_its_json(full: Conversation):
    prompt = Conversation(full.messages[:2], full.tools)
    pair = Pair(prompt, full.messages[2:6], (Message("assistant", "no"),), source="s", id="7")
    assert Pair.from_json(json.loads(json.dumps(pair.to_json()))) == pair


def test_openai_nesting_with_text_arguments_is_read():
    row = {
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": None,
                "reasoning": "hm",
                "refusal": None,
                "tool_calls": [
                    {"id": "abc", "type": "function", "function": {"name": "f", "arguments": '{"x": [1]}'}},
                    {"type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            },
            {"role": "tool", "content": "1", "tool_call_id": "abc"},
            {"role": "tool", "content": "2"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}],
    }
    conversation = Conversation.from_json(row)
    assert conversation.messages[1] == Message(
        "assistant", "", "hm", (ToolCall("abc", "f", {"x": [1]}), ToolCall("call_2", "g", {}))
    )
    assert [m.tool_call_id for m in conversation.messages[2:]] == ["abc", "call_2"]
    assert conversation.tools == (ToolSchema("f", "d", {"type": "object", "properties": {}}),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "row: missing key messages"),
        ({"mesages": []}, 'row: unknown key "mesages"; did you mean "messages"?'),
        ({"messages": "x"}, 'messages: expected a list of messages, found "x"'),
        ({"messages": []}, "messages: expected at least one message, found none"),
        ({"messages": ["x"]}, 'messages[0]: expected an object with role and content, found "x"'),
        (
            {"messages": [{"role": "usr", "content": ""}]},
            'messages[0].role: expected one of system, user, assistant, tool, found "usr"; did you mean "user"?',
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content: expected text, found 5"),
        (
            {"messages": [{"role": "user", "content": "a\ud800"}]},
            "messages[0].content: character 1 is an unpaired surrogate",
        ),
        (
            {"messages": [{"role": "user", "contents": "x"}]},
            'messages[0]: unknown key "contents"; did you mean "content"?',
        ),
        (
            {"messages": [{"role": "user", "content": "x", "train": "no"}]},
            'messages[0].train: expected true or false, found "no"',
        ),
        (
            {"messages": [{"role": "user", "reasoning_content": "x"}]},
            "messages[0].reasoning_content: only an assistant message may have it, found role user",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]},
            "messages[0].tool_calls[0].arguments: expected a JSON object, found text that is none (Expecting "
            "property name enclosed in double quotes: line 1 column 2 (char 1))",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}]},
            "messages[0].tool_calls[0].arguments: expected a JSON object, found a list",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"a": NaN}'}]}]},
            "messages[0].tool_calls[0].arguments: expected a JSON object, found text that is none "
            "(NaN is no JSON number)",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"a":' * 101 + "1" + "}" * 101}]}
                ]
            },
            "messages[0].tool_calls[0].arguments: nested deeper than 100 levels",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"arguments": {}}]}]},
            "messages[0].tool_calls[0].name: expected the name of a tool, found nothing",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f", "parameters": 1}]},
            "tools[0].parameters: expected a JSON schema, found 1",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "think": "yes"},
            'think: expected true, false or null, found "yes"',
        ),
    ],
)
def test_a_bad_row_is_refused_with_its_place(row: dict, message: str):
    with pytest.raises(DataError) as error:
        Conversation.from_json(row)
    assert str(error.value) == message
