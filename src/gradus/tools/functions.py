"""The calculator's functions and constants, and the bounds on every number it holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from gradus.core.errors import ToolError

Number = int | Fraction | float
Exact = int | Fraction

MAX_BITS = 8192  # of a numerator or denominator on the way; keeps every operation far below a millisecond
_MAX_VALUE = 10**300


@dataclass(frozen=True)
class Function:
    """One function: how it is called, with how many arguments, and what it computes."""

    usage: str
    least: int
    most: int | None
    compute: Callable[..., Number]

    def takes(self, count: int) -> bool:
        return count >= self.least and (self.most is None or count <= self.most)


def check_size(value: Number) -> Number:
    """The value, whole fractions as ints; ToolError where it is not real, not finite, or too large."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ToolError("result is not a finite number")
        return value
    if isinstance(value, Fraction) and value.denominator == 1:
        value = value.numerator
    if isinstance(value, int | Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise ToolError("number has too many digits")
        if not -_MAX_VALUE < value < _MAX_VALUE:
            raise ToolError("number too large")
        return value
    raise ToolError("result is not a real number")


def power(base: Number, exponent: Number) -> Number:
    """base ** exponent: exact for whole exponents and perfect roots, a float otherwise."""
    if base == 0:
        if exponent < 0:
            raise ZeroDivisionError
        return 1 if exponent == 0 else 0
    if isinstance(base, float) or isinstance(exponent, float):
        return _float_power(base, exponent)
    if isinstance(exponent, Fraction) and exponent.denominator > 1:
        root = _exact_root(base, exponent.denominator)
        return power(root, exponent.numerator) if root is not None else _float_power(base, exponent)
    times = int(exponent)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base in (1, -1) or bits * abs(times) <= MAX_BITS:
        return Fraction(base) ** times
    decades = times * (math.log10(abs(base.numerator)) - math.log10(base.denominator))
    if abs(decades) > 300:
        raise ToolError("number too large" if decades > 0 else "number too small")
    return _float_power(base, times)


def _float_power(base: Number, exponent: Number) -> float:
    if base < 0 and exponent != int(exponent):
        raise ToolError("result is not a real number")
    return math.pow(base, exponent)


def _exact_root(value: Exact, degree: int) -> Exact | None:
    """The real root where it is rational, else None. Only small degrees are worth the search."""
    if value < 0 or degree > 64:
        return None
    parts = []
    for part in (value.numerator, value.denominator):
        guess = math.isqrt(part) if degree == 2 else round(part ** (1 / degree)) if part < 1 << 900 else 0
        near = next((g for g in (guess, guess + 1, guess - 1) if g >= 0 and g**degree == part), None)
        if near is None:
            return None
        parts.append(near)
    return Fraction(parts[0], parts[1])


def _sqrt(x: Number) -> Number:
    if x < 0:
        raise ToolError("square root of a negative number")
    return power(x, Fraction(1, 2))


def _round(x: Number, places: Number = 0) -> Number:
    """Half away from zero, as people round; exact."""
    digits = _whole(places, "round: places")
    if abs(digits) > 50:
        raise ToolError("round: places must be between -50 and 50")
    scale = Fraction(10) ** digits
    scaled = Fraction(x) * scale
    return Fraction(math.floor(abs(scaled) + Fraction(1, 2)) * (1 if scaled >= 0 else -1)) / scale


def _whole(value: Number, name: str) -> int:
    if value != int(value):
        raise ToolError(f"{name} must be a whole number")
    return int(value)


def _mod(a: Number, b: Number) -> Number:
    return a % b if isinstance(a, float) or isinstance(b, float) else Fraction(a) % b


def _log(x: Number, base: Number | None = None) -> Number:
    """Base 10 unless given."""
    base = 10 if base is None else base
    if x <= 0 or base <= 0 or base == 1:
        raise ToolError("logarithm is not defined there")
    if base == 10:
        return math.log10(x)
    if base == 2:
        return math.log2(x)
    return math.log(x) / math.log(base)


def _ln(x: Number) -> Number:
    if x <= 0:
        raise ToolError("logarithm is not defined there")
    return math.log(x)


def _sin(x: Number) -> Number:
    return _clean(math.sin(x), x)


def _cos(x: Number) -> Number:
    return _clean(math.cos(x), x)


def _tan(x: Number) -> Number:
    if _cos(x) == 0:
        raise ToolError("tan is not defined there")
    return _clean(math.tan(x), x)


def _clean(value: float, x: Number) -> float:
    """Without the rounding error of pi, so that sin(pi) is 0; small angles keep their digits."""
    return round(value, 15) if abs(float(x)) > 0.1 else value


def _percent(rate: Number, amount: Number) -> Number:
    return _exactly(rate) * _exactly(amount) / 100


def _percent_change(old: Number, new: Number) -> Number:
    return (_exactly(new) - _exactly(old)) / abs(_exactly(old)) * 100


def _cagr(start: Number, end: Number, years: Number) -> Number:
    """Compound annual growth rate, in percent."""
    if start <= 0 or end <= 0 or years <= 0:
        raise ToolError("cagr: start, end and years must be positive")
    return (power(_exactly(end) / _exactly(start), 1 / _exactly(years)) - 1) * 100


def _simple_interest(principal: Number, rate: Number, years: Number) -> Number:
    return _exactly(principal) * _exactly(rate) * _exactly(years) / 100


def _compound_interest(principal: Number, rate: Number, years: Number, times: Number = 1) -> Number:
    """The interest alone; `times` compoundings a year."""
    if times <= 0:
        raise ToolError("compound_interest: compoundings a year must be positive")
    grown = power(1 + _exactly(rate) / 100 / _exactly(times), check_size(_exactly(times) * _exactly(years)))
    return principal * (grown - 1)


def _emi(principal: Number, rate: Number, months: Number) -> Number:
    """Equal monthly payment that repays a loan; `rate` is percent a year."""
    if months <= 0:
        raise ToolError("emi: months must be positive")
    monthly = _exactly(rate) / 1200
    if monthly == 0:
        return _exactly(principal) / _exactly(months)
    return principal * monthly / (1 - power(1 + monthly, -months))


def _exactly(x: Number) -> Fraction:
    """A float's own exact value, so that one formula serves both kinds."""
    return Fraction(x)


def _total(*values: Number) -> Number:
    if any(isinstance(v, float) for v in values):
        return math.fsum(values)
    return sum((Fraction(v) for v in values), Fraction(0))


FUNCTIONS: dict[str, Function] = {
    "abs": Function("abs(x)", 1, 1, abs),
    "round": Function("round(x, places)", 1, 2, _round),
    "floor": Function("floor(x)", 1, 1, math.floor),
    "ceil": Function("ceil(x)", 1, 1, math.ceil),
    "min": Function("min(a, b, ...)", 1, None, min),
    "max": Function("max(a, b, ...)", 1, None, max),
    "sum": Function("sum(a, b, ...)", 1, None, _total),
    "mod": Function("mod(a, b)", 2, 2, _mod),
    "pow": Function("pow(x, y)", 2, 2, power),
    "sqrt": Function("sqrt(x)", 1, 1, _sqrt),
    "exp": Function("exp(x)", 1, 1, math.exp),
    "ln": Function("ln(x)", 1, 1, _ln),
    "log": Function("log(x, base)", 1, 2, _log),
    "log10": Function("log10(x)", 1, 1, _log),
    "log2": Function("log2(x)", 1, 1, lambda x: _log(x, 2)),
    "sin": Function("sin(radians)", 1, 1, _sin),
    "cos": Function("cos(radians)", 1, 1, _cos),
    "tan": Function("tan(radians)", 1, 1, _tan),
    "asin": Function("asin(x)", 1, 1, math.asin),
    "acos": Function("acos(x)", 1, 1, math.acos),
    "atan": Function("atan(x)", 1, 1, math.atan),
    "radians": Function("radians(degrees)", 1, 1, math.radians),
    "degrees": Function("degrees(radians)", 1, 1, math.degrees),
    "percent": Function("percent(rate, amount)", 2, 2, _percent),
    "percent_change": Function("percent_change(old, new)", 2, 2, _percent_change),
    "cagr": Function("cagr(start, end, years)", 3, 3, _cagr),
    "simple_interest": Function("simple_interest(principal, rate, years)", 3, 3, _simple_interest),
    "compound_interest": Function("compound_interest(principal, rate, years, times_a_year)", 3, 4, _compound_interest),
    "emi": Function("emi(principal, rate, months)", 3, 3, _emi),
}

CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e}
