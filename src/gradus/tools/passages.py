"""Documents in passages of a size that a model can be shown: cut between paragraphs, lines, sentences or words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PASSAGE_CHARACTERS = 900
# Where a text is cut, the best places first, and what joins the pieces again.
_CUTS = (
    (re.compile(r"\n[^\S\n]*\n\s*?(?=[^\n])"), "\n\n"),
    (re.compile(r"\n+"), "\n"),
    (re.compile(r"(?<=[.!?])\s+|(?<=[。！？])"), " "),
)
_WORD = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class TitledText:
    """A document as search knows it. url: what a reader finds it by, an address or a file's name."""

    title: str
    url: str
    text: str


def passages(text: str, most_characters: int = PASSAGE_CHARACTERS) -> list[str]:
    """The text in pieces of at most so many characters, in order; only white space at the cuts is lost."""
    found: list[str] = []
    current = ""
    for piece, joint in _pieces(text.strip(), most_characters):
        if current and len(current) + len(joint) + len(piece) > most_characters:
            found.append(current)
            current = ""
        current = f"{current}{joint}{piece}" if current else piece
    return [*found, current] if current else found


def _pieces(text: str, most: int, level: int = 0, joint: str = "") -> Iterator[tuple[str, str]]:
    """(piece, what joins it to the one before): paragraphs; of longer ones lines, sentences, words."""
    if len(text) <= most or level == len(_CUTS):
        for piece in _cut(text, most):
            yield piece, joint
            joint = " "
        return
    pattern, own_joint = _CUTS[level]
    for part in pattern.split(text):
        if part.strip():
            yield from _pieces(part.rstrip(), most, level + 1, joint)
            joint = own_joint


def _cut(text: str, most: int) -> Iterator[str]:
    # By places in the one text: to cut its head off would copy the rest, once for every piece of it.
    start = 0
    while len(text) - start > most:
        space = text.rfind(" ", start + 1, start + most + 1)
        end = space if space > start else start + most
        yield text[start:end].rstrip()
        word = _WORD.search(text, end)
        start = word.start() if word is not None else len(text)
    if start < len(text):
        yield text[start:]
