r"""Final answers of worked problems: where they stand in a text, and when two of them are the same.

GSM8K: the first "#### N" of the text, commas removed, compared as text (Cobbe et al. 2021, grade_school_math,
dataset.py). Mathematics: the last \boxed{...}, compared as numbers where both are numbers and otherwise as text in
one spelling (Hendrycks et al. 2021, MATH, math_equivalence.py, compares spelling alone). As there, a unit behind the
value does not count: percent signs, degree signs, words behind a number. Nothing here evaluates what a model wrote:
numbers are read by a grammar of a few lines, with bounds.
"""

from __future__ import annotations

import re
from fractions import Fraction

from gradus.conversation.checks import last_number

_GSM8K = re.compile(r"#### (\-?[0-9\.\,]+)")
_STATED = re.compile(r"The answer is (\-?[0-9\.\,]+?)\.?\s*$")
_BRACE = re.compile(r"\\(?:boxed|fbox)\s{0,8}\{|[{}]")
_DIGITS_AT_MOST = 400
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_FRACTION = re.compile(r"(?P<sign>[+-]?)\\frac(?:\{(?P<a>[^{}]*)\}|(?P<a1>\d))(?:\{(?P<b>[^{}]*)\}|(?P<b1>\d))")
# MATH asks "what percent" and "how many degrees" with references of either kind: 25 and 25\%, 90 and 90^\circ.
_SIGNS = re.compile(r"\\?%|\^\s?(?:\\circ(?![A-Za-z])|\{\s?\\circ\s?\})|°|\\degree(?![A-Za-z])")
_UNIT = re.compile(r"(?<=[\d.}])(?:\\[ ,])?\s?\\(?:text|mbox)\s?\{\s(?!\s*[ap]\.m)[^{}]*\}(?:\^\{?\d\}?)?\$?$")
_WORDS = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\left|\\right|\\[!,;: ]|\\quad|\\\$|[\s$]")


def gsm8k_answer(text: str) -> str | None:
    """The number behind the first "#### ", without commas; None where there is none."""
    found = _GSM8K.search(text)
    return found[1].strip().replace(",", "") if found else None


def stated_answer(text: str) -> str | None:
    """A reference's final number: as GSM8K writes it, or as imported rows do, "The answer is N." at the very end."""
    found = _STATED.search(text)
    return gsm8k_answer(text) or (found[1].replace(",", "") if found else None)


def boxed_answer(text: str) -> str | None:
    r"""What stands in the last complete \boxed{...}; None where there is none."""
    opened: list[int | None] = []  # of each open brace: where its box begins, None for other braces
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace[0] != "}":
            opened.append(brace.end() if len(brace[0]) > 1 else None)
        elif opened and (start := opened.pop()) is not None and (last is None or start > last[0]):
            last = start, brace.start()
    return None if last is None else text[last[0] : last[1]].strip()


def same_value(one: str, other: str) -> bool:
    """Whether two final answers are the same number, list of numbers, or text."""
    first, second = plain_mathematics(one), plain_mathematics(other)
    if not first or not second:
        return False
    if first == second:
        return True
    parts, others = _parts(first), _parts(second)
    if len(parts) != len(others) or (len(parts) > 1 and (first[0], first[-1]) != (second[0], second[-1])):
        return False
    return all(a == b or _same_number(a, b) for a, b in zip(parts, others, strict=True))


def plain_mathematics(text: str) -> str:
    r"""One spelling: without white space, $, \left, \right, units and full stop; \dfrac as \frac, words bare."""
    text = _UNIT.sub("", text.strip())
    text = _WORDS.sub(r"\1", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _SIGNS.sub("", text).replace("−", "-")
    text = _SPACING.sub("", text).rstrip(".")
    # x = 5 answers with 5, where the name is a single letter.
    return re.sub(r"^[A-Za-z]=", "", text)


def number(text: str) -> Fraction | None:
    r"""The value of a plain number: 1,234.5, -3, 2/3, \frac{2}{3}, 1e6; None for anything else."""
    text = plain_mathematics(text)
    if len(text) > _DIGITS_AT_MOST:
        return None
    fraction = _FRACTION.fullmatch(text)
    if fraction is not None:
        above, below = fraction["a"] or fraction["a1"], fraction["b"] or fraction["b1"]
        value = _ratio(above or "", below or "")
        return -value if value is not None and fraction["sign"] == "-" else value
    if text.count("/") == 1:
        return _ratio(*text.split("/"))
    return _decimal(text)


def last_value(text: str) -> str | None:
    """The last number of a text, as text that `same_value` reads; None where there is none."""
    value = last_number(text)
    return None if value is None else str(value)


def _ratio(above: str, below: str) -> Fraction | None:
    first, second = _decimal(above), _decimal(below)
    return None if first is None or not second else first / second


def _decimal(text: str) -> Fraction | None:
    if re.fullmatch(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text):
        text = text.replace(",", "")
    return Fraction(text) if text.isascii() and _DECIMAL.fullmatch(text) else None


def _same_number(one: str, other: str) -> bool:
    first, second = number(one), number(other)
    return first is not None and first == second


def _parts(text: str) -> list[str]:
    """The members of (a, b), [a, b] or {a, b}; anything else is one part."""
    inner = text[1:-1] if text[0] in "([" and text[-1] in ")]" else None
    if inner is None or "," not in inner:
        return [text]
    return inner.split(",")
