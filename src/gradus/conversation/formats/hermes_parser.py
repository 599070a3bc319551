"""Reading the assistant's side of the hermes format, one id at a time.

Only control ids steer it: "<tool_call>" spelled out in text stays text. Malformed output never raises; each
fault becomes a Problem and the rest is read as well as it can be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal

from gradus.conversation.formats.wire import (
    CallReady,
    Event,
    Parsed,
    Problem,
    Stop,
    TextDelta,
    ThinkDelta,
)
from gradus.conversation.messages import Message, ToolCall, check_arguments
from gradus.core.errors import DataError
from gradus.tokenizer import specials
from gradus.tokenizer.streaming import StreamDecoder
from gradus.tokenizer.tokenizer import Tokenizer

_State = Literal["text", "think", "call"]


class _Trimmer:
    """`str.strip` for text in pieces: leading white space goes, trailing is held until text follows."""

    def __init__(self) -> None:
        self.started = False
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        if not self.started:
            text = text.lstrip()
        body = text.rstrip()
        self._held = text[len(body) :]
        self.started = self.started or bool(body)
        return body


class HermesParser:
    """Turns generated ids into events."""

    def __init__(
        self, tokenizer: Tokenizer, stop_ids: Iterable[int], in_think: bool = False, first_call: int = 1
    ) -> None:
        """in_think: the prompt ended with an open think block."""
        self._names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
        self._stop_ids = frozenset(stop_ids)
        self._decoder = StreamDecoder(tokenizer)
        self._state: _State = "think" if in_think else "text"
        self.had_think = in_think
        self._num_calls = 0
        self._had_late_text = False
        self._first_call = first_call
        self._call_text = ""
        self._text, self._thinking = _Trimmer(), _Trimmer()
        self._stopped = False

    @property
    def in_think(self) -> bool:
        return self._state == "think"

    def push(self, token_id: int) -> list[Event]:
        """The events that this id completes; nothing after a stop."""
        if self._stopped:
            return []
        name = self._names.get(token_id)
        if name is None and token_id not in self._stop_ids:
            return self._pour(self._decoder.push(token_id))
        events = self._pour(self._decoder.finish())
        if token_id in self._stop_ids:
            self._stopped = True
            return [*events, *self._close_open_parts(), Stop(token_id)]
        return [*events, *self._control(name or "")]

    def finish(self) -> list[Event]:
        """Text still held back, when generation ends without a stop token."""
        if self._stopped:
            return []
        self._stopped = True
        return [*self._pour(self._decoder.finish()), *self._close_open_parts()]

    def _pour(self, text: str) -> list[Event]:
        """Text into whatever is open."""
        if not text:
            return []
        if self._state == "call":
            self._call_text += text
            return []
        if self._state == "think":
            text = self._thinking.push(text)
            return [ThinkDelta(text)] if text else []
        events: list[Event] = []
        if self._num_calls and not self._had_late_text and not text.isspace():
            self._had_late_text = True
            events.append(Problem("text after a tool call"))
        text = self._text.push(text)
        if text:
            events.append(TextDelta(text))
        return events

    def _control(self, name: str) -> list[Event]:
        events: list[Event] = []
        if name == specials.THINK:
            if self._state != "text":
                return [Problem(f"{name} inside {self._inside()}")]
            if self.had_think:
                events.append(Problem("a second think block"))
            elif self._text.started or self._num_calls:
                events.append(Problem("thinking after the answer began"))
            self._state, self.had_think = "think", True
        elif name == specials.THINK_END:
            if self._state != "think":
                return [Problem(f"{name} without {specials.THINK}")]
            self._state = "text"
        elif name == specials.TOOL_CALL:
            if self._state == "call":
                events += self._close_open_parts()
            elif self._state == "think":
                events.append(Problem("a tool call inside thinking"))
            self._state, self._call_text = "call", ""
        elif name == specials.TOOL_CALL_END:
            if self._state != "call":
                return [Problem(f"{name} without {specials.TOOL_CALL}")]
            self._state = "text"
            events.append(self._call())
        else:
            events.append(Problem(f"unexpected control token {name}"))
        return events

    def _inside(self) -> str:
        return "a tool call" if self._state == "call" else "thinking"

    def _call(self) -> Event:
        self._num_calls += 1
        try:
            row = json.loads(self._call_text)
            check_arguments(row, "call")  # "\ud800", NaN and 1e999 are read, and could not be written again
        except (ValueError, RecursionError, DataError):
            return Problem(f"a tool call that is no JSON: {_short(self._call_text)}")
        if not (
            isinstance(row, dict)
            and set(row) == {"name", "arguments"}
            and isinstance(row["name"], str)
            and isinstance(row["arguments"], dict)
        ):
            return Problem(f"a tool call without just a name and arguments: {_short(self._call_text)}")
        call_id = f"call_{self._first_call + self._num_calls - 1}"
        return CallReady(ToolCall(call_id, row["name"], row["arguments"]))

    def _close_open_parts(self) -> list[Event]:
        """The problem of a part that never closed."""
        state, self._state = self._state, "text"
        if state == "think":
            return [Problem("thinking never closed")]
        if state == "call":
            return [Problem(f"a tool call never closed: {_short(self._call_text)}")]
        return []


def parse_ids(parser: HermesParser, ids: Iterable[int], think: bool | None) -> Parsed:
    """Drive a fresh parser over all ids and collect the message; think as in HermesFormat.parse."""
    thinking: list[str] = []
    text: list[str] = []
    calls: list[ToolCall] = []
    problems: list[str] = []
    stopped = False
    events: list[Event] = []
    for token_id in ids:
        events += parser.push(int(token_id))
    events += parser.finish()
    for event in events:
        match event:
            case ThinkDelta():
                thinking.append(event.text)
            case TextDelta():
                text.append(event.text)
            case CallReady():
                calls.append(event.call)
            case Problem():
                problems.append(event.text)
            case Stop():
                stopped = True
    # An empty think block, forced or written, is "" and not None: it renders to the same ids again.
    reasoning = "".join(thinking) if parser.had_think or think is False else None
    message = Message("assistant", "".join(text), reasoning, tuple(calls))
    return Parsed(message, tuple(problems), stopped)


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 80 else text[:77] + "...")
