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


def _days_start(d: Draw) -> Values:
    t, n, _ = _multiple(d, 400)
    c = d.n(5, 80)
    return {"t": t + c, "n": n, "c": c}


def _recipe(d: Draw) -> Values:
    a, each = d.n(2, 10), d.n(1, 12)
    return {"a": a, "n": a * each if d.n(0, 3) else d.n(1, 30), "b": a * d.n(2, 6) if d.n(0, 1) else d.n(2, 40)}


def _unit(d: Draw) -> Values:
    a = d.n(2, 12)
    return {"a": a, "m": a * d.n(1, 25) * 100 if d.n(0, 4) else a * 25 * d.n(1, 40), "b": d.n(2, 30)}


def _seats(d: Draw) -> Values:
    a, b = d.n(2, 25), d.n(2, 20)
    return {"a": a, "b": b, "t": d.n(1, a * b - 1)}


def _thirds(d: Draw) -> Values:
    k = d.n(3, 5)
    t = k * d.n(2, 80)
    return {"k": k, "t": t, "m": t * 100}


def _rope(d: Draw) -> Values:
    k, n = d.n(2, 12), d.n(2, 15)
    return {"k": k, "n": n, "t": k * n + d.n(1, 100)}


def _profit(d: Draw) -> Values:
    q = d.cash(1, 30)
    return {"n": d.n(2, 40), "q": q, "p": q + d.n(1, 20) * 100}


