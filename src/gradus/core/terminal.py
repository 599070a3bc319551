"""Text of others on a terminal: what could steer it (escape sequences, carriage returns) is taken out."""

from __future__ import annotations

import re

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """The text without control characters but for tabs and line ends."""
    return _STEERING.sub("", text)
