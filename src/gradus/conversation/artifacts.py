"""Artifacts of poor chat data in a text: markup that chat pages do not render, stock phrases, repetition.

One definition for the pool filters, for preference pairs and for the audit of a model. Code is never looked
at: fenced blocks and spans in backticks are blank to every pattern. An
artifact here is a fault of a text; gradus.core.artifact is something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import regex
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Found:
    """One artifact: its kind (a key of ARTIFACTS), where it stands in the text, and its first characters."""

    kind: str
    start: int
    end: int
    excerpt: str


@dataclass(frozen=True, slots=True)
class Loop:
    """A stretch of text that says the same again and again: a period of so many words, or letters, so many times."""

    start: int
    end: int
    period: int
    unit: str
    repeats: int

    def __str__(self) -> str:
        unit = self.unit if self.period > 1 else self.unit.removesuffix("s")
        return f"{self.period} {unit} {self.repeats} times over"


# What opens a block of backticks holds no backtick behind them: ```so``` is code in a line.
_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}(?=[^`\n]*(?:\n|\Z))|~{3,})[^\n]*(?:\n|\Z)", re.MULTILINE)
_PARAGRAPH = re.compile(r"(?:[^\n]|\n(?![ \t]*(?:\n|\Z)))+")
_TICKS = re.compile(r"`+")


def without_code(text: str) -> str:
    """The text with all code as spaces of the same length: line breaks and every position stay."""
    if "`" not in text and "~~~" not in text:
        return text
    fenced = list(_fenced(text))
    outside = _with_blanks(text, fenced)
    return _with_blanks(outside, _inline_code(outside))


def _fenced(text: str) -> Iterator[tuple[int, int]]:
    """Fenced blocks with their fences; one that is never closed reaches to the end of the text."""
    at = 0
    while opening := _FENCE.search(text, at):
        fence = opening["fence"]
        closing = re.compile(rf"^ {{0,3}}{re.escape(fence)}{fence[0]}*[ \t]*(?:\n|\Z)", re.MULTILINE)
        closed = closing.search(text, opening.end())
        at = closed.end() if closed else len(text)
        yield opening.start(), at
        if at == len(text):
            return


def _inline_code(text: str) -> Iterator[tuple[int, int]]:
    """Spans in backticks: closed by as many as opened them, in the same paragraph."""
    for paragraph in _PARAGRAPH.finditer(text):
        ticks = list(_TICKS.finditer(text, *paragraph.span()))
        by_length: dict[int, list[int]] = {}
        for place in reversed(range(len(ticks))):
            by_length.setdefault(len(ticks[place].group()), []).append(place)
        passed = -1
        for place, opening in enumerate(ticks):
            later = by_length[len(opening.group())]
            while later and later[-1] <= place:
                later.pop()
            if place > passed and later:
                passed = later[-1]
                yield opening.start(), ticks[passed].end()


def _with_blanks(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts = []
    at = 0
    for start, end in spans:
        parts += [text[at:start], re.sub(r"[^\n]", " ", text[start:end])]
        at = end
    return "".join(parts) + text[at:]


_TAG_NAMES = (
    "b|i|u|s|p|em|strong|br|hr|sub|sup|small|big|center|font|span|div|h[1-6]|ul|ol|li|table|thead|tbody|tr|td|th"
    "|blockquote|img|mark|del|ins|strike"
)
_ATTRIBUTES = r"(?:\s+[a-zA-Z-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=]+)){0,20}"
# "a<b>c" is a comparison: a one-letter tag that opens must not touch the word before it.
_HTML_TAG = re.compile(rf"(?:</|<(?![bius]>)|(?<!\w)<)(?:{_TAG_NAMES}){_ATTRIBUTES}\s*/?>", re.IGNORECASE)

# A label that opens a line, bare or set in Markdown: "Answer:", "**Final Answer:**", "### Response:".
_STOCK_LABEL = re.compile(
    r"^[ \t>]*(?:#{1,6}[ \t]*)?[*_]{0,3}"
    r"(?:(?:(?:my|the|short|final|full|correct|your|model|ai|chatbot)[ \t]+)?(?:answer|response|reply|output)"
    r"|assistant|chatbot|ai|bot|human|user|instruction)"
    r"[*_]{0,3}[ \t]?:",
    re.IGNORECASE | re.MULTILINE,
)

_IMAGE_PLACEHOLDER = re.compile(
    r"!\[[^\]\n]{0,200}\](?!\()"  # an image without an address
    r"|!\[[^\]\n]{0,200}\]\((?!\s*<?(?:https?://|data:image/|/|\.{1,2}/|[\w%.-]+/|[\w%.-]+\.(?:png|jpe?g|gif|svg|webp)\b))[^)\n]{0,200}\)"
    r"|[\[(<](?:(?:insert|add|attach|see|your)\s+)?(?:the\s+|an?\s+)?(?:image|photo|picture|figure|img|screenshot)"
    r"(?:\s+(?:here|placeholder|goes here|of [^\])>\n]{1,80}|\d{1,3})|\s*:[^\])>\n]{0,120})?[\])>](?!\()",
    re.IGNORECASE,
)

# One emoji: a flag, a keycap, or a pictograph with its skin tone, variation selector and joined parts.
_EMOJI = (
    r"(?:\p{Regional_Indicator}{2}|[0-9#*]\uFE0F?\u20E3"
    r"|(?![©®™])\p{Extended_Pictographic}[\uFE0F\p{Emoji_Modifier}]*(?:\u200D\p{Extended_Pictographic}[\uFE0F\p{Emoji_Modifier}]*)*)"
)
_EMOJI_RUN = regex.compile(rf"{_EMOJI}(?:[ \t]*{_EMOJI}){{2,}}")

_APOSTROPHE = "['’ʼ]?"
_HEDGE = re.compile(
    r"\bas\s+an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model|virtual\s+assistant|chatbot)\b"
    # "I am a language model made by ..." tells who is speaking; these excuse.
    rf"|\bi(?:{_APOSTROPHE}m|\s+am)\s+(?:(?:just|only|merely)\s+an?\s+(?:ai\b|artificial\s+intelligence"
    r"|(?:large\s+)?language\s+model|chatbot)|an\s+ai\s+language\s+model)"
    rf"|\bi\s+(?:do\s+not|don{_APOSTROPHE}t)\s+have\s+(?:any\s+)?"
    r"(?:personal|feelings|emotions|opinions|consciousness|a\s+physical|real-time|access\s+to\s+(?:real-time|current))"
    r"|\bmy\s+(?:knowledge\s+cut-?off|training\s+data|last\s+(?:knowledge\s+)?update)\b"
    r"|\bas\s+of\s+my\s+(?:last|knowledge|training)\b"
    r"|\bit(?:\s+is|['’ʼ]s)\s+(?:also\s+)?(?:important|worth|essential|crucial)\s+(?:to\s+(?:note|remember|mention)|noting)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    rf"\bi(?:{_APOSTROPHE}m|\s+am)\s+(?:very\s+|really\s+|so\s+)?(?:sorry|afraid)\s*,?\s*(?:but\s+)?(?:that\s+)?"
    rf"i(?:\s+(?:can\s*not|can{_APOSTROPHE}t|am\s+(?:not\s+able|unable)|do\s+not|don{_APOSTROPHE}t)"
    rf"|{_APOSTROPHE}m\s+(?:not\s+able|unable))\b"
    rf"|\bi(?:\s+(?:can\s*not|can{_APOSTROPHE}t|will\s+not|won{_APOSTROPHE}t|am\s+(?:not\s+able|unable)\s+to)"
    rf"|{_APOSTROPHE}m\s+(?:not\s+able|unable)\s+to)\s+(?:be\s+able\s+to\s+)?"
    r"(?:fulfill?|comply|assist\s+(?:you\s+)?with|help\s+(?:you\s+)?with|provide|answer|engage\s+in|generate\s+(?:content|that))\b",
    re.IGNORECASE,
)

LINE_REPEATS = 3
LOOP_REPEATS = 4
LOOP_WORDS = 12
_LONGEST_LOOP = 40
_HAS_WORD = re.compile(r"\w")
_WORD = re.compile(r"\w+|[^\w\s]")
_STUTTER_REPEATS = 12
_STUTTER = re.compile(rf"([^\W\d_]{{1,8}}?)\1{{{_STUTTER_REPEATS - 1},}}")


def _repeated_lines(text: str) -> Iterator[tuple[int, int]]:
    """Stretches of LINE_REPEATS equal lines or more, blank ones between them or not.

    Lines without a letter or digit (rules, dots) are layout.
    """
    previous, first, count, at, end = "", 0, 0, 0, 0
    for line in [*text.splitlines(keepends=True), "\0"]:
        shown = line.strip()
        if shown and (shown != previous or not _HAS_WORD.search(shown)):
            if count >= LINE_REPEATS:
                yield first, end
            previous, first, count = shown, at, 1
        elif shown:
            count += 1
        at += len(line)
        end = at if shown else end


def find_loops(text: str) -> Iterator[Loop]:
    """Stretches outside of code where the same words come LOOP_REPEATS times in a row over LOOP_WORDS words or more.

    Also one to eight letters _STUTTER_REPEATS times over, which stand in one word or in text without spaces; and
    figures or signs alone as often. The filters of pools leave those, which tables have.
    """
    return _loops(without_code(text), figures=True)


def _loops(text: str, *, figures: bool = False) -> Iterator[Loop]:
    words = list(_WORD.finditer(text))
    for word in words:
        if word.end() - word.start() >= _STUTTER_REPEATS:
            for stutter in _STUTTER.finditer(text, *word.span()):
                period = len(stutter[1])
                yield Loop(*stutter.span(), period, "letters", len(stutter[0]) // period)
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(word.group(), len(numbers)) for word in words], dtype=np.int64)
    if len(ids) < LOOP_WORDS or not _has_frequent_triple(ids):
        return
    covered = np.zeros(len(words), dtype=bool)
    for period in range(1, min(_LONGEST_LOOP, len(words) // LOOP_REPEATS) + 1):
        needed = max(LOOP_REPEATS * period, LOOP_WORDS) - period
        equal = ids[period:] == ids[:-period]
        if np.count_nonzero(equal) < needed:
            continue
        edges = np.flatnonzero(np.diff(equal, prepend=False, append=False))
        for first, end in zip(edges[0::2], edges[1::2] + period, strict=True):
            # A loop of two words is one of four too: the shortest period is reported.
            if end - period - first < needed or covered[first:end].all():
                continue
            has_letters = any(word.group()[0].isalpha() for word in words[first : first + period])
            if has_letters or (figures and end - first >= _STUTTER_REPEATS * period):
                covered[first:end] = True
                start, stop = words[first].start(), words[end - 1].end()
                yield Loop(start, stop, period, "words", int(end - first) // period)


def _has_frequent_triple(ids: NDArray[np.int64]) -> bool:
    """Whether three words in a row come three times: every loop has such, and most texts do not."""
    base = len(ids)
    triples = (ids[:-2] * base + ids[1:-1]) * base + ids[2:]
    return bool(np.unique(triples, return_counts=True)[1].max() >= LOOP_REPEATS - 1)


def _matches(pattern: re.Pattern[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    return lambda text: (match.span() for match in pattern.finditer(text))


ARTIFACTS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "html_tag": _matches(_HTML_TAG),
    "stock_label": _matches(_STOCK_LABEL),
    "image_placeholder": _matches(_IMAGE_PLACEHOLDER),
    "emoji_run": lambda text: (match.span() for match in _EMOJI_RUN.finditer(text)),
    "hedge": _matches(_HEDGE),
    "refusal": _matches(_REFUSAL),
    "repeated_line": _repeated_lines,
    "loop": lambda text: ((loop.start, loop.end) for loop in _loops(text)),
}
"""Kind of artifact: where it stands in a text whose code is blank, as (start, end)."""

_EXCERPT = 80


def find_artifacts(text: str, kinds: tuple[str, ...] = tuple(ARTIFACTS)) -> list[Found]:
    """Every artifact of these kinds outside of code, in the order of the text; KeyError for a kind unknown."""
    prose = without_code(text)
    found = [
        Found(kind, start, end, text[start : min(end, start + _EXCERPT)])
        for kind in kinds
        for start, end in ARTIFACTS[kind](prose)
    ]
    return sorted(found, key=lambda item: (item.start, item.end, item.kind))
