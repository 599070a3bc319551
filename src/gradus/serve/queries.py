"""A user's turn as a query that stands for itself: names in place of pronouns, dates in place of "today"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta

from gradus.conversation.messages import Message
from gradus.serve import classifier_rules as rules
from gradus.serve.entities import names_in, person_before, place_before, thing_before

_MOST_CHARACTERS = 300
_PRONOUN = re.compile(
    r"\b(he|she|him|her|his|hers|it|its|they|them|their|theirs|there|this|that)\b('s)?", re.IGNORECASE
)
_PERSONS = {"he", "she", "him", "her", "his", "hers"}
_OWNING = {"his", "its", "their", "theirs", "hers"}
_TRAVELS = re.compile(r"\b(?:flights?|trains?|way|get|go|travel)\b", re.IGNORECASE)
# Not by strftime, whose names depend on the machine's language.
_MONTHS = re.findall(r"\S+", "January February March April May June July August September October November December")


def written_query(asked: str, before: Sequence[Message], today: date) -> str:
    """What to search for, from what is asked and the conversation before it."""
    return tidied(with_dates(with_names(asked, before), today))


def tidied(query: str) -> str:
    """Without politeness and marks at the end, and of bounded length."""
    query = re.sub(r"[\s,]+(?:please|thanks|thank you)\W*$", "", query, flags=re.IGNORECASE)
    return " ".join(query.strip(" ?!.,:;").split())[:_MOST_CHARACTERS]


def with_names(asked: str, before: Sequence[Message]) -> str:
    """Names in place of pronouns, as far as the sentence itself or the conversation has them."""
    empty = [found.span() for found in rules.EMPTY_IT.finditer(asked)]

    def named(found: re.Match[str]) -> str:
        word = found[1].lower()
        if any(begin <= found.start() < end for begin, end in empty):
            return found[0]
        own = names_in(asked[: found.start()])
        name = _meant(word, found, [*before, Message("user", own[-1].text)] if own else before)
        if name is None:
            return found[0]
        owns = word in _OWNING or (word == "her" and asked[found.end() :].strip(" ?"))
        return f"{name}'" + ("" if name.endswith("s") else "s") if owns else name + (found[2] or "")

    return _PRONOUN.sub(named, asked)


def _meant(word: str, found: re.Match[str], before: Sequence[Message]) -> str | None:
    """Whom or what a pronoun means."""
    if word in {"this", "that"}:  # elsewhere than at the end they begin a clause, or point at what follows
        return None if found.string[found.end() :].strip(" ?.!") else thing_before(before)
    if word == "there":
        place = place_before(before)
        return place and f"{'to' if _TRAVELS.search(found.string[: found.start()]) else 'in'} {place}"
    return person_before(before) if word in _PERSONS else thing_before(before)


def with_dates(query: str, today: date) -> str:
    """Days, months and years in place of words that count from today; where none does, the month after "latest"."""

    def written(found: re.Match[str]) -> str:
        word = " ".join(found[1].lower().split()).removesuffix("'s")
        if word in {"right now", "at the moment", "at present", "currently", "these days"}:
            return "now"
        step = {"this": 0, "next": 1, "last": -1}.get(word.split()[0], 0)
        if word.endswith("year"):
            return str(today.year + step)
        if word.endswith("month"):
            months = today.year * 12 + today.month - 1 + step
            return _month(date(months // 12, months % 12 + 1, 1))
        if word.endswith(("week", "weekend")):
            return f"{found[1]} {_month(today + timedelta(days=7 * step))}"
        day = today + timedelta(days={"tomorrow": 1, "yesterday": -1, "last night": -1}.get(word, 0))
        return f"{day.day} {_month(day)}"

    query = rules.DATES.sub(written, query)
    if rules.UNDATED.search(query) and not re.search(r"\b(?:19|20)\d\d\b", query):
        return f"{query.rstrip(' ?!.')} {_month(today)}"
    return query


def _month(day: date) -> str:
    return f"{_MONTHS[day.month - 1]} {day.year}"
