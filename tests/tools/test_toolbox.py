"""The toolbox: schemas for the model, and calls answered or refused as text."""

from __future__ import annotations

import pytest

from gradus.conversation.messages import Message, ToolCall
from gradus.conversation.validate import call_faults
from gradus.core.errors import ConfigError
from gradus.tools.toolbox import ToolBox


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
