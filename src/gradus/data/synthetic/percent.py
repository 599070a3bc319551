"""percent: percentages of numbers, tips, discounts, taxes and shares, answered through the calculator."""

from __future__ import annotations

import random

from gradus.data.synthetic import numerals
from gradus.data.synthetic.arithmetic import ask
from gradus.data.synthetic.item import Item, Persona, Turn, between, pick
from gradus.data.synthetic.surface import dress, with_articles
from gradus.tools.calculator import calculate

# rule -> (plan, expression, answer); {p} is the percentage, {m} the amount.
_KINDS = {
    "of": ("Percent", "{p}% * {m}", "The answer is {answer}."),
    "ofn": ("Percent", "{p}% * {m}", "The answer is {answer}."),
    "tip": ("Tip", "{p}% * {m}", "The tip is {answer}."),
    "total": ("Total with tip", "{m} + {p}% * {m}", "The total is {answer}."),
    "discount": ("Price after discount", "{m} - {p}% * {m}", "The price is {answer}."),
    "saving": ("Saving", "{p}% * {m}", "You save {answer}."),
    "raise": ("Increase", "{m} + {p}% * {m}", "The new amount is {answer}."),
    "tax": ("Tax", "{p}% * {m}", "The tax is {answer}."),
    "splittip": ("Total with tip, per person", "({m} + {p}% * {m}) / {k}", "Each pays {answer}."),
}
_WEIGHTED = (
    *("of",) * 7,
    *("ofn",) * 2,
    *("tip",) * 8,
    *("total",) * 5,
    *("discount",) * 6,
    *("saving",) * 3,
    *("raise",) * 3,
    "tax",
    "share",
    "splittip",
)
_BELOW_WHOLE = frozenset(("tip", "total", "discount", "saving", "splittip"))
_PERCENTS = ("5", "10", "12", "15", "18", "20", "25", "30", "40", "50", "60", "75", "80", "90")


def percent_value(rng: random.Random) -> str:
    """A percentage: round ones often, any from 1 to 99, now and then a half or above a hundred."""
    draw = rng.random()
    if draw < 0.35:
        return pick(rng, _PERCENTS)
    if draw < 0.93:
        return str(between(rng, 1, 99))
    if draw < 0.98:
        return f"{between(rng, 1, 35)}.5"
    return str(between(rng, 100, 200))


def money_cents(rng: random.Random, tidy: float = 0.6) -> int:
    """An everyday amount in cents, whole dollars in a `tidy` share of cases."""
    draw = rng.random()
    top = 100 if draw < 0.5 else 500 if draw < 0.85 else 5000
    whole = between(rng, 4, top)
    if rng.random() < tidy:
        return whole * 100
    return whole * 100 + (pick(rng, (50, 99, 95, 25, 75, 90)) if rng.random() < 0.4 else between(rng, 1, 99))


def generate(rng: random.Random, persona: Persona) -> Item:
    any_result = rng.random() < 0.15
    while True:
        item = _item(rng)
        if any_result or len(calculate(str(item.turns[0].calculation)).partition(".")[2]) <= 2:
            return item


def _item(rng: random.Random) -> Item:
    """A percentage of something; most amounts that people ask about come out in whole cents (`generate`)."""
    rule = pick(rng, _WEIGHTED)
    if rule == "share":
        return _share(rng)
    percent = percent_value(rng)
    while rule in _BELOW_WHOLE and float(percent) >= 100:
        percent = percent_value(rng)
    plan, form, answer = _KINDS[rule]
    plain, shown, sign = _amount(rng, rule)
    people = between(rng, 2, 8)
    slots = {"p": numerals.percent(rng, percent), "m": shown, "n": shown, "k": numerals.integer(rng, people, words=0.3)}
    expression = form.format(p=percent, m=plain, k=people)
    turn = Turn(
        user=dress(with_articles(ask(rng, "percent", rule, slots)), rng),
        answer=answer.format(answer=sign),
        thinking=f"{plan}: {expression}.",
        calculation=expression,
        key=_key(expression),
    )
    return Item("percent", turn.key, (turn,))


def _amount(rng: random.Random, rule: str) -> tuple[str, str, str]:
    """(digits, as the question shows it, as the answer shows the result) of what the percentage is taken of."""
    if rule == "ofn" or (rule == "of" and rng.random() < 0.5):
        number = between(rng, 2, 99) * pick(rng, (1, 1, 5, 10, 10, 100))
        if rng.random() < 0.5:
            number = between(rng, 10, 9999)
        return str(number), numerals.integer(rng, number, words=0.02), "{result}"
    money = numerals.currency(rng)
    cents = money_cents(rng)
    if rng.random() < 0.12:
        return numerals.plain_cents(cents), numerals.amount(cents, rng), "{result}"
    return numerals.plain_cents(cents), money.write(cents, rng), money.answer("{result}")


def _share(rng: random.Random) -> Item:
    whole = pick(rng, (10, 20, 25, 40, 50, 80, 100, 200, 400, 500, between(rng, 5, 500)))
    part = between(rng, 1, whole)
    slots = {"a": numerals.integer(rng, part), "b": numerals.integer(rng, whole)}
    expression = f"{part} / {whole} * 100"
    turn = Turn(
        user=dress(ask(rng, "percent", "share", slots), rng),
        answer="That is {result}%.",
        thinking=f"Share in percent: {expression}.",
        calculation=expression,
        key=_key(expression),
    )
    return Item("percent", turn.key, (turn,))


def simple_turn(rng: random.Random, percent: str, cents: int) -> Turn:
    """A plain "X% of Y" in dollars."""
    slots = {
        "p": numerals.percent(rng, percent),
        "m": f"${numerals.plain_cents(cents)}",
        "n": f"${numerals.plain_cents(cents)}",
    }
    expression = f"{percent}% * {numerals.plain_cents(cents)}"
    question = dress(ask(rng, "percent", "of", slots), rng)
    thinking, key = f"Percent: {expression}.", _key(expression)
    return Turn(question, "The answer is ${result}.", thinking, calculation=expression, key=key)


def _key(expression: str) -> str:
    return f"percent|{expression}"
