"""follow_up: later turns that need an earlier one: "now add 15 to that", "and its opposite?", "what is my name?"."""

from __future__ import annotations

import random
from collections.abc import Callable

from gradus.data.synthetic import ages, arithmetic, facts, knowledge, letters, numerals, percent
from gradus.data.synthetic.calendars import (
    NO_CALLS,
    as_days,
    date_check,
    date_key,
    date_steps,
    date_text,
    length_of_time,
    stepped_turn,
    weekday_check,
    weekday_key,
    weekday_steps,
)
from gradus.data.synthetic.grammar import load_grammar
from gradus.data.synthetic.item import Check, Item, Persona, Turn, between, pick
from gradus.data.synthetic.people import name as first_name
from gradus.data.synthetic.surface import dress
from gradus.data.synthetic.words import random_word
from gradus.tools.calculator import calculate

# rule -> (plan, expression); {r} is the earlier result, {v} the new value.
_STEPS = {
    "add": ("Add", "{r} + {v}"),
    "sub": ("Subtract", "{r} - {v}"),
    "mul": ("Multiply", "{r} * {v}"),
    "div": ("Divide", "{r} / {v}"),
    "double": ("Double it", "{r} * 2"),
    "half": ("Divide by 2", "{r} / 2"),
    "triple": ("Triple it", "{r} * 3"),
    "square": ("Multiply it by itself", "{r} * {r}"),
    "percent": ("Percent", "{v}% * {r}"),
    "percent_off": ("Price after discount", "{r} - {v}% * {r}"),
    "percent_on": ("Increase", "{r} + {v}% * {r}"),
}
_WEIGHTED_STEPS = (
    *("add",) * 5,
    *("sub",) * 5,
    *("mul",) * 4,
    *("div",) * 4,
    *("half",) * 3,
    *("double",) * 2,
    "triple",
    "square",
    "percent",
    "percent",
    "percent_off",
    "percent_on",
)
_MAX_CHARACTERS = 7
"""Of a result that is worked on, or that a step gives: longer ones would be an exercise in copying digits."""


def generate(rng: random.Random, persona: Persona) -> Item:
    kind: Callable[[random.Random, Persona], Item] = pick(rng, _KINDS)
    return kind(rng, persona)


def number_chain(rng: random.Random, persona: Persona) -> Item:
    """A calculation, then one or two more on its result."""
    first, result = _first_number(rng, persona)
    turns = [first]
    steps = 2 if rng.random() < 0.15 else 1
    expression = ""
    for _ in range(steps):
        turn, expression = _number_step(rng, result)
        turns.append(turn)
        result = calculate(expression)
    return Item("follow_up", f"follow_up|{expression}", tuple(turns))


def _first_number(rng: random.Random, persona: Persona) -> tuple[Turn, str]:
    """An opening turn with a short result; sometimes its reply is a bare statement, as in somebody else's chat."""
    while True:
        make = pick(rng, (arithmetic.generate, arithmetic.generate, percent.generate, ages.generate))
        turn = make(rng, persona).turns[0]
        result = calculate(str(turn.calculation))
        if len(result) <= _MAX_CHARACTERS:
            return (_plain(turn, result, rng) if rng.random() < 0.4 else turn), result


def _plain(turn: Turn, result: str, rng: random.Random, rule: str = "plain_number") -> Turn:
    """The turn answered by a bare statement that is not learned from: earlier turns of a foreign chat look so."""
    sign = "$" if "$" in turn.answer and rng.random() < 0.8 else ""
    slots = {"r": f"{sign}{result}", "e": turn.calculation or ""}
    return Turn(turn.user, _sentence(load_grammar("follow_up").text(rule, rng, slots)), train=False)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number_step(rng: random.Random, result: str) -> tuple[Turn, str]:
    while True:
        turn, expression = _any_number_step(rng, result)
        if len(calculate(expression)) <= _MAX_CHARACTERS:
            return turn, expression


