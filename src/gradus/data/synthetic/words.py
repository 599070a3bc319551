"""The word lists in banks/: common English words for spelling and letter counts, and nouns for word problems.

The lists are plain text beside this file, read once on first use.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


def _bank(name: str) -> str:
    return files("gradus.data.synthetic").joinpath("banks", name).read_text(encoding="utf-8")


@cache
def spelling_words() -> tuple[str, ...]:
    """Common English words of 3 to 10 lower-case letters, sorted, each once."""
    words = sorted(set(_bank("words.txt").split()))
    return tuple(word for word in words if 3 <= len(word) <= 10)
