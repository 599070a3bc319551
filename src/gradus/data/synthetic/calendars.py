"""weekday and date: counting days from a weekday or a date with the calculator.

Weekdays: number them from Monday 1 to Sunday 0, add or take away the days, keep the remainder by 7. Dates: state
the length of the month, add or take away, then carry over the month's end in a call of its own. A small model
does not learn the sums by heart in its few minutes (EXPERIMENTS.md). The year is never a leap year.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gradus.data.synthetic import numerals
from gradus.data.synthetic.facts import DAYS, MONTH_LENGTHS, MONTHS
from gradus.data.synthetic.grammar import load_grammar
from gradus.data.synthetic.item import Check, Item, Persona, Turn, between, pick
from gradus.data.synthetic.surface import dress

_RELATIVE = {
    -2: "the day before yesterday",
    -1: "yesterday",
    0: "today",
    1: "tomorrow",
    2: "the day after tomorrow",
}
_SHORT_DAYS = {day: (day[:3], day[:3] + ".") for day in DAYS}
THINK_CLOSED: Check = {"kind": "think_closed"}
NO_CALLS: Check = {"kind": "calls_none"}


@dataclass(frozen=True, slots=True)
class Steps:
    """How a day is reached: thinking, then calculator expressions, each made from the result before it."""

    thinking: str
    expressions: tuple[str, ...]


def weekday_steps(day: str, days: int, shown: str = "") -> tuple[Steps, str]:
    """(steps, weekday) for `days` after `day`, before it when negative. Monday is 1, Sunday 0.

    shown: the number of days as the calculator gets it, if not plain (`as_days`).
    """
    number = (DAYS.index(day) + 1) % 7
    shown = shown or str(abs(days))
    sign, direction = ("+", "Forward") if days >= 0 else ("-", "Back")
    expression = f"mod({number} {sign} {shown}, 7)"
    reached = DAYS[(DAYS.index(day) + days) % 7]
    return Steps(f"{day} is {number}. {direction} {shown}: {expression}.", (expression,)), reached


def date_steps(month: str, day: int, days: int, shown: str = "") -> tuple[Steps, str, int]:
    """(steps, month, day) for `days` after a date, before it when negative: add, then carry over month ends.

    shown: the number of days as the calculator gets it, if not plain (`as_days`).
    """
    place = MONTHS.index(month)
    shown = shown or str(abs(days))
    if days >= 0:
        expressions = [f"{day} + {shown}"]
        thinking = f"{month} has {MONTH_LENGTHS[month]} days. {day} + {shown}."
        total = day + days
        while total > (length := MONTH_LENGTHS[MONTHS[place]]):
            expressions.append(f"{total} - {length}")
            total -= length
            place = (place + 1) % 12
    else:
        before = MONTHS[place - 1]
        expressions = [f"{day} - {shown}"]
        thinking = f"Before {month} is {before} with {MONTH_LENGTHS[before]} days. {day} - {shown}."
        total = day + days
        while total < 1:
            place = (place - 1) % 12
            length = MONTH_LENGTHS[MONTHS[place]]
            expressions.append(f"{total} + {length}")
            total += length
    return Steps(thinking, tuple(expressions)), MONTHS[place], total


def length_of_time(rng: random.Random, days: int) -> str:
    """`days` as people say it: 10 days, ten days, a week, two weeks."""
    if days == 1:
        return pick(rng, ("1 day", "one day", "a day", "1 day"))
    weeks, rest = divmod(days, 7)
    if not rest and rng.random() < 0.5:
        if weeks == 1:
            return pick(rng, ("a week", "one week", "1 week"))
        return f"{numerals.integer(rng, weeks, words=0.4)} weeks"
    return f"{numerals.integer(rng, days, words=0.08)} days"


def as_days(text: str, days: int) -> str:
    """The days of a length of time, as the calculator gets them: weeks are multiplied there."""
    return f"{days // 7} * 7" if "weeks" in text else str(days)


def weekday_check(day: str) -> tuple[Check, ...]:
    return ({"kind": "exactly_one_of", "value": day, "of": list(DAYS)}, THINK_CLOSED)


def date_check(month: str, day: int) -> tuple[Check, ...]:
    return ({"kind": "answer_regex", "pattern": rf"\b{month} {day}\b"}, THINK_CLOSED)


def stepped_turn(question: str, answer: str, steps: Steps, checks: tuple[Check, ...], key: str, note: str = "") -> Turn:
    """A turn that works with these steps; note: what comes before them in its thinking."""
    first, *further = steps.expressions
    return Turn(question, answer, note + steps.thinking, first, checks, further=tuple(further), key=key)


def weekday_key(day: str, days: int) -> str:
    return f"weekday|{day}|{days}"


def date_key(month: str, day: int, days: int) -> str:
    return f"date|{month}|{day}|{days}"


def weekday(rng: random.Random, persona: Persona) -> Item:
    """A weekday plus or minus days, or one relative day from another."""
    day = pick(rng, DAYS)
    grammar = load_grammar("weekday")
    shown, note = "", ""
    if rng.random() < 0.16:
        anchor, target = between(rng, -2, 2), between(rng, -2, 2)
        while anchor == target:
            target = between(rng, -2, 2)
        days = target - anchor
        slots = {
            "d": _weekday_text(rng, day),
            "anchor": _RELATIVE[anchor],
            "anchor_is": "was" if anchor < 0 else pick(rng, ("is", "will be")) if anchor > 0 else "is",
            "target": _RELATIVE[target],
            "target_is": "was" if target < 0 else pick(rng, ("is", "will be")) if target > 0 else "is",
        }
        question = grammar.text("near", rng, slots)
        note = f"From {_RELATIVE[anchor]} to {_RELATIVE[target]}: {'+' if days > 0 else '-'}{abs(days)}. "
        verb = "was" if target < 0 else "will be" if target > 0 else "is"
    elif rng.random() < 0.08:
        # Seen from another day: what was n days ago is left behind, what will be in n days is ahead.
        days = between(rng, 1, 20)
        span = length_of_time(rng, days)
        shown = as_days(span, days)
        forward = rng.random() < 0.5
        slots = {"d": _weekday_text(rng, day), "n": span, "event": grammar.text("event", rng)}
        question = grammar.text("ago_was" if forward else "in_will", rng, slots)
        days = days if forward else -days
        verb = "is"
    else:
        days = between(rng, 1, 60) if rng.random() < 0.75 else between(rng, 1, 13)
        if rng.random() < 0.08:
            days = 7 * between(rng, 1, 8)
        span = length_of_time(rng, days)
        shown = as_days(span, days)
        forward = rng.random() < 0.6
        slots = {"d": _weekday_text(rng, day), "n": span, "event": grammar.text("event", rng)}
        question = grammar.text("fwd" if forward else "back", rng, slots)
        days = days if forward else -days
        verb = "will be" if forward else "was"
    steps, result = weekday_steps(day, days, shown)
    key = weekday_key(day, days)
    turn = stepped_turn(dress(question, rng), f"It {verb} {result}.", steps, weekday_check(result), key, note)
    return Item("weekday", key, (turn,))


def _weekday_text(rng: random.Random, day: str) -> str:
    draw = rng.random()
    return day if draw < 0.9 else pick(rng, _SHORT_DAYS[day])[:3] if draw < 0.94 else day.lower()


def date_text(rng: random.Random, month: str, day: int) -> str:
    """A date as people write it."""
    draw = rng.random()
    if draw < 0.42:
        return f"{month} {day}"
    if draw < 0.62:
        return f"{month} {numerals.ordinal(day)}"
    if draw < 0.74:
        return f"{day} {month}"
    if draw < 0.84:
        return f"the {numerals.ordinal(day)} of {month}"
    if draw < 0.92:
        return f"{numerals.ordinal(day)} {month}"
    if draw < 0.95:
        return f"{numerals.ordinal(day)} of {month}"
    short = month if len(month) < 5 else month[:3]
    return f"{short} {day}" if draw < 0.98 else f"{month} the {numerals.ordinal(day)}"


def date(rng: random.Random, persona: Persona) -> Item:
    """A date plus or minus up to thirty days."""
    month = pick(rng, MONTHS)
    day = between(rng, 1, MONTH_LENGTHS[month])
    grammar = load_grammar("date")
    forward = rng.random() < 0.6
    slots = {"d": date_text(rng, month, day)}
    shown, verb = "", ""
    draw = rng.random()
    if draw < 0.05:
        days = between(rng, 1, 2)
        slots["target"] = _RELATIVE[days if forward else -days]
        rule = "near" if forward else "near_back"
    elif draw < 0.08:
        days = 1
        rule = "next" if forward else "previous"
    else:
        days = between(rng, 1, 30)
        span = length_of_time(rng, days)
        shown = as_days(span, days)
        slots["n"] = span
        slots["nh"] = f"{days}-day" if "day" in span else span
        slots["event"] = grammar.text("event", rng)
        rule = "fwd" if forward else "back"
        if draw < 0.15:
            rule = "ago_was" if forward else "in_will"
            verb = "is"
        elif forward and draw < 0.20:
            rule = "hyphen"
            slots["n"] = f"{days} days"
            shown = ""
    question = grammar.text(rule, rng, slots)
    days = days if forward else -days
    steps, new_month, new_day = date_steps(month, day, days, shown)
    verb = verb or ("will be" if forward else "was")
    answer = f"It {verb} {new_month} {new_day}."
    key = date_key(month, day, days)
    turn = stepped_turn(dress(question, rng), answer, steps, date_check(new_month, new_day), key)
    return Item("date", key, (turn,))
