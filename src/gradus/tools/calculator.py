"""The calculator: text in, one number as text out, exact where arithmetic is.

A small recursive-descent evaluator of our own, because numexpr, simpleeval and asteval each hung or ran out
of memory on a hostile set. Values are exact (int, Fraction) as long as the operations are; roots,
logarithms and trigonometry use floats. Length, nesting and digits are bounded before anything is computed.

    expression = term (("+" | "-") term)*
    term       = sign (("*" | "/" | "//" | "of") sign)*
    sign       = ("+" | "-")* power
    power      = percent (("**" | "^") sign)?
    percent    = atom "%"*                          17% is 17/100; remainders are mod(a, b)
    atom       = number | constant | name "(" expression ("," expression)* ")" | "(" expression ")"
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from gradus.core.errors import ToolError, did_you_mean
from gradus.tools.functions import CONSTANTS, FUNCTIONS, Number, check_size, power

MAX_CHARACTERS = 500
MAX_NESTING = 40
_SIGNIFICANT = 10  # digits of a result that is no whole number
_FLOAT_DIGITS = 15  # more of a float are noise
_PLAIN_BELOW = 10**21  # larger and tiny results are written with an exponent
_TINY = Fraction(1, 10**7)

_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "^", "\u00a0": " "})
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<mark>\*\*|//|[-+*/^%(),]))",
    re.ASCII,
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+", re.ASCII)


def calculate(expression: str) -> str:
    """The value of an arithmetic expression as text; ToolError says shortly what is wrong with it.

    Whole numbers are plain; others have 10 significant digits at most, or four decimals where that is
    more, and no trailing zeros; from 1e21 up and below 1e-7 they have an exponent.
    """
    if not isinstance(expression, str):
        raise ToolError("expression must be text")
    if len(expression) > MAX_CHARACTERS:
        raise ToolError(f"expression longer than {MAX_CHARACTERS} characters")
    tokens = _tokens(expression.translate(_SPELLINGS))
    if not tokens:
        raise ToolError("empty expression")
    parser = _Parser(tokens)
    try:
        value = check_size(parser.expression())
        parser.expect_end()
    except ZeroDivisionError as error:
        raise ToolError("division by zero") from error
    except OverflowError as error:
        raise ToolError("number too large") from error
    return number_text(value)


def number_text(value: Number) -> str:
    """The one way in which gradus writes a calculated number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError("result is not a finite number")
    exact = Fraction(value)
    if exact == 0:
        return "0"
    size = abs(exact)
    plain_below = 10**15 if isinstance(value, float) else _PLAIN_BELOW
    if exact.denominator == 1 and size < plain_below:
        return str(exact.numerator)
    if _TINY <= size < plain_below:
        # However large, four decimals stay: a product of two sums of money is never rounded.
        digits = max(_SIGNIFICANT, len(str(int(size))) + 4 if size >= 1 else 0)
        if isinstance(value, float):
            digits = min(digits, _FLOAT_DIGITS)
        text = format(_rounded(exact, digits), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    rounded = _rounded(exact, _SIGNIFICANT)
    figures = "".join(map(str, rounded.as_tuple().digits)).rstrip("0")
    point = f".{figures[1:]}" if len(figures) > 1 else ""
    return f"{'-' if value < 0 else ''}{figures[0]}{point}e{rounded.adjusted()}"


def _rounded(value: Fraction, digits: int) -> Decimal:
    """`value` to so many significant digits, ties to even, from the exact quotient."""
    context = Context(prec=digits, rounding=ROUND_HALF_EVEN)
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name or mark
    text: str
    end: int


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ToolError(f"unexpected character {text[at:].lstrip()[0]!r}")
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.end()))
        at = match.end()
    return found


