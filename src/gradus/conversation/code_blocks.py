"""Code in an answer: its fenced blocks, and the program that it gives."""

from __future__ import annotations

import re

FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.S | re.M)
"""A closed block; its groups are the language and the text."""


_CLOSING = re.compile(r"^[ \t]*```[ \t]*$", re.M)


def program_of(answer: str) -> str:
    """The last fenced block, or the whole answer where none is."""
    closings = [match.end() for match in _CLOSING.finditer(answer)]
    # Behind the last closing every opening would look through the whole rest in vain.
    blocks = [match[2] for match in FENCE.finditer(answer, 0, closings[-1])] if closings else []
    return blocks[-1] if blocks else answer
