"""Text of others on a terminal: what could steer it (escape sequences, carriage returns) is taken out.

Unpaired surrogates go too, which JSON of others can hold: printing one is an error.
"""

from __future__ import annotations

import re

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text without control characters, but for tabs and line ends, and without halves of characters."""
    return _STEERING.sub("", text)