class _Parser:
    """Reads tokens left to right and computes as it goes."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.calls = 0  # how many calls enclose this place: there, a comma separates arguments

    def peek(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def take(self, *texts: str) -> str | None:
        """The next token if it is one of `texts`."""
        if self.peek() in texts and self.at < len(self.tokens):
            self.at += 1
            return self.tokens[self.at - 1].text
        return None

    def expect_end(self) -> None:
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.text == ",":
                raise ToolError("misplaced comma")
            hint = "; for a remainder use mod(a, b)" if self.tokens[self.at - 1].text == "%" else ""
            raise ToolError(f"unexpected {token.text!r}{hint}")

    def descend(self) -> None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise ToolError(f"nested deeper than {MAX_NESTING} levels")

    def expression(self) -> Number:
        value = self.term()
        while mark := self.take("+", "-"):
            other = self.term()
            value = check_size(value + other if mark == "+" else value - other)
        return value

    def term(self) -> Number:
        value = self.sign()
        while mark := self.take("*", "/", "//", "of", "x"):
            other = self.sign()
            if mark == "//":
                value = math.floor(value / other if isinstance(value, float) else Fraction(value) / other)
            elif mark == "/":
                value = Fraction(value) / other if not isinstance(value, float) else value / other
            else:
                value = value * other
            value = check_size(value)
        return value

    def sign(self) -> Number:
        negative = False
        while mark := self.take("+", "-"):
            negative ^= mark == "-"
        value = self.power()
        return -value if negative else value

    def power(self) -> Number:
        base = self.percent()
        if not self.take("**", "^"):
            return base
        self.descend()
        exponent = self.sign()  # to the right first: 2**3**2 is 2**9
        self.depth -= 1
        return check_size(power(base, exponent))

    def percent(self) -> Number:
        value = self.atom()
        while self.take("%"):
            value = value / 100 if isinstance(value, float) else Fraction(value) / 100
        return value

    def atom(self) -> Number:
        if self.at >= len(self.tokens):
            raise ToolError("expression ends too early")
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "number":
            return self.number(token)
        if token.kind == "name":
            return self.named(token)
        if token.text != "(":
            raise ToolError(f"unexpected {token.text!r}")
        self.descend()
        value = self.expression()
        self.close()
        return value

    def close(self) -> None:
        if not self.take(")"):
            found = repr(self.peek()) if self.peek() else "the end"
            raise ToolError(f"expected ')', found {found}")
        self.depth -= 1

    def number(self, token: _Token) -> Number:
        text = token.text
        whole, point, rest = text.partition(".")
        if "," in whole:
            return self.grouped(whole, point + rest, token)
        return _exact_number(text)

    def grouped(self, whole: str, rest: str, token: _Token) -> Number:
        """A number with commas in it: thousands, or arguments that stand without spaces."""
        looks_grouped = _GROUPED.fullmatch(whole) is not None
        if not self.calls:
            if not looks_grouped:
                raise ToolError(f"misplaced comma in {token.text!r}")
            return _exact_number(whole.replace(",", "") + rest)
        if _GROUPED.search(whole):
            raise ToolError(f"{whole!r} may be one number or several; write 1234, or 1, 234")
        # Arguments without spaces: hand the pieces back as tokens of their own.
        pieces = (whole + rest).split(",")
        parts: list[_Token] = []
        for index, piece in enumerate(pieces):
            if index:
                parts.append(_Token("mark", ",", token.end))
            if piece:
                parts.append(_Token("number", piece, token.end))
        self.tokens[self.at - 1 : self.at] = parts
        return _exact_number(parts[0].text)

    def named(self, token: _Token) -> Number:
        name = token.text.lower()
        if self.take("("):
            return self.call(name)
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in FUNCTIONS:
            raise ToolError(f"{name} needs arguments: {FUNCTIONS[name].usage}")
        raise ToolError(f"unknown name {token.text!r}{did_you_mean(name, [*FUNCTIONS, *CONSTANTS])}")

    def call(self, name: str) -> Number:
        function = FUNCTIONS.get(name)
        if function is None:
            raise ToolError(f"unknown function {name!r}{did_you_mean(name, FUNCTIONS)}")
        self.descend()
        self.calls += 1
        arguments = []
        if self.peek() != ")":
            arguments.append(self.expression())
            while self.take(","):
                arguments.append(self.expression())
        self.close()
        self.calls -= 1
        if not function.takes(len(arguments)):
            raise ToolError(f"expected {function.usage}, found {len(arguments)} arguments")
        compute: Callable[..., Number] = function.compute
        try:
            return check_size(compute(*arguments))
        except ValueError as error:
            raise ToolError(f"{name} is not defined there") from error


def _exact_number(text: str) -> Number:
    """A literal as an int or a Fraction; its exponent is bounded before it is computed."""
    exponent = text.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > 300:
        raise ToolError("number too large" if int(exponent) > 0 else "number too small")
    value = Fraction(text)
    return value.numerator if value.denominator == 1 else value
