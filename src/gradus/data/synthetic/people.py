"""People for questions and stories, with the pronouns and verb forms that go with them."""

from __future__ import annotations

import random

from gradus.data.synthetic.grammar import load_grammar
from gradus.data.synthetic.item import pick

_SHE = {"he": "she", "him": "her", "his": "her", "himself": "herself"}
_HE = {"he": "he", "him": "him", "his": "his", "himself": "himself"}
_THEY = {"he": "they", "him": "them", "his": "their", "himself": "themselves"}
_THIRD = {"s": "s", "es": "es", "is": "is", "was": "was", "has": "has", "does": "does", "y3": "ies"}
_PLURAL = {"s": "", "es": "", "is": "are", "was": "were", "has": "have", "does": "do", "y3": "y"}
_FIRST = {
    **_PLURAL,
    "is": "am",
    "was": "was",
    "S": "I",
    "he": "I",
    "him": "me",
    "his": "my",
    "himself": "myself",
}
_YOU = {**_PLURAL, "S": "you", "he": "you", "him": "you", "his": "your", "himself": "yourself"}
_WE = {**_PLURAL, "S": "we", "he": "we", "him": "us", "his": "our", "himself": "ourselves"}


def name(rng: random.Random) -> str:
    """A first name."""
    return load_grammar("people").text("girl" if rng.random() < 0.5 else "boy", rng)


def subject(rng: random.Random, first_person: float = 0.2) -> dict[str, str]:
    """Slots for one person: {S}, pronouns {he} {him} {his}, and verb endings {s} {es} {is} {was} {has} {does}."""
    draw = rng.random()
    if draw < first_person:
        return dict(_FIRST)
    grammar = load_grammar("people")
    draw = rng.random()
    if draw < 0.07:
        return dict(_YOU)
    if draw < 0.11:
        return dict(_WE)
    if draw < 0.15:
        return {**_THEY, **_PLURAL, "S": grammar.text("they", rng)}
    if draw < 0.40:
        return {**_SHE, **_THIRD, "S": grammar.text("girl", rng)}
    if draw < 0.72:
        return {**_HE, **_THIRD, "S": grammar.text("boy", rng)}
    if draw < 0.84:
        return {**_SHE, **_THIRD, "S": grammar.text("she", rng)}
    if draw < 0.96:
        return {**_HE, **_THIRD, "S": grammar.text("he", rng)}
    pronouns = pick(rng, (_SHE, _HE))
    return {**pronouns, **_THIRD, "S": grammar.text("they_job", rng)}


def other_person(rng: random.Random, of: str = "") -> str:
    """Someone else in the same story: a name or a relative. of: whose relative it may be, "his" or "Anna's"."""
    draw = rng.random()
    if of and draw < 0.3:
        return f"{of} {load_grammar('people').text('relative', rng)}"
    if draw < 0.7:
        return name(rng)
    return load_grammar("people").text("she" if draw < 0.85 else "he", rng)
