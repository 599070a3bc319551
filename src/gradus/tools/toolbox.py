"""The tools that gradus can run, as an explicit table: what the model is told of each, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradus.conversation.calculator_marks import CALCULATOR
from gradus.conversation.messages import Message, ToolCall, ToolSchema
from gradus.conversation.validate import schema_faults
from gradus.core.errors import ConfigError, ToolError, did_you_mean
from gradus.tools.calculator import calculate
from gradus.tools.deadline import Deadline
from gradus.tools.running import RunningCalls

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Tool:
    """A tool's schema and the function that answers a call; it raises ToolError where it cannot.

    answer: from the arguments and the time that the call has, which a tool that waits for something looks at.
    timeout_seconds: after these the model is told that it took too long, whatever the function still does.
    instant: pure and over in milliseconds, so that it needs no thread of its own.
    """

    schema: ToolSchema
    answer: Callable[[Mapping[str, Any], Deadline], str]
    timeout_seconds: float = TIMEOUT_SECONDS
    instant: bool = False


@dataclass(frozen=True)
class Budget:
    """What the tools may do in one conversation. calls: run at most; characters: of their results together."""

    calls: int = 50
    characters: int = 100_000

    def fault(self, before: Sequence[Message]) -> str:
        """Why no further call is run in a conversation with these messages; '' where one may be."""
        results = [message.content for message in before if message.role == "tool"]
        if len(results) >= self.calls:
            return f"all {self.calls} tool calls of this conversation are spent; answer with what is known"
        if sum(map(len, results)) >= self.characters:
            return "the room for tool results in this conversation is spent; answer with what is known"
        return ""


TOOLS: dict[str, Tool] = {
    CALCULATOR.name: Tool(CALCULATOR, lambda arguments, deadline: calculate(arguments["expression"]), instant=True),
}


class ToolBox:
    """Runs calls of the tools in a table: one and wait (`run`), or several at once beside other work (`start`)."""

    def __init__(self, tools: Mapping[str, Tool] | None = None, budget: Budget | None = None) -> None:
        """budget: of each conversation; None for no bound."""
        self._tools = dict(TOOLS if tools is None else tools)
        self._budget = budget

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
        (message,) = self.start([call]).results()
        return message

    def start(
        self, calls: Sequence[ToolCall], before: Sequence[Message] = (), on_done: Callable[[], None] | None = None
    ) -> RunningCalls:
        """Begin to answer calls, each in a thread of its own; instant ones are answered before this returns.

        before: the conversation so far, for the budget. on_done: called once, in some thread, when all have an answer;
        where all are instant, before this returns.
        """
        running = RunningCalls(calls)
        for place, call in enumerate(calls):
            earlier = [*before, *(Message("tool", tool_call_id=other.id) for other in calls[:place])]
            try:
                if self._budget is not None and (fault := self._budget.fault(earlier)):
                    raise ToolError(fault)
                tool = self._checked(call)
            except ToolError as error:
                running.fail(place, error)
                continue
            running.begin(place, tool.answer, tool.timeout_seconds, instant=tool.instant)
        running.watch(on_done)
        return running

    def _checked(self, call: ToolCall) -> Tool:
        """The tool that a call names. Errors: ToolError where there is none, or the arguments are not its own."""
        tool = self._tools.get(call.name)
        if tool is None:
            raise ToolError(f"unknown tool {call.name!r}{did_you_mean(call.name, self._tools)}")
        parameters = tool.schema.parameters
        properties = parameters.get("properties", {})
        for name in parameters.get("required", ()):
            if name not in call.arguments:
                raise ToolError(f"missing argument {name!r}")
        for name, value in call.arguments.items():
            if name not in properties:
                if parameters.get("additionalProperties") or "properties" not in parameters:
                    continue
                raise ToolError(f"unknown argument {name!r}{did_you_mean(name, properties)}")
            if _is_text(properties[name]) and not isinstance(value, str):
                raise ToolError(f"argument {name!r} must be text")
        # Our own tools take plain text, which has been checked; jsonschema takes long to import.
        plain = not parameters.keys() - {"type", "properties", "required"} and all(map(_is_text, properties.values()))
        if not plain:
            for _, detail in schema_faults(call.arguments, parameters):
                raise ToolError(detail)
        return tool


def _is_text(schema: Any) -> bool:
    """Whether a property's schema says no more than that it is text."""
    return isinstance(schema, dict) and schema.get("type") == "string" and not schema.keys() - {"type", "description"}
