"""Finding telephone numbers that are written as such: international, or North American with separators."""

from __future__ import annotations

import re

# "+44 20 7946 0958", "+1 (212) 736-5000"
_GROUP = r"[ .-]\d{2,5}"
_INTERNATIONAL = (
    rf"\+[1-9]\d{{0,2}}[ .-]?(?:\(\d{{1,4}}\)[ .-]?\d{{1,4}}(?:{_GROUP}){{1,4}}|\d{{1,4}}(?:{_GROUP}){{2,4}})"
)
# "(212) 736-5000", "212-736-5000", "212.736.5000"; area codes and exchanges begin with 2 to 9
_NORTH_AMERICAN = r"(?:\([2-9]\d\d\) ?[2-9]\d\d-|[2-9]\d\d-[2-9]\d\d-|[2-9]\d\d\.[2-9]\d\d\.)\d{4}"
_PHONE = re.compile(rf"(?:{_INTERNATIONAL}|{_NORTH_AMERICAN})(?![\w.-]?\d|\w)", re.ASCII)
# Before a number these make it part of a formula, a longer number or an identifier.
_NOT_BEFORE = frozenset("+-*/=^.,_%$#&")


def find_phones(text: str) -> list[tuple[int, int]]:
    """Spans of telephone numbers."""
    spans: list[tuple[int, int]] = []
    for match in _PHONE.finditer(text):
        before = text[match.start() - 1 : match.start()]
        if not (before.isalnum() or before in _NOT_BEFORE):
            spans.append(match.span())
    return spans