def _profit_total(d: Draw) -> Values:
    n, p = d.n(3, 40), d.cash(2, 25)
    return {"n": n, "p": p, "c": d.n(1, max(2, n * p // 100 - 1)) * 100}


def _rates(d: Draw) -> Values:
    k, p, c = d.n(2, 24), d.n(5, 60), d.n(5, 200)
    return {"k": k, "c": c * 100, "m": (c + k * p) * 100}


def _up_down(d: Draw) -> Values:
    b = d.n(1, 15)
    return {"a": b + d.n(0, 25), "b": b, "c": d.n(1, 20)}


def _two_spent(d: Draw) -> Values:
    p, q = d.cash(2, 60), d.cash(2, 60)
    return {"p": p, "q": q, "m": d.above(p + q)}


def _sum_less(d: Draw) -> Values:
    a, b = d.n(5, 200), d.n(5, 200)
    p, q = d.cash(5, 80), d.cash(5, 80)
    return {"a": a, "b": b, "c": d.n(2, a + b - 1), "p": p, "q": q, "r": d.n(1, (p + q) // 100 - 1) * 100}


def _share_sum(d: Draw) -> Values:
    k, each = d.n(2, 12), d.n(3, 30)
    a = d.n(1, k * each - 1)
    return {"a": a, "b": k * each - a, "k": k, "p": a * 100, "q": (k * each - a) * 100}


def _packs(d: Draw) -> Values:
    t, n, _ = _multiple(d, 200)
    return {"t": t, "n": n, "p": d.cash(2, 30)}


def _missing(d: Draw) -> Values:
    t = d.n(10, 500)
    a = d.n(1, t - 1)
    return {"t": t, "a": a, "m": t * 100, "p": a * 100}


def _groups_missing(d: Draw) -> Values:
    k, n = d.n(2, 12), d.n(2, 25)
    return {"k": k, "n": n, "t": k * n + d.n(1, 150)}


def _ratio(d: Draw) -> Values:
    a = d.n(2, 12)
    return {"a": a, "b": d.n(1, 30), "c": a * d.n(2, 15)}


def _average(d: Draw) -> Values:
    a, b = d.n(5, 100), d.n(5, 100)
    c = d.n(5, 100)
    return {"a": a, "b": b, "c": c + (-(a + b + c)) % 3 if d.n(0, 3) else c}


def _dozen(d: Draw) -> Values:
    k = d.n(2, 20)
    return {"k": k, "c": d.n(1, 12 * k - 1)}


def _gathered(d: Draw) -> Values:
    n, days = d.n(2, 30), d.n(2, 14)
    return {"n": n, "d": days, "c": d.n(1, n * days - 1)}


def _pair_of_prices(d: Draw) -> Values:
    p = d.cash(5, 120)
    return {"p": p, "c": d.n(1, p // 100 - 1) * 100}


def _scaled(d: Draw) -> Values:
    k, n = d.n(2, 15), d.n(2, 15)
    return {"k": k, "n": n, "c": d.n(1, k * n - 1)}


def _packs_used(d: Draw) -> Values:
    n, packs, size = d.n(1, 6), d.n(2, 8), d.n(2, 12)
    return {"n": n, "d": packs * size, "k": n * size}


def _slices(d: Draw) -> Values:
    k, each, a = d.n(2, 8), d.n(1, 6), d.n(2, 6)
    return {"a": a, "b": k * each, "k": k}


def _time_left(d: Draw) -> Values:
    a, b = d.n(3, 80), d.n(3, 60)
    return {"a": a, "b": b, "t": a + b + d.n(2, 120)}


PLOTS: tuple[Plot, ...] = (
    Plot("wage_hours", "p", "Pay: {h} * {p}", _wage, True),
    Plot("wage_days", "p", "Hours: {h} * {d}. Pay: {h} * {d} * {p}", _wage, True),
    Plot("wage_spend", "pc", "Gets: {h} * {p}. Left: {h} * {p} - {c}", _spent, True),
    Plot("wage_bonus", "pc", "Gets: {h} * {p}. Total: {h} * {p} + {c}", _spent, True),
    Plot("save_total", "p", "Saved: {d} * {p}", lambda d: {"p": d.cash(2, 90), "d": d.n(2, 30)}, True),
    Plot(
        "save_start",
        "pc",
        "Added: {d} * {p}. Total: {c} + {d} * {p}",
        lambda d: {"p": d.cash(2, 60), "d": d.n(2, 30), "c": d.cash(5, 300)},
        True,
    ),
    Plot("save_weeks", "mp", "Time: {m} / {p}", lambda d: _weeks(d, start=False)),
    Plot("save_weeks_start", "mpc", "Missing: {m} - {c}. Time: ({m} - {c}) / {p}", lambda d: _weeks(d, start=True)),
    Plot("read_total", "", "Total: {d} * {n}", lambda d: {"n": d.n(2, 60), "d": d.n(2, 31)}),
    Plot("read_left", "", "Done: {d} * {n}. Left: {t} - {d} * {n}", _used),
    Plot("read_days", "", "Time: {t} / {n}", _days),
    Plot("read_days_start", "", "Missing: {t} - {c}. Time: ({t} - {c}) / {n}", _days_start),
    Plot("distance", "", "Way: {h} * {v}", lambda d: {"v": d.n(3, 120), "h": d.n(2, 12)}),
    Plot(
        "distance_two",
        "",
        "First: {h} * {v}. Then: {g} * {w}. Total: {h} * {v} + {g} * {w}",
        lambda d: {"h": d.n(2, 9), "v": d.n(4, 100), "g": d.n(2, 9), "w": d.n(4, 100)},
    ),
    Plot("travel_time", "", "Time: {t} / {v}", lambda d: (lambda v, h: {"v": v, "t": v * h})(d.n(4, 90), d.n(2, 9))),
    Plot("speed", "", "Speed: {t} / {h}", lambda d: (lambda v, h: {"h": h, "t": v * h})(d.n(4, 90), d.n(2, 9))),
    Plot(
        "round_trip", "", "There and back: 2 * {n}. Total: 2 * {n} * {d}", lambda d: {"n": d.n(2, 60), "d": d.n(2, 20)}
    ),
    Plot("recipe", "", "One: {n} / {a}. Total: {n} / {a} * {b}", _recipe),
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
        "coins",
        "",
        "First: {a} * 25. Then: {b} * 10. Total: {a} * 25 + {b} * 10",
        lambda d: {"a": d.n(2, 15), "b": d.n(2, 15)},
    ),
    Plot(
        "bills",
        "",
        "First: {a} * 10. Then: {b} * 5. Total: {a} * 10 + {b} * 5",
        lambda d: {"a": d.n(2, 15), "b": d.n(2, 15)},
        True,
    ),
    Plot("seats", "", "All: {a} * {b}. Left: {a} * {b} - {t}", _seats),
    Plot(
        "groups_extra",
        "",
        "Groups: {a} * {b}. Total: {a} * {b} + {t}",
        lambda d: {"a": d.n(2, 20), "b": d.n(2, 25), "t": d.n(1, 60)},
    ),
    Plot("nested", "", "Total: {a} * {b} * {c}", lambda d: {"a": d.n(2, 9), "b": d.n(2, 9), "c": d.n(2, 12)}),
    Plot("half_left", "", "Half: {t} / 2", lambda d: {"t": 2 * d.n(2, 250)}),
    Plot("fraction_left", "m", "Part: {t} / {k}. Left: {t} - {t} / {k}", _thirds),
    Plot("fraction_of", "", "Part: {t} / {k}", _thirds),
    Plot("perimeter", "", "Around: 2 * ({a} + {b})", lambda d: {"a": d.n(2, 90), "b": d.n(2, 60)}),
    Plot("area", "", "Area: {a} * {b}", lambda d: {"a": d.n(2, 60), "b": d.n(2, 40)}),
    Plot("square_shape", "", "Around: 4 * {a}", lambda d: {"a": d.n(2, 120)}),
    Plot("minutes", "", "Hours: {h} * 60. Total: {h} * 60 + {n}", lambda d: {"h": d.n(1, 12), "n": d.n(1, 59)}),
    Plot("episodes", "", "Total: {a} * {b}", lambda d: {"a": d.n(2, 30), "b": d.n(5, 90)}),
    Plot("average", "", "Sum: {a} + {b} + {c}. Average: ({a} + {b} + {c}) / 3", _average),
    Plot("profit_each", "pq", "One: {p} - {q}. Total: {n} * ({p} - {q})", _profit, True),
    Plot("profit_total", "pc", "Gets: {n} * {p}. Left: {n} * {p} - {c}", _profit_total, True),
    Plot(
        "installment_total",
        "cp",
        "Payments: {k} * {p}. Total: {c} + {k} * {p}",
        lambda d: {"k": d.n(2, 24), "p": d.cash(2, 80), "c": d.cash(2, 200)},
        True,
    ),
    Plot("installment_each", "mc", "Rest: {m} - {c}. Each: ({m} - {c}) / {k}", _rates, True),
    Plot("temperature", "", "Down: {a} - {b}. Up: {a} - {b} + {c}", _up_down),
    Plot("rope", "", "Used: {k} * {n}. Left: {t} - {k} * {n}", _rope),
    Plot("rope_cut", "", "Each: {t} / {k}", lambda d: (lambda k, n: {"k": k, "t": k * n})(d.n(2, 12), d.n(2, 40))),
    Plot("budget_two", "mpq", "Left: {m} - {p} - {q}", _two_spent, True),
    Plot("three_sum", "", "Total: {a} + {b} + {c}", lambda d: {"a": d.n(2, 200), "b": d.n(2, 200), "c": d.n(2, 200)}),
    Plot("two_sum_less", "pqr", "", _sum_less),
    Plot("twice_day", "", "Second: {a} * {k}. Total: {a} + {a} * {k}", lambda d: {"a": d.n(2, 150), "k": d.n(2, 4)}),
    Plot("share_sum", "pq", "", _share_sum),
    Plot("share_rest", "", "Rest: {t} - {c}. Each: ({t} - {c}) / {k}", lambda d: _shared(d, start=True)),
    Plot(
        "price_cut_n",
        "pc",
        "One: {p} - {c}. Total: {n} * ({p} - {c})",
        lambda d: (lambda c: {"n": d.n(2, 20), "c": c, "p": c + d.cash(1, 30)})(d.n(1, 9) * 100),
        True,
    ),
    Plot("pack_price", "p", "Packs: {t} / {n}. Total: {t} / {n} * {p}", _packs, True),
    Plot("need_more", "mp", "", _missing),
    Plot("need_more_groups", "", "Groups: {k} * {n}. Missing: {t} - {k} * {n}", _groups_missing),
    Plot("ratio", "", "Groups: {c} / {a}. Total: {c} / {a} * {b}", _ratio),
    Plot(
        "two_rates",
        "",
        "One: {a} + {b}. Total: ({a} + {b}) * {h}",
        lambda d: {"a": d.n(2, 40), "b": d.n(2, 40), "h": d.n(2, 12)},
    ),
    Plot(
        "overtime",
        "pq",
        "First: {h} * {p}. Then: {g} * {q}. Total: {h} * {p} + {g} * {q}",
        lambda d: {"h": d.n(2, 40), "p": d.cash(5, 30), "g": d.n(2, 10), "q": d.cash(8, 45)},
        True,
    ),
    Plot(
        "weight",
        "",
        "Many: {k} * {n}. Total: {k} * {n} + {c}",
        lambda d: {"k": d.n(2, 20), "n": d.n(2, 30), "c": d.n(1, 40)},
    ),
    Plot(
        "per_group_more",
        "pq",
        "",
        lambda d: {"k": d.n(2, 15), "n": d.n(2, 20), "c": d.n(1, 40), "p": d.cash(2, 90), "q": d.cash(2, 90)},
    ),
    Plot("dozen", "", "", _dozen),
    Plot("gather_sell", "", "Gets: {d} * {n}. Left: {d} * {n} - {c}", _gathered),
    Plot("gather_more", "", "Added: {d} * {n}. Total: {c} + {d} * {n}", _gathered),
    Plot(
        "week_split",
        "",
        "First: {a} * {n}. Then: {b} * {m}. Total: {a} * {n} + {b} * {m}",
        lambda d: {"a": d.n(2, 9), "n": d.n(3, 50), "b": d.n(2, 9), "m": d.n(3, 50)},
    ),
    Plot(
        "price_times",
        "p",
        "Second: {p} * {k}. Total: {p} + {p} * {k}",
        lambda d: {"p": d.cash(2, 150), "k": d.n(2, 4)},
        True,
    ),
    Plot("price_more", "pc", "Second: {p} + {c}. Total: {p} + {p} + {c}", _pair_of_prices, True),
    Plot("price_less", "pc", "Second: {p} - {c}. Total: {p} + {p} - {c}", _pair_of_prices, True),
    Plot(
        "first_hour",
        "cp",
        "Others: {h} - 1. Total: {c} + ({h} - 1) * {p}",
        lambda d: {"c": d.cash(2, 40), "p": d.cash(1, 20), "h": d.n(2, 12)},
        True,
    ),
    Plot("need_scaled", "", "Needs: {k} * {n}. Missing: {k} * {n} - {c}", _scaled),
    Plot("use_packs", "", "Needs: {d} * {n}. Number: {d} * {n} / {k}", _packs_used),
    Plot("pack_sell", "p", "Packs: {t} / {n}. Total: {t} / {n} * {p}", _packs, True),
    Plot("pizza", "", "All: {a} * {b}. Each: {a} * {b} / {k}", _slices),
    Plot("days_weeks", "", "Weeks: {t} / 7", lambda d: {"t": 7 * d.n(2, 52)}),
    Plot("weeks_days", "", "Days: {k} * 7", lambda d: {"k": d.n(2, 52)}),
    Plot("hours_minutes", "", "Sixty each: {k} * 60", lambda d: {"k": d.n(2, 48)}),
    Plot("minutes_hours", "", "Hours: {t} / 60", lambda d: {"t": 30 * d.n(2, 40)}),
    Plot("years_months", "", "Twelve each: {k} * 12", lambda d: {"k": d.n(2, 30)}),
    Plot("time_left", "", "", _time_left),
    Plot(
        "three_share",
        "",
        "Together: {a} + {b} + {c}. Each: ({a} + {b} + {c}) / 3",
        lambda d: (lambda a, b, c: {"a": a, "b": b, "c": c + (-(a + b + c)) % 3})(d.n(2, 60), d.n(2, 60), d.n(2, 60)),
    ),
    Plot("half_price", "p", "", lambda d: {"p": d.cash(2, 90), "n": d.n(2, 12)}, True),
)
"""Plots with an empty plan have lines of different kinds: `line_plan` tells them apart by the slots they show."""


def line_plan(rule: str, has: Callable[[str], bool]) -> tuple[str, bool]:
    """(plan, money answer) of a plot whose lines differ; has(name): whether the story shows that number."""
    if rule == "two_sum_less":
        if has("p"):
            return "Gets: {p} + {q}. Left: {p} + {q} - {r}", True
        return "Together: {a} + {b}. Left: {a} + {b} - {c}", False
    if rule == "share_sum":
        if has("p"):
            return "Together: {p} + {q}. Each: ({p} + {q}) / {k}", True
        return "Together: {a} + {b}. Each: ({a} + {b}) / {k}", False
    if rule == "need_more":
        return ("Missing: {m} - {p}", True) if has("m") else ("Missing: {t} - {a}", False)
    if rule == "per_group_more":
        if has("p"):
            return "Before: {p} + {q}", True
        return "Given: {k} * {n}. Before: {k} * {n} + {c}", False
    if rule == "time_left":
        return ("Left: {t} - {a} - {b}" if has("b") else "Left: {t} - {a}"), False
    if rule == "half_price":
        if has("n"):
            return "Half: {p} / 2. Total: {n} * {p} / 2", True
        return "Half: {p} / 2", True
    return ("Many: {k} * 12. Left: {k} * 12 - {c}", False) if has("c") else ("Many: {k} * 12", False)
