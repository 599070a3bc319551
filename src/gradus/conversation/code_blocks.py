"""Code in an answer: its fenced blocks, and the program that it gives."""

from __future__ import annotations

import re

FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.S | re.M)
"""A closed block; its groups are the language and the text."""


def program_of(answer: str) -> str:
    """The last fenced block, or the whole answer where none is."""
    blocks = [match[2] for match in FENCE.finditer(answer)]
    return blocks[-1] if blocks else answer
