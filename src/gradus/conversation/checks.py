"""Checks on an assistant's turn, as probe files write them. They read the answer, not thinking or results.

The answer is the text of the turn's last assistant message. A check gives a reason where it fails and
nothing where it passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gradus.conversation.artifacts import find_loops
from gradus.conversation.messages import Message, ToolCall
from gradus.conversation.timed_patterns import compiled, found_in
from gradus.core.settings import Settings
from gradus.tokenizer.specials import THINK, THINK_END

_SHOWN_LOOP = 60  # characters of a loop that a reason shows


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """What the assistant did in answer to one user message.

    messages: assistant and tool messages in alternation; finish_reason: "stop" where a stop token ended it,
    else what cut it short; problems: what the format's parser found malformed.
    """

    messages: tuple[Message, ...]
    finish_reason: str = "stop"
    problems: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The text of the last assistant message."""
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), "")

    @property
    def thinking(self) -> str:
        """All thinking of the turn."""
        return "\n".join(m.reasoning_content for m in self.messages if m.reasoning_content)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(call for message in self.messages for call in message.tool_calls)


class Calls(Settings):
    """The tool was called."""

    kind: Literal["calls"]
    tool: str

    def failure(self, turn: AssistantTurn) -> str | None:
        return None if any(c.name == self.tool for c in turn.calls) else f"did not call {self.tool}"


class CallsNot(Settings):
    """The tool was not called."""

    kind: Literal["calls_not"]
    tool: str

    def failure(self, turn: AssistantTurn) -> str | None:
        return f"called {self.tool}" if any(c.name == self.tool for c in turn.calls) else None


class CallsNone(Settings):
    """No tool was called."""

    kind: Literal["calls_none"]

    def failure(self, turn: AssistantTurn) -> str | None:
        return f"called {', '.join(c.name for c in turn.calls)}" if turn.calls else None


class _Words(Settings):
    """`any`: one of these; `all`: each of these. Any case, and digits match whole numbers only."""

    any: tuple[str, ...] | None = None
    all: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_list(self) -> _Words:
        if (self.any is None) == (self.all is None):
            raise ValueError("give either any or all")
        if not (self.any or self.all) or not all(self.any or self.all or ()):
            raise ValueError("the list must hold words, none of them empty")
        return self

    def _holds(self, answer: str) -> bool:
        if self.any is not None:
            return any(contains(answer, word) for word in self.any)
        return all(contains(answer, word) for word in self.all or ())


class AnswerContains(_Words):
    """The answer has the words."""

    kind: Literal["answer_contains"]

    def failure(self, turn: AssistantTurn) -> str | None:
        if self._holds(turn.answer):
            return None
        if self.any is not None:
            return f"has none of {_listed(self.any)}"
        return f"lacks {_listed(w for w in self.all or () if not contains(turn.answer, w))}"


class AnswerExcludes(_Words):
    """The answer has not the words: none of `any`, or not all of `all` at once."""

    kind: Literal["answer_excludes"]

    def failure(self, turn: AssistantTurn) -> str | None:
        if not self._holds(turn.answer):
            return None
        return f"has {_listed(w for w in self.any or self.all or () if contains(turn.answer, w))}"


class ExactlyOneOf(Settings):
    """Of a closed set, the answer names the value and no other member (whole words, any case)."""

    kind: Literal["exactly_one_of"]
    value: str
    of: tuple[str, ...]

    @model_validator(mode="after")
    def _member(self) -> ExactlyOneOf:
        if self.value.casefold() not in {member.casefold() for member in self.of}:
            raise ValueError("the value must be a member of the list")
        return self

    def failure(self, turn: AssistantTurn) -> str | None:
        named = [member for member in self.of if _has_word(turn.answer, member)]
        if [member.casefold() for member in named] == [self.value.casefold()]:
            return None
        return f"names {_listed(named) if named else 'none'}, expected only {self.value}"


def _compiles(pattern: str) -> str:
    compiled(pattern)
    return pattern


RegularExpression = Annotated[str, AfterValidator(_compiles)]


class AnswerRegex(Settings):
    """The pattern is found somewhere in the answer (in Python's syntax; "(?i)" for any case)."""

    kind: Literal["answer_regex"]
    pattern: RegularExpression

    def failure(self, turn: AssistantTurn) -> str | None:
        return None if found_in(turn.answer, self.pattern) else f"no match for {self.pattern}"


class AnswerNumber(Settings):
    """The last number of the answer, citations like [1] apart, is the value, give or take the tolerance."""

    kind: Literal["answer_number"]
    value: int | float
    tolerance: float = Field(default=0.0, ge=0)

    def failure(self, turn: AssistantTurn) -> str | None:
        found = answer_number(turn.answer)
        if found is None:
            return f"no number, expected {self.value}"
        # Through text, so that 7.65 means what its author wrote and not the nearest binary fraction.
        if abs(found - Fraction(str(self.value))) <= Fraction(str(self.tolerance)):
            return None
        return f"last number is {number_text(found)}, expected {self.value}"


