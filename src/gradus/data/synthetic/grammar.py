"""A small template language, so that wordings are data: banks/*.txt hold rules, code fills in the values.

A bank is a list of rules. `:name` opens a rule, every line below it is one alternative (an empty alternative is
written `-`); `#` starts a comment line. `:name by rank` opens a rule whose earlier alternatives come more often, as
wordings do among people: the k-th of them, and of the choices within its lines, has the weight 1 / (k + 1), in training
its square root. Within a line:

    (a|b|c)   one of several        [a|b]   the same, or nothing
    <rule>    an alternative of another rule        {slot}   a value given by the caller        \\(   a literal bracket

`Grammar.text` picks every other choice uniformly from the caller's random generator. Banks are compiled once.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import accumulate

from gradus.core.errors import DataError

_BY_RANK = "by rank"
_PIECE = re.compile(r"\\.|[()\[\]|]|<[a-z0-9_]+>|\{[A-Za-z0-9_]+\}|[^()\[\]|<>{}\\]+|.")


class TrainingDraws(random.Random):
    """Draws for what is trained on: of alternatives by rank the later ones come more often than people use them.

    How well a wording is learned goes by how often it is met. With the square roots of the weights the rare ones are
    learned too, and what the common ones lose is hardly seen (EXPERIMENTS.md).
    """


class _Slot:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Choice:
    """One of several sequences; a rule is a choice that others refer to.

    by_rank, in_training: None for a uniform choice, else the shares of all options up to each, but for the last.
    """

    __slots__ = ("by_rank", "in_training", "options")

    def __init__(self, options: list[_Sequence]) -> None:
        self.options = options
        self.by_rank: list[float] | None = None
        self.in_training: list[float] | None = None

    def weigh_by_rank(self) -> None:
        """Option k, counted from 1, gets the weight 1 / (k + 1), in training its square root."""
        self.by_rank, self.in_training = (_shares(len(self.options), power) for power in (1.0, 0.5))


def _shares(count: int, power: float) -> list[float]:
    sums = list(accumulate((k + 2) ** -power for k in range(count)))
    return [part / sums[-1] for part in sums[:-1]]


_Part = str | _Slot | _Choice
_Sequence = tuple[_Part, ...]


class Grammar:
    """The rules of one or more banks; later banks may use and extend earlier ones."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """texts: the text of each bank by its name, for error messages. DataError on a malformed line."""
        self._rules: dict[str, _Choice] = {}
        defined: set[str] = set()
        for bank, text in texts.items():
            self._read(bank, text, defined)
        missing = sorted(set(self._rules) - defined)
        if missing:
            raise DataError(f"wording banks {', '.join(texts)}: rules used but not defined: {', '.join(missing)}")

    def __contains__(self, rule: str) -> bool:
        return rule in self._rules

    @property
    def rules(self) -> list[str]:
        return list(self._rules)

    def text(self, rule: str, rng: random.Random, slots: Mapping[str, str] | None = None) -> str:
        """One wording of `rule`, spaces tidied; a slot that is not given is a KeyError (our own mistake)."""
        out: list[str] = []
        is_training = isinstance(rng, TrainingDraws)
        _emit(self._rules[rule], rng.random, is_training, {} if slots is None else slots, out)
        text = "".join(out)
        if "  " in text:
            text = " ".join(text.split())
        return text.strip()

    def num_lines(self, rule: str) -> int:
        """How many alternatives the rule itself has."""
        return len(self._rules[rule].options)

    def num_wordings(self, rule: str) -> int:
        """How many different choices lead through the rule (slots count once)."""
        return _count_choice(self._rules[rule])

    def _rule(self, name: str) -> _Choice:
        return self._rules.setdefault(name, _Choice([]))

    def _read(self, bank: str, text: str, defined: set[str]) -> None:
        rule: _Choice | None = None
        by_rank = False
        for number, raw in enumerate(text.splitlines(), start=1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith(":"):
                name = line[1:].removesuffix(_BY_RANK).strip()
                by_rank = line.endswith(_BY_RANK)
                defined.add(name)
                rule = self._rule(name)
            elif rule is None:
                raise DataError(f"bank {bank}:{number}: an alternative before any `:rule` line")
            else:
                try:
                    rule.options.append(() if line == "-" else self._sequence(line, by_rank))
                    if by_rank:
                        rule.weigh_by_rank()
                except ValueError as error:
                    raise DataError(f"bank {bank}:{number}: {error} in {line!r}") from error

    def _sequence(self, line: str, by_rank: bool) -> _Sequence:
        pieces = _PIECE.findall(line)
        options, position = self._options(pieces, 0, None, by_rank)
        if position != len(pieces):
            raise ValueError("unbalanced bracket")
        return options[0] if len(options) == 1 else (_Choice(options),)

    def _options(
        self, pieces: Sequence[str], position: int, close: str | None, by_rank: bool
    ) -> tuple[list[_Sequence], int]:
        """Alternatives up to the closing bracket (or the end), and the position after it."""
        options: list[_Sequence] = []
        parts: list[_Part] = []
        while position < len(pieces):
            piece = pieces[position]
            position += 1
            if piece == close:
                options.append(tuple(parts))
                return options, position
            if piece == "|":
                options.append(tuple(parts))
                parts = []
            elif piece in "([":
                inner, position = self._options(pieces, position, ")" if piece == "(" else "]", by_rank)
                if piece == "[":
                    inner.append(())
                choice = _Choice(inner)
                if by_rank:
                    choice.weigh_by_rank()
                parts.append(choice)
            elif piece[0] == "<" and piece[-1] == ">" and len(piece) > 2:
                parts.append(self._rule(piece[1:-1]))
            elif piece[0] == "{" and piece[-1] == "}" and len(piece) > 2:
                parts.append(_Slot(piece[1:-1]))
            elif piece[0] == "\\" and len(piece) == 2:
                parts.append(piece[1])
            elif piece in ")]<>{}\\":
                raise ValueError(f"unexpected {piece!r}")
            else:
                parts.append(piece)
        if close is not None:
            raise ValueError(f"missing {close!r}")
        options.append(tuple(parts))
        return options, position


def _emit(
    choice: _Choice, draw: Callable[[], float], is_training: bool, slots: Mapping[str, str], out: list[str]
) -> None:
    options = choice.options
    shares = choice.in_training if is_training else choice.by_rank
    if shares is not None:
        sequence = options[bisect(shares, draw())]
    else:
        sequence = options[int(draw() * len(options))] if len(options) > 1 else options[0]
    for part in sequence:
        kind = type(part)
        if kind is str:
            out.append(part)  # type: ignore[arg-type]
        elif kind is _Choice:
            _emit(part, draw, is_training, slots, out)  # type: ignore[arg-type]
        else:
            out.append(slots[part.name])  # type: ignore[union-attr]


def _count_choice(choice: _Choice) -> int:
    total = 0
    for sequence in choice.options:
        product = 1
        for part in sequence:
            if isinstance(part, _Choice):
                product *= _count_choice(part)
        total += product
    return total


@cache
def load_grammar(*banks: str) -> Grammar:
    """The grammar of the named banks, compiled once per process."""
    folder = files("gradus.data.synthetic").joinpath("banks")
    return Grammar({bank: folder.joinpath(f"{bank}.txt").read_text(encoding="utf-8") for bank in banks})
