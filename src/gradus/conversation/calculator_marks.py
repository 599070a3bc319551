"""Worked answers with calculator marks, <<48/2=24>>, as calls of the calculator between text (GSM8K).

Each mark becomes a call; its result comes from the tool that will be in use, where one is given, and the text
behind it is made to read as the tool writes the number.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gradus.conversation.messages import Message, ToolCall, ToolSchema
from gradus.conversation.record_values import RowError

RunTool = Callable[[ToolCall], Message]

# The one declaration of the calculator, here because rows that use one do not declare it. The words are few
# on purpose: a small model reads them in every conversation.
CALCULATOR = ToolSchema(
    "calculator",
    "Evaluate arithmetic.",
    {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
)

_MARK = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_FINAL = re.compile(r"\n?#### *(.*)\s*$")


def has_marks(answer: str) -> bool:
    """Whether this is a GSM8K answer: marks, or the line with the final number."""
    return _MARK.search(answer) is not None or _FINAL.search(answer) is not None


def without_marks(answer: str) -> str:
    """The words of a worked answer as a reader would write them."""
    return _MARK.sub("", answer)


def worked_with_calls(question: str, answer: str, run_tool: RunTool | None = None) -> tuple[Message, ...]:
    """The messages of a worked answer; RowError where a mark's result is wrong.

    run_tool: computes results; without it the marks' own results stand.
    """
    final = _FINAL.search(answer)
    text = answer[: final.start()] if final else answer
    ending = f"\nThe answer is {final[1].strip()}." if final else ""
    messages = [Message("user", question)]
    start = 0  # of the text that is not yet in a message
    respelled = ""  # the last result, as the tool writes it
    for number, mark in enumerate(_MARK.finditer(text), start=1):
        expression, stated = mark[1].strip(), mark[2].strip()
        call = ToolCall(f"call_{number}", CALCULATOR.name, {"expression": expression})
        result = Message("tool", stated, tool_call_id=call.id) if run_tool is None else run_tool(call)
        if not _same_number(result.content, stated):
            detail = f"a calculator mark is wrong: {mark[0]} but {expression} is {result.content}"
            raise RowError("wrong_calculator_mark", detail)
        before = (respelled + text[start : mark.start()]).strip()
        messages += [Message("assistant", before, tool_calls=(call,)), result]
        start, respelled = mark.end(), ""
        if text.startswith(stated, start):
            start, respelled = start + len(stated), result.content
    messages.append(Message("assistant", (respelled + text[start:] + ending).strip()))
    return tuple(messages)


def _same_number(one: str, other: str) -> bool:
    """Whether two figures agree to the digits that a hand-written result has."""
    try:
        first, second = _number(one), _number(other)
    except (ValueError, ZeroDivisionError):
        return False
    return abs(first - second) <= max(0.01, 0.005 * abs(first))


def _number(text: str) -> float:
    """The value of a figure as answers write it: "1,200", "$5", "3/4"."""
    above, _, below = text.replace(",", "").replace("$", "").partition("/")
    return float(above) / float(below) if below else float(above)
