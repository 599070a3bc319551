"""Regular expressions that users write, searched with a bound on the time that a text may take.

Python's `re` has none: a repeat inside a repeat goes through every way of sharing out a text, and a model in a loop
writes the text for it. The package regex reads the same patterns (its VERSION0) and takes a time limit. It departs from
`re` in what is a letter: marks that combine with the letter before them are part of a word, superscript digits are not;
and {e}, {i}, {d}, {s} behind something allow errors in it where `re` means the braces themselves.
"""

from __future__ import annotations

import re
from functools import lru_cache

import regex

from gradus.core.errors import DataError

SEARCH_SECONDS = 2.0
"""Of the process' own time, so that a busy machine decides nothing; a sound pattern takes less than a thousandth."""
_SHOWN_TEXT = 60  # characters of a text that an error shows


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> regex.Pattern[str]:
    """The pattern. Errors: ValueError for what Python's `re` does not read."""
    try:
        re.compile(pattern)
        return regex.compile(pattern, regex.VERSION0)
    except (re.error, regex.error) as error:
        raise ValueError(f"not a regular expression: {error}") from None


def found_in(text: str, pattern: str) -> regex.Match[str] | None:
    """The first match of the pattern in the text. Errors: DataError where the search takes longer than is allowed."""
    try:
        return compiled(pattern).search(text, timeout=SEARCH_SECONDS)
    except TimeoutError:
        raise DataError(
            f"the pattern {pattern} takes longer than {SEARCH_SECONDS:g} s on an answer of {len(text):,} characters "
            f"({text[:_SHOWN_TEXT]!r}); write it with fewer ways to match, such as no repeat inside a repeat"
        ) from None
