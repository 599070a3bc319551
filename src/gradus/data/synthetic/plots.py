"""The fixed stories of word_problem: for each rule of banks/plots.txt its numbers and its worked plan.

A plan is a chain of named steps; the expression of its last step goes to the calculator. Numbers are drawn so that
everyday conditions hold: what is shared comes out even, nobody gives away more than they have.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from gradus.data.synthetic.item import between

Values = dict[str, int]


class Draw:
    """Draws the numbers of one story: counts as they are, money in whole cents."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._cents = rng.random() < 0.22

    def n(self, low: int, high: int) -> int:
        return between(self.rng, low, high)

    def cash(self, low: int, high: int) -> int:
        """An amount in cents; in about every fifth story prices have cents."""
        whole = between(self.rng, low, high) * 100
        return whole + 25 * between(self.rng, 1, 3) if self._cents else whole

    def above(self, cents: int, most: int = 100) -> int:
        """A round amount in cents above another: what somebody pays with."""
        return (cents // 100 + between(self.rng, 1, most)) * 100


class Plot(NamedTuple):
    """rule: of banks/plots.txt; money: the names that are amounts; plan: steps "Name: expression", the last is asked.

    values: draws the numbers by name. sign: the answer is an amount of money.
    """

    rule: str
    money: str
    plan: str
    values: Callable[[Draw], Values]
    sign: bool = False


def _wage(d: Draw) -> Values:
    return {"p": d.cash(5, 40), "h": d.n(2, 12), "d": d.n(2, 14)}


def _spent(d: Draw) -> Values:
    p, h = d.cash(5, 40), d.n(2, 12)
    return {"p": p, "h": h, "c": d.n(2, max(3, p * h // 100 - 1)) * 100 // 2}


def _weeks(d: Draw, start: bool) -> Values:
    p, weeks = d.n(2, 40) * 100, d.n(2, 25)
    c = d.n(3, 100) * 100 if start else 0
    return {"p": p, "c": c, "m": p * weeks + c}


def _multiple(d: Draw, most: int = 500) -> tuple[int, int, int]:
    """(total, size, number) with total = size * number, total at most `most`."""
    size = d.n(2, 20)
    number = d.n(2, max(2, min(40, most // size)))
    return size * number, size, number


def _used(d: Draw) -> Values:
    n, days = d.n(3, 30), d.n(2, 12)
    return {"n": n, "d": days, "t": n * days + d.n(3, 150)}


def _shared(d: Draw, *, start: bool) -> Values:
    t, k, _ = _multiple(d, 300)
    c = d.n(2, 40) if start else 0
    return {"t": t + c, "k": k, "c": c}


def _days(d: Draw) -> Values:
    t, n, _ = _multiple(d)
    return {"t": t, "n": n}


def _unit(d: Draw) -> Values:
    a = d.n(2, 12)
    return {"a": a, "m": a * d.n(1, 25) * 100 if d.n(0, 4) else a * 25 * d.n(1, 40), "b": d.n(2, 30)}


def _thirds(d: Draw) -> Values:
    k = d.n(3, 5)
    t = k * d.n(2, 80)
    return {"k": k, "t": t}


def _rope(d: Draw) -> Values:
    k, n = d.n(2, 12), d.n(2, 15)
    return {"k": k, "n": n, "t": k * n + d.n(1, 100)}


def _profit_total(d: Draw) -> Values:
    n, p = d.n(3, 40), d.cash(2, 25)
    return {"n": n, "p": p, "c": d.n(1, max(2, n * p // 100 - 1)) * 100}


def _two_spent(d: Draw) -> Values:
    p, q = d.cash(2, 60), d.cash(2, 60)
    return {"p": p, "q": q, "m": d.above(p + q)}


def _groups_missing(d: Draw) -> Values:
    k, n = d.n(2, 12), d.n(2, 25)
    return {"k": k, "n": n, "t": k * n + d.n(1, 150)}


def _average(d: Draw) -> Values:
    a, b = d.n(5, 100), d.n(5, 100)
    c = d.n(5, 100)
    return {"a": a, "b": b, "c": c + (-(a + b + c)) % 3 if d.n(0, 3) else c}


def _gathered(d: Draw) -> Values:
    n, days = d.n(2, 30), d.n(2, 14)
    return {"n": n, "d": days, "c": d.n(1, n * days - 1)}


PLOTS: tuple[Plot, ...] = (
    Plot("wage_hours", "p", "Pay: {h} * {p}", _wage, True),
    Plot("wage_spend", "pc", "Gets: {h} * {p}. Left: {h} * {p} - {c}", _spent, True),
    Plot("save_total", "p", "Saved: {d} * {p}", lambda d: {"p": d.cash(2, 90), "d": d.n(2, 30)}, True),
    Plot(
        "save_start",
        "pc",
        "Added: {d} * {p}. Total: {c} + {d} * {p}",
        lambda d: {"p": d.cash(2, 60), "d": d.n(2, 30), "c": d.cash(5, 300)},
        True,
    ),
    Plot("save_weeks", "mp", "Time: {m} / {p}", lambda d: _weeks(d, start=False)),
    Plot("read_total", "", "Total: {d} * {n}", lambda d: {"n": d.n(2, 60), "d": d.n(2, 31)}),
    Plot("read_left", "", "Done: {d} * {n}. Left: {t} - {d} * {n}", _used),
    Plot("read_days", "", "Time: {t} / {n}", _days),
    Plot("distance", "", "Way: {h} * {v}", lambda d: {"v": d.n(3, 120), "h": d.n(2, 12)}),
    Plot("travel_time", "", "Time: {t} / {v}", lambda d: (lambda v, h: {"v": v, "t": v * h})(d.n(4, 90), d.n(2, 9))),
    Plot("unit_price", "m", "One: {m} / {a}. Total: {m} / {a} * {b}", _unit, True),
    Plot("one_price", "m", "One: {m} / {a}", _unit, True),
    Plot(
        "legs",
        "",
        "First: 4 * {a}. Then: 2 * {b}. Total: 4 * {a} + 2 * {b}",
        lambda d: {"a": d.n(2, 40), "b": d.n(2, 40)},
    ),
    Plot(
        "tickets",
        "pq",
        "First: {a} * {p}. Then: {b} * {q}. Total: {a} * {p} + {b} * {q}",
        lambda d: {"a": d.n(2, 12), "p": d.cash(3, 30), "b": d.n(2, 20), "q": d.cash(1, 15)},
        True,
    ),
    Plot(
        "groups_extra",
        "",
        "Groups: {a} * {b}. Total: {a} * {b} + {t}",
        lambda d: {"a": d.n(2, 20), "b": d.n(2, 25), "t": d.n(1, 60)},
    ),
    Plot("nested", "", "Total: {a} * {b} * {c}", lambda d: {"a": d.n(2, 9), "b": d.n(2, 9), "c": d.n(2, 12)}),
    Plot("half_left", "", "Half: {t} / 2", lambda d: {"t": 2 * d.n(2, 250)}),
    Plot("fraction_left", "", "Part: {t} / {k}. Left: {t} - {t} / {k}", _thirds),
    Plot("area", "", "Area: {a} * {b}", lambda d: {"a": d.n(2, 60), "b": d.n(2, 40)}),
    Plot("episodes", "", "Total: {a} * {b}", lambda d: {"a": d.n(2, 30), "b": d.n(5, 90)}),
    Plot("average", "", "Sum: {a} + {b} + {c}. Average: ({a} + {b} + {c}) / 3", _average),
    Plot("profit_total", "pc", "Gets: {n} * {p}. Left: {n} * {p} - {c}", _profit_total, True),
    Plot(
        "installment_total",
        "cp",
        "Payments: {k} * {p}. Total: {c} + {k} * {p}",
        lambda d: {"k": d.n(2, 24), "p": d.cash(2, 80), "c": d.cash(2, 200)},
        True,
    ),
    Plot("rope", "", "Used: {k} * {n}. Left: {t} - {k} * {n}", _rope),
    Plot("budget_two", "mpq", "Left: {m} - {p} - {q}", _two_spent, True),
    Plot("three_sum", "", "Total: {a} + {b} + {c}", lambda d: {"a": d.n(2, 200), "b": d.n(2, 200), "c": d.n(2, 200)}),
    Plot("share_rest", "", "Rest: {t} - {c}. Each: ({t} - {c}) / {k}", lambda d: _shared(d, start=True)),
    Plot("need_more_groups", "", "Groups: {k} * {n}. Missing: {t} - {k} * {n}", _groups_missing),
    Plot("gather_sell", "", "Gets: {d} * {n}. Left: {d} * {n} - {c}", _gathered),
    Plot("weeks_days", "", "Days: {k} * 7", lambda d: {"k": d.n(2, 52)}),
    Plot("hours_minutes", "", "Sixty each: {k} * 60", lambda d: {"k": d.n(2, 48)}),
    Plot("years_months", "", "Twelve each: {k} * 12", lambda d: {"k": d.n(2, 30)}),
)
