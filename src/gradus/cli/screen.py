"""Where a chat is shown: a terminal with thinking dim and calls in panels, or a pipe with answers alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Screen(Protocol):
    """Shows a turn piece by piece; `end` closes it."""

    prompt: str

    def think(self, text: str) -> None: ...

    def text(self, text: str) -> None: ...

    def call(self, name: str, arguments: Mapping[str, Any]) -> None: ...

    def result(self, text: str) -> None: ...

    def problem(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


class PlainScreen:
    """Answers only, one turn a paragraph, for pipes and files; notes go to standard error."""

    prompt = ""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._line_open = False

    def think(self, text: str) -> None:
        """Thinking is no part of the answer."""

    def text(self, text: str) -> None:
        """Write and flush, so that a reader sees it as it comes."""
        text = text if self._line_open else text.lstrip("\n")
        if text:
            self._stream.write(text)
            self._stream.flush()
            self._line_open = True

    def call(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Calls are no part of the answer; text after one starts a line of its own."""
        self.end()

    def result(self, text: str) -> None:
        """Results are no part of the answer."""

    def problem(self, text: str) -> None:
        """Tell it beside the answer."""
        self.note(f"(malformed: {text})")

    def note(self, text: str) -> None:
        """One line on standard error."""
        sys.stderr.write(text + "\n")

    def end(self) -> None:
        """End the line."""
        if self._line_open:
            self._stream.write("\n")
            self._stream.flush()
        self._line_open = False


class TerminalScreen:
    """rich: thinking dim and in italics, calls with their results in panels, text as it streams."""

    prompt = "\n› "

    def __init__(self, console: Console) -> None:
        self._console = console
        self._part = ""
        self._call = ""

    def think(self, text: str) -> None:
        """Dim text under a heading of its own."""
        if self._part != "think":
            text = text.lstrip("\n")
            if not text:
                return
            self._open("think")
            self._console.print("thinking", style="dim bold")
        self._console.print(text, style="dim italic", end="", markup=False, highlight=False, soft_wrap=True)

    def text(self, text: str) -> None:
        """The answer."""
        if self._part != "text":
            text = text.lstrip("\n")
            if not text:
                return
            self._open("text")
        self._console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    def call(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Kept until its result is there, so that both share a panel."""
        self._open("")
        shown = "  ".join(f"{value}" if len(arguments) == 1 else f"{k}={value}" for k, value in arguments.items())
        self._call = f"{name}\n{shown}"

    def result(self, text: str) -> None:
        """A panel: the tool's name, what it was given, what it gave."""
        from rich.panel import Panel
        from rich.text import Text

        self._open("")
        name, _, shown = self._call.partition("\n")
        body = Text.assemble((shown, "cyan"), (" → ", "dim"), (text, "bold"))
        self._console.print(Panel(body, title=name or "tool", title_align="left", border_style="cyan", expand=False))

    def problem(self, text: str) -> None:
        """Told in place, in yellow."""
        self._open("")
        self._console.print(f"(malformed: {text})", style="yellow", markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Something that is not the model's."""
        self._console.print(text, style="dim", markup=False, highlight=False)

    def end(self) -> None:
        """End the turn's last line."""
        self._open("")

    def _open(self, part: str) -> None:
        if self._part in {"think", "text"} and self._part != part:
            self._console.print()
            if self._part == "think":
                self._console.print()
        self._part = part


def terminal_screen() -> TerminalScreen:
    """A screen on standard output."""
    from rich.console import Console

    return TerminalScreen(Console())
