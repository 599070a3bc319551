"""age: years of birth, older and younger, in and ago, answered through the calculator."""

from __future__ import annotations

import random

from gradus.data.synthetic import numerals
from gradus.data.synthetic.grammar import load_grammar
from gradus.data.synthetic.item import Item, Persona, Turn, between, pick
from gradus.data.synthetic.people import other_person, subject
from gradus.data.synthetic.surface import dress, with_articles

# rule -> (plan, expression)
_KINDS = {
    "born_age": ("Age", "{z} - {y}"),
    "born_year": ("Year of birth", "{z} - {a}"),
    "turns": ("Year", "{y} + {a}"),
    "older": ("Older", "{a} + {n}"),
    "younger": ("Younger", "{a} - {n}"),
    "future": ("Later", "{a} + {n}"),
    "past": ("Earlier", "{a} - {n}"),
    "twice": ("Times as old", "{a} * {k}"),
    "half": ("Half as old", "{a} / 2"),
    "gap": ("Difference", "{a} - {b}"),
    "sum": ("Sum", "{a} + {b}"),
    "later": ("Age", "{a} + {z} - {y}"),
    "span": ("Difference", "{z} - {y}"),
}
_WEIGHTED = (
    *("born_age",) * 9,
    *("older",) * 4,
    *("younger",) * 4,
    *("future",) * 4,
    *("past",) * 4,
    "born_year",
    "born_year",
    "turns",
    "twice",
    "half",
    "gap",
    "sum",
    "later",
    "span",
)
_YEARS = frozenset(("born_year", "turns"))
_TIMES = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}


def generate(rng: random.Random, persona: Persona) -> Item:
    rule = pick(rng, _WEIGHTED)
    plan, form = _KINDS[rule]
    values = _values(rng, rule)
    if rng.random() < 0.5 and rule in ("born_age", "future", "past", "turns", "born_year"):
        person = subject(rng, first_person=1.0)
    else:
        person = subject(rng, first_person=0.15)
    slots = {
        slot: numerals.integer(rng, value, words=0.1) if value < 1000 else str(value) for slot, value in values.items()
    }
    slots["times"] = _TIMES[values["k"]] if rng.random() < 0.8 else f"{values['k']} times"
    slots |= person
    slots["P"] = other_person(rng, of=person["his"])
    question = with_articles(load_grammar("age").text(rule, rng, slots))
    expression = form.format(**values)
    answer = (
        "In {result}."
        if rule in _YEARS
        else "{result} years."
        if rule in ("gap", "sum", "span")
        else "{result} years old."
    )
    key = f"age|{expression}"
    turn = Turn(dress(question, rng), answer, f"{plan}: {expression}.", calculation=expression, key=key)
    return Item("age", key, (turn,))


def _values(rng: random.Random, rule: str) -> dict[str, int]:
    if rng.random() < 0.85:
        year = between(rng, 1930, 2020)
        later = min(2060, year + between(rng, 1, 95))
    else:
        year = between(rng, 1700, 1950)
        later = year + between(rng, 1, 100)
    age = between(rng, 2, 95)
    values = {
        "y": year,
        "z": later,
        "a": age,
        "b": between(rng, 1, 90),
        "n": between(rng, 1, 40),
        "k": between(rng, 2, 5),
    }
    if rule in ("younger", "past"):
        values["n"] = between(rng, 1, age - 1)
    elif rule == "gap":
        values["b"] = between(rng, 1, age - 1)
    elif rule == "half":
        values["a"] = 2 * between(rng, 1, 45)
    elif rule == "twice":
        values["a"] = between(rng, 2, 45) if values["k"] == 2 else between(rng, 2, 18)
    elif rule == "later":
        values["a"] = between(rng, 1, 40)
        values["z"] = year + between(rng, 1, 50)
    return values


def two_years(rng: random.Random) -> tuple[Turn, Turn, str]:
    """The age of one person in a year, then in another: (first turn, second turn, how the second asks)."""
    birth = between(rng, 1930, 2015)
    one, two = birth + between(rng, 1, 80), birth + between(rng, 1, 80)
    slots = {"y": str(birth), "z": str(one), **subject(rng)}
    question = dress(load_grammar("age").text("born_age", rng, slots), rng)
    first, second = (
        Turn(question, "{result} years old.", f"Age: {e}.", calculation=e, key=f"age|{e}")
        for e in (f"{one} - {birth}", f"{two} - {birth}")
    )
    return first, second, f"in {two}" if rng.random() < 0.7 else str(two)
