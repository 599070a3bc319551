"""Line numbers of TOML keys, which tomllib does not give.

A small scanner over text that tomllib has already accepted: it follows headers, dotted keys, strings, arrays
and inline tables, and notes the line where each key path begins. It reads no values.
"""

from __future__ import annotations

from bisect import bisect_right

from gradus.core.settings import KeyPath

_SPACE = " \t"
_BLANK = " \t\r\n"


class Locator:
    """Lines of every key path of one TOML text. The text must be valid TOML."""

    def __init__(self, text: str) -> None:
        self.lines = _Scanner(text).scan()

    def line(self, path: KeyPath) -> int:
        """The line (from 1) of a path, or of its nearest enclosing one that is written."""
        for length in range(len(path), 0, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.starts = [0] + [i + 1 for i, c in enumerate(text) if c == "\n"]
        self.lines: dict[KeyPath, int] = {}
        self.counts: dict[KeyPath, int] = {}  # tables so far in each array of tables

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK, comments=True)
            if self.at >= len(self.text):
                return self.lines
            if self.text.startswith("[[", self.at):
                table = self._header(2)
            elif self.text[self.at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _here(self) -> int:
        return bisect_right(self.starts, self.at)

    def _note(self, path: KeyPath, line: int) -> None:
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _skip(self, characters: str, comments: bool = False) -> None:
        text = self.text
        while self.at < len(text):
            if text[self.at] in characters:
                self.at += 1
            elif comments and text[self.at] == "#":
                end = text.find("\n", self.at)
                self.at = len(text) if end < 0 else end
            else:
                return

    def _header(self, brackets: int) -> KeyPath:
        """[a.b] or [[a.b]]: the path that the following pairs belong to."""
        line = self._here()
        self.at += brackets
        parts = self._key()
        self._skip(_SPACE)
        self.at += brackets
        path: KeyPath = ()
        for index, part in enumerate(parts):
            path = (*path, part)
            last = index == len(parts) - 1
            if path in self.counts and not (last and brackets == 2):
                # A name that is an array of tables means its newest table.
                path = (*path, self.counts[path] - 1)
        if brackets == 2:
            index = self.counts.get(path, 0)
            self.counts[path] = index + 1
            path = (*path, index)
        # A table that was only implied before, by a deeper header, is found where it is written.
        self._note(path, line)
        self.lines[path] = line
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._here()
        path = (*table, *self._key())
        self._note(path, line)
        self._skip(_SPACE)
        self.at += 1  # =
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> tuple[str, ...]:
        """A dotted key, its parts unquoted."""
        parts = []
        while True:
            self._skip(_SPACE)
            if self.text[self.at] in "\"'":
                parts.append(self._string())
            else:
                start = self.at
                while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "_-"):
                    self.at += 1
                parts.append(self.text[start : self.at])
            self._skip(_SPACE)
            if self.at >= len(self.text) or self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _value(self, path: KeyPath) -> None:
        character = self.text[self.at]
        if character in "\"'":
            self._string()
        elif character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\r\n":
                self.at += 1

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_BLANK + ",", comments=True)
            if self.text[self.at] == "]":
                self.at += 1
                return
            self._note((*path, index), self._here())
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while True:
            self._skip(_BLANK + ",", comments=True)
            if self.text[self.at] == "}":
                self.at += 1
                return
            self._pair(path)

    def _string(self) -> str:
        """Step over a string of any of the four forms; its text matters only where it is a key."""
        text, quote = self.text, self.text[self.at]
        if text.startswith(quote * 3, self.at):
            self.at += 3
            while not text.startswith(quote * 3, self.at):
                self.at += 2 if quote == '"' and text[self.at] == "\\" else 1
            self.at += 3
            # Up to two quotes may stand directly before the closing three.
            while self.at < len(text) and text[self.at] == quote:
                self.at += 1
            return ""
        start = self.at
        self.at += 1
        while text[self.at] != quote:
            self.at += 2 if quote == '"' and text[self.at] == "\\" else 1
        self.at += 1
        body = text[start + 1 : self.at - 1]
        return _unescape(body) if quote == '"' and "\\" in body else body


_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def _unescape(body: str) -> str:
    """A basic string's escapes, as TOML 1.0 defines them."""
    out, at = [], 0
    while at < len(body):
        if body[at] != "\\":
            out.append(body[at])
            at += 1
            continue
        code = body[at + 1]
        if code in "uU":
            digits = 4 if code == "u" else 8
            out.append(chr(int(body[at + 2 : at + 2 + digits], 16)))
            at += 2 + digits
        else:
            out.append(_ESCAPES[code])
            at += 2
    return "".join(out)
