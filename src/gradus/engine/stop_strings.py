"""Ending a reply at a string: text is held back as long as it may be the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Text in pieces, up to the first stop string, which is not part of it."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What of the text so far is certain and new; nothing once a stop string was found."""
        if self.found:
            return ""
        text = self._held + text
        places = [place for string in self._strings if (place := text.find(string)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        self._held = text[len(text) - self._possible_beginning(text) :]
        return text[: len(text) - len(self._held)]

    def finish(self) -> str:
        """What is still held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _possible_beginning(self, text: str) -> int:
        """Characters at the end with which some stop string begins."""
        longest = max(map(len, self._strings), default=0) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(string.startswith(text[-n:]) for string in self._strings)), 0)