class ThinkClosed(Settings):
    """No think block was left open, opened twice, or spilled into the answer."""

    kind: Literal["think_closed"]

    def failure(self, turn: AssistantTurn) -> str | None:
        for problem in turn.problems:
            if "think" in problem:
                return problem
        for marker in (THINK, THINK_END):
            if marker in turn.answer:
                return f"{marker} in the answer"
        return None


class AnswerChars(Settings):
    """The answer's length in characters, both ends included."""

    kind: Literal["answer_chars"]
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _some(self) -> AnswerChars:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no length is at least {self.min} and at most {self.max}")
        return self

    def failure(self, turn: AssistantTurn) -> str | None:
        length = len(turn.answer.strip())
        if self.min is not None and length < self.min:
            return f"{length} characters, expected at least {self.min}"
        if self.max is not None and length > self.max:
            return f"{length} characters, expected at most {self.max}"
        return None


class Citation(Settings):
    """The answer cites a source: [1], or a web address."""

    kind: Literal["citation"]

    def failure(self, turn: AssistantTurn) -> str | None:
        cites = CITATION.search(turn.answer) or re.search(r"https?://\S", turn.answer)
        return None if cites else "cites no source"


class Stops(Settings):
    """The turn ended by its stop token, not by a limit."""

    kind: Literal["stops"]

    def failure(self, turn: AssistantTurn) -> str | None:
        return None if turn.finish_reason == "stop" else f"ended by {turn.finish_reason}"


class NoLoop(Settings):
    """The answer does not say the same again and again; the reason tells the period and the repeats."""

    kind: Literal["no_loop"]

    def failure(self, turn: AssistantTurn) -> str | None:
        loop = next(find_loops(turn.answer), None)
        return None if loop is None else f"repeats {loop}: {turn.answer[loop.start : loop.end][:_SHOWN_LOOP]!r}"


class Judge(Settings):
    """Another model rates the answer by the rubric, from 1 to 10; it must reach the threshold.

    The one check that the turn alone does not decide: it is left to eval/judging.py.
    """

    kind: Literal["judge"]
    rubric: str = Field(min_length=1)
    threshold: float = Field(ge=1.0, le=10.0)


Check = Annotated[
    Calls
    | CallsNot
    | CallsNone
    | AnswerContains
    | AnswerExcludes
    | ExactlyOneOf
    | AnswerRegex
    | AnswerNumber
    | ThinkClosed
    | AnswerChars
    | Citation
    | Stops
    | NoLoop,
    Field(discriminator="kind"),
]
ProbeCheck = Annotated[Check | Judge, Field(discriminator="kind")]
"""What a probe may ask for: also a judgement."""


def run_checks(checks: Sequence[Check], turn: AssistantTurn) -> list[str]:
    """The reason of each check that fails, as "kind: reason"; empty where all pass."""
    failures = ((check.kind, check.failure(turn)) for check in checks)
    return [f"{kind}: {reason}" for kind, reason in failures if reason is not None]


CITATION = re.compile(r"\[(\d{1,9})\]")
# A longer run of figures, as a model in a loop writes it, is no number; Python reads 4300 figures at most.
_MOST_FIGURES = 1000
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-−](?=[$€£]?\d|[$€£]?\.\d))?[$€£]?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<power>[eE][+-]?\d{1,3}(?!\w))?"
    r"(?!\d)(?!(?:st|nd|rd|th)\b)"
)


def numbers(text: str) -> Iterator[tuple[Fraction, int]]:
    """Each number written in figures, with the decimal places it shows; see `last_number`."""
    for match in _NUMBER.finditer(text):
        digits = match["digits"].replace(",", "")
        if len(digits) > _MOST_FIGURES:
            continue
        value = Fraction(digits + (match["power"] or ""))
        yield -value if match["sign"] else value, len(digits.partition(".")[2])


def last_number(text: str) -> Fraction | None:
    """The last number written in figures: 1,234.50, -3, $.75, 12%, 1e21; ordinals like 3rd do not count."""
    last = None
    for value, _ in numbers(text):
        last = value
    return last


def answer_number(answer: str) -> Fraction | None:
    """The last number of an answer, citations like [1] apart."""
    return last_number(CITATION.sub("", answer))


def number_text(value: Fraction) -> str:
    """A number to ten figures, however large."""
    try:
        return f"{float(value):.10g}"
    except OverflowError:
        return f"{Decimal(value.numerator) / Decimal(value.denominator):.10g}"


def contains(text: str, needle: str) -> bool:
    """Whether `needle` stands in `text`, any case; a digit at its edge must be the edge of a number too."""
    before = r"(?<!\d)(?<!\d[.,])" if needle[:1].isdigit() else ""
    after = r"(?![.,]?\d)" if needle[-1:].isdigit() else ""
    pattern = before + re.escape(needle.casefold()) + after
    return re.search(pattern, text.casefold()) is not None


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()) is not None


def _listed(words: Iterable[str]) -> str:
    return ", ".join(repr(word) for word in words)
