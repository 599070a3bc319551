"""identity and direct: what the assistant says by heart, without a tool; only the order of days needs a thought."""

from __future__ import annotations

import random

from gradus.data.synthetic import facts
from gradus.data.synthetic.calendars import NO_CALLS
from gradus.data.synthetic.grammar import load_grammar
from gradus.data.synthetic.item import Check, Item, Persona, Turn, between, pick
from gradus.data.synthetic.people import name as first_name
from gradus.data.synthetic.surface import dress

_TALK = {
    "greeting": (facts.GREETING_REPLIES, ("hello", "hi!")),
    "thanks": (facts.THANKS_REPLIES, ("welcome",)),
    "farewell": (facts.FAREWELL_REPLIES, ("goodbye",)),
    "wellbeing": (facts.WELLBEING_REPLIES, ("well",)),
}
_DIRECT = (
    *("capital",) * 6,
    "capital_of",
    *("opposite",) * 7,
    "next_day",
    "prev_day",
    "next_month",
    "prev_month",
    *("count",) * 4,
    *("colour",) * 3,
    *("greeting",) * 2,
    "thanks",
    "thanks",
    "farewell",
    "farewell",
    "wellbeing",
)
_ORDER = {
    "next_day": (facts.DAYS, 1, "d"),
    "prev_day": (facts.DAYS, -1, "d"),
    "next_month": (facts.MONTHS, 1, "m"),
    "prev_month": (facts.MONTHS, -1, "m"),
}


def identity(rng: random.Random, persona: Persona) -> Item:
    topic = pick(rng, tuple(facts.IDENTITY))
    fact = facts.IDENTITY[topic]
    question = dress(load_grammar("identity").text(topic, rng, {"name": persona.name, "friend": first_name(rng)}), rng)
    replies = [fill_persona(reply, persona) for reply in fact.replies]
    holds = [fill_persona(text, persona) for text in fact.holds]
    checks: tuple[Check, ...] = ({"kind": "answer_contains", "all": holds}, NO_CALLS)
    turn = Turn(question, pick(rng, replies), checks=checks, key=_asked_key("identity", topic, question))
    return Item("identity", turn.key, (turn,))


def fill_persona(text: str, persona: Persona) -> str:
    return text.replace("{name}", persona.name).replace("{maker}", persona.maker)


def direct(rng: random.Random, persona: Persona) -> Item:
    rule = pick(rng, _DIRECT)
    slots, answer, checks = _direct_fact(rng, rule, persona)
    # The question's direction stands next to its day before the answer does.
    thinking = f"{'After' if _ORDER[rule][1] > 0 else 'Before'} {slots[_ORDER[rule][2]]}." if rule in _ORDER else None
    question = load_grammar("direct").text(rule, rng, slots)
    question = dress(question, rng, frame=rule not in _TALK)
    turn = Turn(question, answer, thinking, checks=(*checks, NO_CALLS), key=direct_key(rule, question))
    return Item("direct", turn.key, (turn,))


def direct_key(rule: str, question: str) -> str:
    return _asked_key("direct", rule, question)


def _asked_key(category: str, rule: str, question: str) -> str:
    return f"{category}|{rule}|{question.lower().rstrip('.?! ')}"


def _direct_fact(rng: random.Random, rule: str, persona: Persona) -> tuple[dict[str, str], str, tuple[Check, ...]]:
    """Slots of the question, the answer and its checks, for one fact of the rule's table."""
    if rule == "capital":
        return capital(pick(rng, tuple(facts.CAPITALS)))
    if rule == "capital_of":
        country = pick(rng, tuple(facts.CAPITALS))
        city = facts.CAPITALS[country]
        return {"x": city}, f"{city} is the capital of {country}.", contains(country)
    if rule == "opposite":
        pair = pick(rng, facts.OPPOSITES)
        return opposite(*(pair if rng.random() < 0.5 else pair[::-1]), quote=rng.random() < 0.15)
    if rule in _ORDER:
        names, step, slot = _ORDER[rule]
        place = between(rng, 0, len(names) - 1)
        value = names[(place + step) % len(names)]
        return {slot: names[place]}, f"It is {value}.", ({"kind": "exactly_one_of", "value": value, "of": list(names)},)
    if rule == "count":
        return count(pick(rng, facts.COUNTS))
    if rule == "colour":
        return colour(pick(rng, tuple(facts.COLOURS)))
    replies, holds = _TALK[rule]
    return {"name": persona.name}, pick(rng, replies), ({"kind": "answer_contains", "any": list(holds)},)


def capital(country: str) -> tuple[dict[str, str], str, tuple[Check, ...]]:
    city = facts.CAPITALS[country]
    shown = f"the {country}" if country == "Netherlands" else country
    return {"c": shown}, f"The capital of {shown} is {city}.", contains(city)


def opposite(word: str, other: str, quote: bool = False) -> tuple[dict[str, str], str, tuple[Check, ...]]:
    return {"x": f'"{word}"' if quote else word}, f"The opposite of {word} is {other}.", contains(other)


def count(fact: facts.Count) -> tuple[dict[str, str], str, tuple[Check, ...]]:
    whole = f"{fact.whole[0].upper()}{fact.whole[1:]}"
    answer = f"{whole} has {fact.number} {fact.part}."
    return {"part": fact.part, "whole": fact.whole}, answer, ({"kind": "answer_number", "value": fact.number},)


def colour(thing: str) -> tuple[dict[str, str], str, tuple[Check, ...]]:
    return {"x": thing}, f"{thing[0].upper()}{thing[1:]} is {facts.COLOURS[thing]}.", contains(facts.COLOURS[thing])


def contains(text: str) -> tuple[Check, ...]:
    return ({"kind": "answer_contains", "any": [text]},)
