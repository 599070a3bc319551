"""The tools that gradus can run, as an explicit table: what the model is told of each, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gradus.conversation.calculator_marks import CALCULATOR
from gradus.conversation.messages import Message, ToolCall, ToolSchema
from gradus.core.errors import ConfigError, ToolError, did_you_mean
from gradus.tools.calculator import calculate


@dataclass(frozen=True)
class Tool:
    """A tool's schema and the function that answers a call; it raises ToolError where it cannot."""

    schema: ToolSchema
    answer: Callable[[Mapping[str, Any]], str]


TOOLS: dict[str, Tool] = {
    CALCULATOR.name: Tool(CALCULATOR, lambda arguments: calculate(arguments["expression"])),
}


class ToolBox:
    """Runs calls of the tools in a table."""

    def __init__(self, tools: Mapping[str, Tool] | None = None) -> None:
        self._tools = dict(TOOLS if tools is None else tools)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def schemas(self, names: Iterable[str]) -> tuple[ToolSchema, ...]:
        """What the model is told of these tools; ConfigError for a name that is not in the table."""
        found = []
        for name in names:
            if name not in self._tools:
                known = ", ".join(self._tools) or "none"
                raise ConfigError(f'unknown tool "{name}"; known are {known}{did_you_mean(name, self._tools)}')
            found.append(self._tools[name].schema)
        return tuple(found)

    def run(self, call: ToolCall) -> Message:
        """The tool message that answers a call; what goes wrong becomes its text, after "error: "."""
        try:
            text = self._answer(call)
        except ToolError as error:
            text = f"error: {error}"
        return Message("tool", text, tool_call_id=call.id)

    def _answer(self, call: ToolCall) -> str:
        tool = self._tools.get(call.name)
        if tool is None:
            raise ToolError(f"unknown tool {call.name!r}{did_you_mean(call.name, self._tools)}")
        properties = tool.schema.parameters.get("properties", {})
        for name in tool.schema.parameters.get("required", ()):
            if name not in call.arguments:
                raise ToolError(f"missing argument {name!r}")
        for name, value in call.arguments.items():
            if name not in properties:
                raise ToolError(f"unknown argument {name!r}{did_you_mean(name, properties)}")
            if properties[name].get("type") == "string" and not isinstance(value, str):
                raise ToolError(f"argument {name!r} must be text")
        return tool.answer(call.arguments)
