"""The word lists in banks/: common English words for spelling and letter counts, and nouns for word problems.

The lists are plain text beside this file, read once on first use.
"""

from __future__ import annotations

import random
from functools import cache
from importlib.resources import files

from gradus.data.synthetic.item import pick


def _bank(name: str) -> str:
    return files("gradus.data.synthetic").joinpath("banks", name).read_text(encoding="utf-8")


@cache
def everyday_words() -> tuple[str, ...]:
    """The commonest words, 3 to 10 lower-case letters, sorted."""
    return _word_list("words.txt")


@cache
def further_words() -> tuple[str, ...]:
    """Common words beyond the everyday ones, longer on average, sorted."""
    return _word_list("more_words.txt")


@cache
def spelling_words() -> tuple[str, ...]:
    """Every word that may be asked to be spelt, sorted."""
    return tuple(sorted({*everyday_words(), *further_words()}))


def random_word(rng: random.Random) -> str:
    """A word to spell: seven times in ten an everyday one."""
    return pick(rng, everyday_words() if rng.random() < 0.7 else further_words())


def _word_list(name: str) -> tuple[str, ...]:
    return tuple(word for word in sorted(set(_bank(name).split())) if 3 <= len(word) <= 10)


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
