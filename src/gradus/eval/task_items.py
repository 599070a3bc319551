"""Rows of published benchmarks as texts to score: what stands before, what may follow, which is right.

The wording is that of lm-eval (EleutherAI's evaluation harness, version 0.4), character by character, so that scores
can be compared with published ones. Functions raise KeyError, IndexError, TypeError or ValueError on a row that is not
as it is published.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gradus.data.benchmark_rows import BESIDE, Row

_CHOICES = re.compile(r"\nChoices:\n(?=A\. )")
_BRACKETS = re.compile(r"\[.*?\]")
_SUBJECT = re.compile(r"\A(?P<subject>\w+)_(?:test|val|dev):\d+\Z")


@dataclass(frozen=True, slots=True)
class TextItem:
    """Continuations of contexts, one pair for each choice; of a single pair the continuation itself is asked for.

    choices: as they are written, without what joins them to the context, whose lengths acc_norm divides by. gold: the
    number of the right one.
    """

    pairs: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]
    gold: int = 0


def choices_item(context: str, choices: list[str], gold: int) -> TextItem:
    """One context, a space, and each choice. Errors: ValueError for a gold answer that is none of the choices."""
    if not 0 <= gold < len(choices):
        raise ValueError(f"answer {gold} of {len(choices)} choices")
    return TextItem(tuple((context, f" {choice}") for choice in choices), tuple(choices), gold)


def arc(row: Row) -> TextItem:
    """ARC, easy and challenge."""
    return choices_item(f"Question: {row['question']}\nAnswer:", row["choices"], row["gold"])


def hellaswag(row: Row) -> TextItem:
    """Rows whose activity and context are already joined; what is left of WikiHow's marks is taken out."""
    return choices_item(_clean(row["query"]), [_clean(choice) for choice in row["choices"]], row["gold"])


def _clean(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return _BRACKETS.sub("", text).replace("  ", " ")


def piqa(row: Row) -> TextItem:
    """The goal and two solutions, the label from the other file."""
    return choices_item(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], int(row[BESIDE]))


def winogrande(row: Row) -> TextItem:
    """What follows the gap, after the sentence up to it with either option in it."""
    before, _, after = row["sentence"].partition("_")
    if not after:
        raise ValueError("a sentence without a gap")
    choices = tuple(before + row[f"option{number}"] for number in (1, 2))
    return TextItem(
        tuple((choice, f" {after.strip()}") for choice in choices), choices, ("1", "2").index(row["answer"])
    )


def lambada(row: Row) -> TextItem:
    """The last word of a passage."""
    word = f" {row['continuation']}"
    return TextItem(((row["context"], word),), (word,))


def boolq(row: Row) -> TextItem:
    """Rows of the CORE bundle, `Passage: P\\nQuestion: Q`; their passages have lost the article's title."""
    passage, found, question = row["query"].strip().removeprefix("Passage: ").rpartition("\nQuestion: ")
    if not found:
        raise ValueError("no question")
    return choices_item(f"{passage}\nQuestion: {question.rstrip('?')}?\nAnswer:", row["choices"], row["gold"])


def openbookqa(row: Row) -> TextItem:
    """Rows of the CORE bundle, whose query is the question's stem."""
    return choices_item(row["query"], row["choices"], row["gold"])


def commonsense_qa(row: Row) -> TextItem:
    """Rows of the CORE bundle, which list the choices under the question; the answer is a letter."""
    return choices_item(_CHOICES.sub("\n", row["query"], count=1), row["choices"], row["gold"])


def mmlu(row: Row) -> TextItem:
    """A question with its four choices listed; the answer is a letter."""
    question, *choices, letter = row["cells"]
    if len(choices) != 4:
        raise ValueError(f"{len(row['cells'])} cells, not 6")
    listed = "\n".join(f"{name}. {choice}" for name, choice in zip("ABCD", choices, strict=True))
    return choices_item(f"{question.strip()}\n{listed}\nAnswer:", list("ABCD"), "ABCD".index(letter))


def mmlu_subject(item_id: str) -> str:
    """The subject that an item's id names. Errors: ValueError."""
    found = _SUBJECT.match(item_id)
    if found is None:
        raise ValueError(f"{item_id} is no item of MMLU")
    return found["subject"]


def mmlu_introduction(subject: str) -> str:
    """What lm-eval says before the questions of a subject."""
    words = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {words}.\n\n"


# WikiText


def wikitext_pages(text: str) -> list[str]:
    """The articles of WikiText's file: each begins at a heading of the first level (= Title =)."""
    pages: list[str] = []
    lines: list[str] = []
    for line in text.split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            pages.append("\n".join(lines))
            lines = []
        lines.append(line)
    pages.append("\n".join(lines))
    return [page for page in pages if page.strip()]


def wikitext_text(page: str) -> str:
    """A page as it was before WikiText split it into words, by lm-eval's steps in their order."""
    for pattern, replacement in _WIKITEXT_STEPS:
        page = pattern.sub(replacement, page)
    return page


def _literally(*steps: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(re.escape(found)), replacement) for found, replacement in steps)


_WIKITEXT_STEPS = (
    *_literally(("s '", "s'")),
    (re.compile(r"/' [0-9]/"), "/'[0-9]/"),  # as published; it matches next to nothing
    *_literally((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", ".")),
    *_literally(*((f" {mark} ", f"{mark} ") for mark in ":;.!?,")),
    (re.compile(r"\(\s*([^\)]*?)\s*\)"), r"(\1)"),
    (re.compile(r"\[\s*([^\]]*?)\s*\]"), r"[\1]"),
    (re.compile(r"{\s*([^}]*?)\s*}"), r"{\1}"),
    (re.compile(r"\"\s*([^\"]*?)\s*\""), r'"\1"'),
    (re.compile(r"'\s*([^']*?)\s*'"), r"'\1'"),
    *_literally(("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" ° ", "°"), (" \n", "\n"), ("\n ", "\n")),
    *_literally((" N ", " 1 "), (" 's", "'s")),
)