def _any_number_step(rng: random.Random, result: str) -> tuple[Turn, str]:
    rule = pick(rng, _WEIGHTED_STEPS)
    plan, form = _STEPS[rule]
    if rule == "square" and len(result) > 4:
        rule, (plan, form) = "half", _STEPS["half"]
    if rule in ("add", "sub"):
        number = between(rng, 1, 100) if rng.random() < 0.75 else between(rng, 100, 999)
        if rule == "sub" and rng.random() < 0.8:
            number = between(rng, 1, max(1, int(float(result)) - 1))
        value = str(number)
    elif rule.startswith("percent"):
        value = percent.percent_value(rng)
    else:
        value = str(between(rng, 2, 12))
    shown = numerals.integer(rng, int(value)) if value.isdigit() else value
    slots = {"n": shown, "k": shown, "p": numerals.percent(rng, value)}
    expression = form.format(r=result, v=value)
    question = dress(load_grammar("follow_up").text(rule, rng, slots), rng, frame=False)
    return Turn(question, arithmetic.ANSWER, f"{plan}: {expression}.", calculation=expression), expression


def day_chain(rng: random.Random, persona: Persona) -> Item:
    """A weekday or a date, then further days from it."""
    grammar = load_grammar("follow_up")
    place: _Place = pick(rng, facts.DAYS), 0
    if rng.random() < 0.45:
        place = pick(rng, facts.MONTHS), between(rng, 1, 28)
    bank = load_grammar("date" if place[1] else "weekday")
    days = between(rng, 1, 30)
    span = length_of_time(rng, days)
    shown = date_text(rng, *place) if place[1] else place[0]
    question = dress(bank.text("fwd", rng, {"d": shown, "n": span, "event": bank.text("event", rng)}), rng)
    first, place = _day_turn(question, place, days, as_days(span, days))
    if rng.random() < 0.35:
        first = _plain(first, f"{place[0]} {place[1]}" if place[1] else place[0], rng, "plain_word")
    draw = rng.random()
    amount = ""
    if draw < 0.2:
        days, rule = (1, "day_next") if draw < 0.12 else (-1, "day_prev")
        question = grammar.text(rule, rng)
    else:
        days = between(rng, 1, 21)
        span = length_of_time(rng, days)
        amount = as_days(span, days)
        forward = rng.random() < 0.65
        question = grammar.text("day_fwd" if forward else "day_back", rng, {"nd": span})
        days = days if forward else -days
    second, _ = _day_turn(dress(question, rng, frame=False), place, days, amount)
    return Item("follow_up", f"follow_up|{place}|{days}", (first, second))


_Place = tuple[str, int]
"""A month and a day, or a weekday and 0."""


def _day_turn(question: str, place: _Place, days: int, shown: str) -> tuple[Turn, _Place]:
    """The turn that steps from a place by days, and the place it reaches. shown: the days for the calculator."""
    verb = "will be" if days > 0 else "was"
    if not place[1]:
        steps, day = weekday_steps(place[0], days, shown)
        key = weekday_key(place[0], days)
        return stepped_turn(question, f"It {verb} {day}.", steps, weekday_check(day), key), (day, 0)
    steps, month, number = date_steps(*place, days, shown)
    answer = f"It {verb} {month} {number}."
    key = date_key(*place, days)
    return stepped_turn(question, answer, steps, date_check(month, number), key), (month, number)


_REMEMBERED = {
    "name": "Your name is {x}.",
    "fav": "Your favourite {t} is {x}.",
    "pet": "Your {t}'s name is {x}.",
    "city": "You live in {x}.",
    "age": "You are {x} years old.",
    "job": "You are a {x}.",
    "rel": "Your {t}'s name is {x}.",
    "birthday": "Your birthday is {x}.",
    "lucky": "Your number is {x}.",
    "have": "You have {x} {t}.",
    "hobby": "Your hobby is {x}.",
}
_TOLD = (
    "name",
    "name",
    "name",
    "name",
    "fav",
    "fav",
    "pet",
    "city",
    "age",
    "job",
    "rel",
    "rel",
    *tuple(_REMEMBERED)[-4:],
)


