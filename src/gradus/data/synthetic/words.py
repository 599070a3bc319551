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


_IRREGULAR = {
    "mouse": "mice",
    "child": "children",
    "goose": "geese",
    "fish": "fish",
    "sheep": "sheep",
    "loaf": "loaves",
    "leaf": "leaves",
    "shelf": "shelves",
    "knife": "knives",
    "photo": "photos",
    "candy": "candies",
    "pony": "ponies",
    "donkey": "donkeys",
    "turkey": "turkeys",
}


def plural(noun: str) -> str:
    """The plural of a noun of the banks: boxes, loaves of bread."""
    head, of, rest = noun.partition(" of ")
    first, space, last = head.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")) or last in ("potato", "tomato", "mango"):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{first}{space}{last}{of}{rest}"
