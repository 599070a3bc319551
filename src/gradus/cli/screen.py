"""Where a chat is shown: a terminal with thinking dim and calls in panels, or a pipe with answers alone."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol

from gradus.cli.word_wrap import WordWrap
from gradus.core.terminal import harmless

if TYPE_CHECKING:
    from rich.console import Console

_RESULT_LINES = 12  # of a tool's result that are shown


class Screen(Protocol):
    """Shows a turn piece by piece; `end` closes it."""

    prompt: str

    def think(self, text: str) -> None: ...

    def text(self, text: str) -> None: ...

    def call(self, name: str, arguments: Mapping[str, Any]) -> None: ...

    def result(self, text: str) -> None: ...

    def problem(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def rows(self, rows: Sequence[tuple[str, str]]) -> None:
        """A list of two columns that is not the model's."""
        ...

    def end(self) -> None: ...

    def ask(self, text: str) -> str:
        """The text as the user has changed it; '' where nobody can."""
        ...


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
        sys.stderr.write(harmless(text) + "\n")

    def rows(self, rows: Sequence[tuple[str, str]]) -> None:
        """A line each, on standard error."""
        width = max((len(left) for left, _ in rows), default=0)
        self.note("\n".join(f"{left:<{width}}  {right}" for left, right in rows))

    def end(self) -> None:
        """End the line."""
        if self._line_open:
            self._stream.write("\n")
            self._stream.flush()
        self._line_open = False

    def ask(self, text: str) -> str:
        """Nobody is there to ask."""
        return ""


class TerminalScreen:
    """rich: thinking dim and in italics, calls with their results in panels, text as it streams, broken at words.

    What the model and its tools say is shown without control characters: it must not steer the terminal.
    """

    prompt = "\n› "

    def __init__(self, console: Console) -> None:
        self._console = console
        self._part = ""
        self._wrap = WordWrap(console.width)
        self._calls: deque[tuple[str, str]] = deque()  # name and arguments of those that have no result yet

    def think(self, text: str) -> None:
        """Dim text under a heading of its own."""
        self._say("think", text)

    def text(self, text: str) -> None:
        """The answer."""
        self._say("text", text)

    def call(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Kept until its result is there, so that both share a panel."""
        self._open("")
        shown = "  ".join(f"{value}" if len(arguments) == 1 else f"{k}={value}" for k, value in arguments.items())
        self._calls.append((harmless(name), harmless(shown)))

    def result(self, text: str) -> None:
        """A panel: the tool's name, what it was given, what it gave."""
        from rich.panel import Panel
        from rich.text import Text

        self._open("")
        name, shown = self._calls.popleft() if self._calls else ("tool", "")
        lines = harmless(text).splitlines()
        more = [f"… {len(lines) - _RESULT_LINES} more lines"] if len(lines) > _RESULT_LINES else []
        found = "\n".join([*lines[:_RESULT_LINES], *more])
        body = Text.assemble((shown, "cyan"), (" → ", "dim"), (found, "bold"))
        title = Text(name)
        self._console.print(Panel(body, title=title, title_align="left", border_style="cyan", expand=False))

    def problem(self, text: str) -> None:
        """Told in place, in yellow."""
        self._open("")
        self._console.print(f"(malformed: {harmless(text)})", style="yellow", markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Something that is not the model's."""
        self._console.print(harmless(text), style="dim", markup=False, highlight=False)

    def rows(self, rows: Sequence[tuple[str, str]]) -> None:
        """Columns that wrap each for itself."""
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for left, right in rows:
            grid.add_row(Text(harmless(left), style="dim"), Text(harmless(right), style="dim"))
        self._console.print(grid)

    def end(self) -> None:
        """End the turn's last line."""
        self._open("")
        self._calls.clear()

    def ask(self, text: str) -> str:
        """On the line of the keyboard."""
        from gradus.cli.keyboard import edited

        return edited(self.prompt, text) if sys.stdin.isatty() else ""

    def _say(self, part: str, text: str) -> None:
        text = harmless(text)
        if self._part != part:
            text = text.lstrip("\n")
            if not text:
                return
            self._open(part)
            if part == "think":
                self._console.print("thinking", style="dim bold")
        self._write(self._wrap.push(text))

    def _write(self, text: str) -> None:
        style = "dim italic" if self._part == "think" else None
        self._console.print(text, style=style, end="", markup=False, highlight=False, soft_wrap=True)

    def _open(self, part: str) -> None:
        """End the part that is open, unless it goes on."""
        if self._part and self._part != part:
            self._write(self._wrap.finish())
            self._console.print()
            if self._part == "think":
                self._console.print()
        if self._part != part:
            self._wrap = WordWrap(self._console.width)
        self._part = part


def terminal_screen() -> TerminalScreen:
    """A screen on standard output."""
    from rich.console import Console

    return TerminalScreen(Console())
