"""What was said so far of a turn that was stopped, from its events; and what a chat needs of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gradus.conversation.formats.wire import CallReady, TextDelta, ThinkDelta
from gradus.conversation.messages import Message, ToolCall
from gradus.engine.turn import Request, StreamEvent, ToolResult
from gradus.tools.toolbox import ToolBox


class ChatEngine(Protocol):
    """A model here or a remote one."""

    toolbox: ToolBox

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """Answer one request as typed events, `Done` last; close it to stop."""
        ...


class PartialTurn:
    """Messages of a turn in the making; calls without all of their results are no part of it."""

    def __init__(self) -> None:
        self._whole: list[Message] = []
        self._think: str | None = None
        self._text = ""
        self._calls: list[ToolCall] = []
        self._results: list[Message] = []

    def take(self, event: StreamEvent) -> None:
        """The next event."""
        if isinstance(event, ThinkDelta):
            self._think = (self._think or "") + event.text
        elif isinstance(event, TextDelta):
            self._text += event.text
        elif isinstance(event, CallReady):
            self._calls.append(event.call)
        elif isinstance(event, ToolResult):
            self._results.append(event.message)
            if len(self._results) == len(self._calls):
                self._whole += [self._message(tuple(self._calls)), *self._results]
                self._think, self._text, self._calls, self._results = None, "", [], []

    def messages(self) -> tuple[Message, ...]:
        """What is kept when it ends here; empty where nothing was said."""
        last = self._message()
        return (*self._whole, *([last] if last.content or last.reasoning_content else []))

    def _message(self, calls: tuple[ToolCall, ...] = ()) -> Message:
        """What was said since the last results; formats put line ends around thinking that are no part of it."""
        think = None if self._think is None else self._think.strip("\n")
        return Message("assistant", self._text.lstrip("\n"), think, calls)