def memory(rng: random.Random, persona: Persona) -> Item:
    """Something that the user said about themselves, asked for later."""
    kind = pick(rng, _TOLD)
    value, topic = _told(rng, kind)
    grammar = load_grammar("follow_up")
    slots = {"x": value, "t": topic}
    told = dress(grammar.text(f"tell_{kind}", rng, slots), rng, case=rng.random() < 0.25, frame=False)
    welcome = grammar.text("nice" if kind == "name" else "noted", rng, slots)
    turns = [Turn(told, welcome)]
    if rng.random() < 0.35:
        turns = [Turn(told, _sentence(grammar.text("plain_told", rng)), train=False)]
    if rng.random() < 0.3:
        turns.append(pick(rng, (arithmetic.generate, knowledge.direct, knowledge.identity))(rng, persona).turns[0])
    question = dress(grammar.text(f"ask_{kind}", rng, slots), rng, frame=rng.random() < 0.3)
    answer = _REMEMBERED[kind].replace("{x}", value).replace("{t}", topic)
    turns.append(Turn(question, answer, checks=(*knowledge.contains(value), NO_CALLS)))
    return Item("follow_up", f"follow_up|{kind}|{topic}|{value}|{question.lower().rstrip('.?! ')}", tuple(turns))


def _told(rng: random.Random, kind: str) -> tuple[str, str]:
    """What the user says about themselves, and what it is about where the kind leaves that open."""
    grammar = load_grammar("follow_up")
    if kind == "name":
        return first_name(rng), ""
    if kind == "age":
        return str(between(rng, 6, 90)), ""
    if kind == "lucky":
        return str(between(rng, 1, 99)), ""
    if kind == "birthday":
        return f"{pick(rng, facts.MONTHS)} {between(rng, 1, 28)}", ""
    if kind == "have":
        return str(between(rng, 2, 20)), grammar.text("things", rng)
    if kind == "rel":
        return first_name(rng), grammar.text("rel", rng)
    if kind == "fav":
        topic = grammar.text("topic", rng)
        return grammar.text(f"fav_{topic}", rng), topic
    if kind == "pet":
        return grammar.text("pet_name", rng), grammar.text("pet", rng)
    return grammar.text(kind, rng), ""


def fact_again(rng: random.Random, persona: Persona) -> Item:
    """A fact, then the same question about something else: "and of Italy?"."""
    rule = pick(rng, ("capital", "capital", "opposite", "count", "colour"))
    grammar, follow = load_grammar("direct"), load_grammar("follow_up")
    if rule == "capital":
        one, two = rng.sample(tuple(facts.CAPITALS), 2)
        first, second = knowledge.capital(one), knowledge.capital(two)
        shown = second[0]["c"]
    elif rule == "opposite":
        pairs = rng.sample(facts.OPPOSITES, 2)
        first, second = knowledge.opposite(*pairs[0]), knowledge.opposite(*pairs[1])
        shown = second[0]["x"]
    elif rule == "colour":
        one, two = rng.sample(tuple(facts.COLOURS), 2)
        first, second = knowledge.colour(one), knowledge.colour(two)
        shown = second[0]["x"]
    else:
        fact = pick(rng, facts.COUNTS)
        others = [other for other in facts.COUNTS if other.part == fact.part and other != fact]
        if not others:
            return fact_again(rng, persona)
        first, second = knowledge.count(fact), knowledge.count(pick(rng, others))
        shown = second[0]["whole"]
    question = dress(grammar.text(rule, rng, first[0]), rng)
    again = dress(follow.text("again_of", rng, {"x": shown}), rng, frame=False)
    opening = Turn(question, first[1], checks=first[2], key=knowledge.direct_key(rule, question))
    if rule != "count" and rng.random() < 0.3:
        opening = _plain(opening, first[1].rstrip(".").rpartition(" is ")[2], rng, "plain_word")
    turns = (opening, Turn(again, second[1], checks=(*second[2], NO_CALLS)))
    return Item("follow_up", f"follow_up|{rule}|{second[1]}|{again.lower().rstrip('.?! ')}", turns)


