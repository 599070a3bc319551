"""How people write numbers in a question: 1200, 1,200, twelve, $45, 45 dollars, 17 percent.

Values are exact: amounts of money are whole cents, decimals are text. What the model hands to the calculator is the
plain form of `plain_cents` or `str(n)`, whatever the question looked like.
"""

from __future__ import annotations

import random

from gradus.data.synthetic.grammar import TrainingDraws

_IN_TRAINING = 3  # times the odds of a number in words: each word is met seldom otherwise (EXPERIMENTS.md)
_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

_ROUND = frozenset(str(10 * n) for n in range(3, 11))


def number_word(n: int) -> str:
    """`n` in words, 0 to 100."""
    if n < 20:
        return _SMALL[n]
    if n == 100:
        return "one hundred"
    tens, ones = divmod(n, 10)
    return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")


def in_words(rng: random.Random, chance: float) -> float:
    """The chance that a number is written in words, which is higher in training."""
    return _IN_TRAINING * chance / (1 + (_IN_TRAINING - 1) * chance) if isinstance(rng, TrainingDraws) else chance


def integer(rng: random.Random, n: int, words: float = 0.04) -> str:
    """A whole number as a user may write it; `words` is the chance of a number word up to twenty and for tens."""
    if n >= 1000:
        return f"{n:,}" if rng.random() < 0.3 else str(n)
    if (n <= 20 or (n <= 100 and n % 10 == 0)) and rng.random() < in_words(rng, words):
        return number_word(n)
    return str(n)


def plain_cents(cents: int) -> str:
    """An amount without a sign, as the calculator takes it: 45, 4.5, 4.05."""
    whole, rest = divmod(cents, 100)
    if not rest:
        return str(whole)
    return f"{whole}.{rest:02d}".rstrip("0")


def amount(cents: int, rng: random.Random) -> str:
    """The digits of an amount as written beside a currency: 45, 45.00, 4.50, 1,200."""
    whole, rest = divmod(cents, 100)
    head = f"{whole:,}" if whole >= 1000 and rng.random() < 0.4 else str(whole)
    if rest:
        return f"{head}.{rest:02d}"
    return f"{head}.00" if rng.random() < 0.1 else head


class Currency:
    """One way to write money throughout a question, and the sign that its answer carries."""

    __slots__ = ("after", "before")

    def __init__(self, before: str, after: str) -> None:
        self.before = before
        self.after = after

    def write(self, cents: int, rng: random.Random) -> str:
        return f"{self.before}{amount(cents, rng)}{self.after}"

    def answer(self, result: str) -> str:
        """The result with its sign: $7.65, or 7.65 euros."""
        if self.before:
            return f"{self.before}{result}"
        return f"${result}" if self.after in (" dollars", " bucks", " dollar") else f"{result}{self.after}"


_DOLLAR_SIGN = Currency("$", "")
_CURRENCIES = (
    *(_DOLLAR_SIGN,) * 15,
    *(Currency("", " dollars"),) * 5,
    Currency("", " bucks"),
    Currency("", " euros"),
    Currency("", " pounds"),
    Currency("€", ""),
    Currency("£", ""),
)


def currency(rng: random.Random) -> Currency:
    """Mostly dollars; sometimes euros or pounds."""
    return _CURRENCIES[int(rng.random() * len(_CURRENCIES))]


def percent(rng: random.Random, value: str) -> str:
    """`value` (digits) as a percentage: 17%, 17 percent, 17 per cent, seventeen percent."""
    draw = rng.random()
    if draw < 0.74:
        return f"{value}%"
    if draw < 0.76:
        return f"{value} %"
    if draw < 0.97:
        text = value
        if draw < 0.76 + in_words(rng, 0.03) and value.isdigit() and (int(value) <= 20 or value in _ROUND):
            text = number_word(int(value))
        return f"{text} percent"
    return f"{value} per cent"


def ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    if n % 100 in (11, 12, 13):
        return f"{n}th"
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"
