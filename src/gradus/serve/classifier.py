"""Decides for a user's last turn whether to search, to calculate, or neither: rules, with the conversation as context.

For models that were not trained to decide for themselves, and for users who ask for a search. Searched for is what a
model cannot know: what changes (weather, prices, scores, offices, versions, opening hours, ages) and what the user says
to look up. Not searched for: settled knowledge, the assistant itself, and text to be written, mended or translated.
A query has its pronouns and its dates written out. Works on English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from gradus.conversation.messages import Message
from gradus.serve import classifier_rules as rules
from gradus.serve.entities import names_in, person_before
from gradus.serve.queries import tidied, with_dates, with_names, written_query
from gradus.serve.sums import expression_in, last_number

Action = Literal["search", "calculator", "none"]
_MOST_CHARACTERS = 1500  # of a turn that are looked at
_MOST_TURNS = 6  # of the user, for the context
_MOST_WORDS = 30  # of a question; what is longer is a task with its material
_MOST_NAME_WORDS = 4  # of what a follow-up names


@dataclass(frozen=True, slots=True)
class Decision:
    """action: what to do; query: what to search for, or the expression to calculate; reason: by which rule."""

    action: Action
    query: str = ""
    reason: str = ""


def classify(messages: Sequence[Message], today: date) -> Decision:
    """What the last user turn of a conversation needs. messages: up to and with that turn."""
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    if not users:
        return Decision("none", reason="no_turn")
    before, text = _looked_at(messages[users[-_MOST_TURNS:][0] : users[-1]]), _plain(messages[users[-1]].content)
    spoken = [message.content for message in before if message.role == "assistant" and message.content]
    expression = expression_in(text, last_number(spoken[-1]) if spoken else None)
    if expression is not None:
        return Decision("calculator", expression, "sum")
    return _searching(text, before, today)


def search_query(messages: Sequence[Message], today: date) -> str:
    """What to search for where the user forces a search on the last turn, whatever it is; '' where it is empty."""
    users = [place for place, message in enumerate(messages) if message.role == "user"][-_MOST_TURNS:]
    if not users:
        return ""
    before, text = _looked_at(messages[users[0] : users[-1]]), _plain(messages[users[-1]].content)
    found = _searching(text, before, today)
    return found.query or written_query(_asked(text), before, today) or text[:_MOST_CHARACTERS]


def _searching(text: str, before: Sequence[Message], today: date) -> Decision:
    """Search or none."""
    asked = _asked(text)
    command = rules.COMMAND.match(asked) or rules.LOOK_UP.match(asked)
    if command and command["what"].strip(" ?.!"):
        if rules.HOW_TO.match(asked) or rules.OF_ASSISTANT.search(command["what"]):
            return Decision("none", reason="about_searching")
        return Decision("search", written_query(command["what"], before, today), "asked_for")
    if rules.ABOUT_SEARCHING.search(asked) or rules.OF_ASSISTANT.search(asked):
        return Decision("none", reason="identity")
    if _needs_context(asked) and _identity_before(before):
        return Decision("none", reason="identity")
    follow = _follow_up(text, before, today)
    if follow is not None:
        return follow
    if _is_task(asked):
        return Decision("none", reason="task")
    if not _is_request(asked):
        return Decision("none", reason="statement")
    rule = _topic(asked, today)
    if rule is None:
        return Decision("none", reason="settled")
    if _PERSON.search(asked) and not names_in(asked) and person_before(before) is None:
        return Decision("none", reason="nobody_named")
    return Decision("search", written_query(asked, before, today), rule)


# The turn without what stands around it

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")
_CLAUSE_BEFORE = re.compile(
    r"^i(?:'m| am|'ve| have|'ll)? [^,?]{3,60}, (?=(?:what|who|when|where|how|is|will|do)\b)", re.IGNORECASE
)


def _looked_at(before: Sequence[Message]) -> list[Message]:
    """The context, the user's turns as far as they are looked at.

    Patterns go back and forth over white space and long text, and nobody else in the process computes meanwhile.
    """
    return [replace(one, content=_plain(one.content)) if one.role == "user" else one for one in before]


def _plain(text: str) -> str:
    text = text[:_MOST_CHARACTERS].replace("’", "'").replace("“", '"').replace("”", '"')
    return " ".join(text.split())


def _asked(text: str) -> str:
    """The last sentence that asks, without greeting and politeness; the whole where one is a task."""
    pieces = [_bare(piece) for piece in _SENTENCE.split(text) if re.search(r"\w", piece)]
    asking = [piece for piece in pieces if piece.endswith("?") or rules.ASKING.match(piece)]
    if len(pieces) > 1 and asking and not any(map(rules.WORK_ON_TEXT.search, pieces)):
        return asking[-1]
    return _bare(text)


def _bare(text: str) -> str:
    """A sentence without greeting and politeness, and without a clause in front of its question."""
    found = rules.GREETING.match(text)
    rest = text[found.end() :] if found else text
    rest = rules.WRAPPING.sub("", rest) or rest
    return _CLAUSE_BEFORE.sub("", rest) or text


# What it asks for

_PERSON = re.compile(r"\b(?:he|she|him|her|his|hers)\b", re.IGNORECASE)
_FRESH = re.compile(r"\bnow\W*$|\bis now\b|^current\b|\bthe current\b|\bstill\b", re.IGNORECASE)
_YEAR = re.compile(r"\b(1\d\d\d|20\d\d)\b")
# Of these even what is asked like a definition changes ("what is the weather").
_ALWAYS_FRESH = frozenset({"weather", "sports", "releases"})


def _is_task(asked: str) -> bool:
    """Whether something is to be made, changed or done."""
    how_to = rules.HOW_TO.match(asked) and not rules.NOW.search(asked)
    return bool(rules.WORK_ON_TEXT.search(asked) or rules.CODE.search(asked) or how_to)


def _is_request(asked: str) -> bool:
    """Whether a sentence asks for something: a question, an order, or a noun alone ("bitcoin price")."""
    if len(asked.split()) > _MOST_WORDS:
        return False
    if asked.endswith("?") or rules.ASKING.match(asked):
        return True
    return not (rules.STATEMENT.match(asked) and rules.VERB.search(asked))


def _topic(asked: str, today: date) -> str | None:
    """The rule by which a question is about what changes; None where it is about settled things."""
    years = [int(year) for year in _YEAR.findall(asked)]
    if rules.NOT_NOW.search(asked) or (years and max(years) < today.year - 1):
        return None
    recent = any(today.year - 1 <= year <= today.year + 2 for year in years)
    fresh = recent or rules.NOW.search(asked) is not None or _FRESH.search(asked) is not None
    rule = next((rule for rule, pattern in rules.TOPICS.items() if pattern.search(asked)), None)
    if rules.KNOWN.search(asked):
        why = asked.lower().startswith("why")
        return rule if rule and (fresh or (rule in _ALWAYS_FRESH and not why)) else None
    if rule is None and ((fresh and rules.ASKING.match(asked)) or (recent and re.match(r"best|top", asked.lower()))):
        return "now"
    return rule


# What it goes on from


def _follow_up(text: str, before: Sequence[Message], today: date) -> Decision | None:
    """After a search, "and in Lima?" is the same with another name. None where the turn stands for itself."""
    found = rules.FOLLOW.match(text)
    places = [place for place, message in enumerate(before) if message.role == "user"]
    if found is None or not places:
        return None
    what = found["what"].strip()
    is_date = rules.DATE_WORDS.match(what) is not None
    if not is_date and (len(what.split()) > _MOST_NAME_WORDS or rules.ASKING.match(what) or _topic(what, today)):
        return None
    earlier, last = before[: places[-1]], _plain(before[places[-1]].content)
    if _searching(last, earlier, today).action != "search":
        return None
    query = with_names(_asked(last), earlier).rstrip(" ?")
    if is_date:
        query = f"{rules.DATES.sub('', query)} {what}"
    else:
        names = names_in(query)
        rest = " ".join(word for word in query.split() if word.lower() not in rules.TOPIC_WORDS)
        old = names[-1].text if names else rest
        query = query.replace(old, what) if old and old in query else f"{query} {what}"
    return Decision("search", tidied(with_dates(query, today)), "follow_up")


def _needs_context(asked: str) -> bool:
    """Whether a turn says "it" or "they" of something that it does not name."""
    rest = rules.EMPTY_IT.sub("", asked)
    found = re.search(r"\b(?:he|she|him|her|his|it|its|they|them|their)\b", rest, re.IGNORECASE)
    return found is not None and not names_in(rest[: found.start()])


def _identity_before(before: Sequence[Message]) -> bool:
    """Whether what "it" or "they" would mean is the assistant itself, or who made it."""
    for message in reversed(before):
        if message.role == "user":
            said = _bare(_plain(message.content))
            if rules.OF_ASSISTANT.search(said):
                return True
            if not _needs_context(said):
                return False
    return False