def word_chain(rng: random.Random, persona: Persona) -> Item:
    """A word, then its spelling, one of its letters, or its opposite."""
    follow = load_grammar("follow_up")
    draw = rng.random()
    if draw < 0.35:
        pair = pick(rng, facts.OPPOSITES)
        slots, answer, checks = knowledge.opposite(*(pair if rng.random() < 0.5 else pair[::-1]))
        first = _direct_turn(rng, "opposite", slots, answer, checks)
        word = answer.rstrip(".").split()[-1]
    elif draw < 0.5:
        country = pick(rng, [name for name, city in facts.CAPITALS.items() if " " not in city])
        slots, answer, checks = knowledge.capital(country)
        first = _direct_turn(rng, "capital", slots, answer, checks)
        word = facts.CAPITALS[country].lower()
    else:
        pair = pick(rng, facts.OPPOSITES)
        word = pick(rng, pair) if rng.random() < 0.5 else random_word(rng)
        make = letters.spelling_turn if rng.random() < 0.6 else letters.counting_turn
        first = make(rng, word)
    if first.thinking is None and "-" not in first.answer and rng.random() < 0.3:
        first = _plain(first, word.capitalize() if word in _CITIES else word, rng, "plain_word")
    opposites = {one: two for pair in facts.OPPOSITES for one, two in (pair, pair[::-1])}
    draw = rng.random()
    if word in opposites and draw < 0.4:
        _, answer, checks = knowledge.opposite(word, opposites[word])
        question = dress(follow.text("opposite_that", rng), rng, frame=False)
        second = Turn(question, answer, checks=(*checks, NO_CALLS))
    elif draw < 0.7 and first.answer != letters.spelled(word):
        question = dress(follow.text("spell_that", rng), rng, frame=False)
        checks, key = letters.spelling_check(word), letters.spelling_key(word)
        second = Turn(question, letters.spelled(word), checks=checks, key=key)
    else:
        letter = letters.asked_letter(rng, word)
        question = dress(follow.text("count_that", rng, letters.letter_slots(rng, letter)), rng, frame=False)
        second = letters.letter_turn(question, word, letter)
    return Item("follow_up", f"follow_up|{word}|{second.answer}|{question.lower().rstrip('.?! ')}", (first, second))


def _direct_turn(rng: random.Random, rule: str, slots: dict[str, str], answer: str, checks: tuple[Check, ...]) -> Turn:
    question = dress(load_grammar("direct").text(rule, rng, slots), rng)
    return Turn(question, answer, checks=checks, key=knowledge.direct_key(rule, question))


def value_again(rng: random.Random, persona: Persona) -> Item:
    """The same calculation with one value changed: "and 25%?", "and in 2030?", "what about 6 x 7?"."""
    follow = load_grammar("follow_up")
    kind = pick(rng, ("percent", "times", "year", "spell", "letter"))
    if kind == "percent":
        cents = percent.money_cents(rng)
        one, two = percent.percent_value(rng), percent.percent_value(rng)
        first, second = (percent.simple_turn(rng, value, cents) for value in (one, two))
        shown = numerals.percent(rng, two)
    elif kind == "times":
        first, second = (arithmetic.two_numbers(rng) for _ in range(2))
        shown = str(second.calculation) if rng.random() < 0.5 else _in_words(str(second.calculation))
    elif kind == "year":
        first, second, shown = ages.two_years(rng)
    elif kind == "spell":
        first, second = (letters.spelling_turn(rng, random_word(rng)) for _ in range(2))
        shown = second.answer.replace("-", "")
    else:
        word = random_word(rng)
        letter = letters.asked_letter(rng, word)
        first = letters.counting_turn(rng, word)
        second = letters.letter_turn("", word, letter)
        shown = pick(rng, (f"the letter {letter}", f"{letter}'s", f"{letter}", f"the {letter}s"))
    question = dress(follow.text("again", rng, {"x": shown}), rng, frame=False)
    last = Turn(question, second.answer, second.thinking, second.calculation, second.checks, key=second.key)
    key = second.calculation or f"{second.answer}|{second.thinking}"
    return Item("follow_up", f"follow_up|{key}", (first, last))


def _in_words(expression: str) -> str:
    for sign, word in ((" + ", " plus "), (" - ", " minus "), (" * ", " times "), (" / ", " divided by ")):
        expression = expression.replace(sign, word)
    return expression


_CITIES = frozenset(city.lower() for city in facts.CAPITALS.values())
_KINDS = (
    *(number_chain,) * 7,
    *(day_chain,) * 3,
    *(memory,) * 4,
    *(fact_again,) * 2,
    *(word_chain,) * 3,
    *(value_again,) * 3,
)
