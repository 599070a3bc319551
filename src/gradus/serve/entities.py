"""Whom and what a conversation is about, so that "how old is he now?" can be searched for with a name.

No model: capital letters, the shapes of questions, and lists of words that are names of nothing. A question about an
office ("Who is the CEO of Google?") is about the person who is named in its answer, not about the company.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradus.conversation.messages import Message

Kind = Literal["person", "place", "thing"]
_MOST_CHARACTERS = 1000  # of a turn

_WORD = r"(?:[A-Z][\w'’&.-]*[\w]|[A-Z])"
_NAME = re.compile(rf"(?<![\w'’-]){_WORD}(?:(?:\s+(?:of|the|de|da|van|von|der|al|&)){{0,2}}\s+(?:{_WORD}|\d+))*")
_NO_NAMES = frozenset(
    re.findall(
        r"\S+",
        "i i'm i've i'd i'll a an and are as at be but by can could did do does everyone for from give has have "
        "he hello hey hi her his how if in is it it's its let me my no now of oh ok okay on or our please she "
        "should so sorry tell thanks that the their them then there they this to very was we were what what's "
        "when where which who who's whose why will with would yes you your search google look find write "
        "translate explain describe list show monday tuesday wednesday thursday friday saturday sunday january "
        "february march april may june july august september october november december today tomorrow yesterday "
        "english french german spanish nice great sure lovely good well tell correct fix calculate convert",
    )
)
_KIND_NOUN = (
    "telescope|engine|language|band|team|club|company|game|movie|film|book|phone|car|river|war|program|programme|project|"
    "library|framework|app|show|series|festival|mission|rover|bridge|museum|airport|university|bank|browser|console"
)
_VAGUE = frozenset(
    re.findall(
        r"\S+",
        "your something anything nothing him us each some any not going up happening this that these those",
    )
)
# Shapes that name what they are about without capitals.
_SHAPES = tuple(
    re.compile(rf"\b(?:{pattern})\s+(?:the |an? )?(?P<name>[^?.!,;:]+)", re.IGNORECASE)
    for pattern in (
        r"tell me (?:more |something )?about", r"(?:heard|know|learn|read|talk(?:ing)?) (?:of|about)", r"do you know",
        r"who(?:'s| is| was)", r"what(?:'s| is| are| was| were)", r"where(?:'s| is| are)", r"i (?:love|like|enjoy)",
        r"how (?:do|does)", r"what (?:do|does)",
    )
)  # fmt: skip
_TAIL = re.compile(
    r"\s+(?:work|works|function|make|makes|do|does|mean|sell|sells|please|now|today|these days|right now|in|at|on|"
    r"for|from|with|and|or|to|when|that|which|who|is|are|was|were|so|again|like)\b.*$",
    re.IGNORECASE,
)
_ASKS_PERSON = re.compile(
    r"\bwho(?:'s| is| was| are| were)? (?:the |a |an )?(?:current |new |present )?(?:[a-z]+ ){0,3}?[a-z]+ "
    r"(?:of|at|for|in)\b"
    r"|\bwho(?:'s)? (?:runs|leads|owns|founded|invented|wrote|won|made|created|discovered|directed|"
    r"painted|plays|played|became|is running|heads)\b"
    r"|\b(?:ceo|president|prime minister|chancellor|mayor|governor|king|queen|head|director|coach|captain|author) of\b",
    re.IGNORECASE,
)
_ASKS_WHICH = re.compile(
    r"\b(?:which|what) (?:team|club|company|country|city|band|brand|state|party|firm|university)\b", re.IGNORECASE
)
_PLACE_BEFORE = re.compile(
    r"\b(?:in|to|from|near|around|visit(?:ing)?|at|where(?:'s| is)|into|for)\s+(?:the )?$", re.IGNORECASE
)
_ROLE = re.compile(r"\bwho(?:'s| is)\s+(?:the )?(?P<role>[a-z ]+ of [^?.!,]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that was named. kind: as far as can be seen."""

    text: str
    kind: Kind


def names_in(text: str) -> list[Entity]:
    """Names by their capitals, in order; words that only begin a sentence are none."""
    found = []
    text = text[-_MOST_CHARACTERS:]
    for match in _NAME.finditer(text):
        words = match[0].split()
        while words and words[0].lower().rstrip(".") in _NO_NAMES:
            words = words[1:]
        while words and words[-1].lower() in _NO_NAMES:
            words = words[:-1]
        if not words:
            continue
        name = re.sub(r"['’]s?$", "", " ".join(words).rstrip(".,"))
        noun = re.match(rf"\s+({_KIND_NOUN})\b", text[match.end() :])
        if noun:
            found.append(Entity(f"{name} {noun[1]}", "thing"))
            continue
        before = text[: match.end() - len(match[0])] if len(words) == len(match[0].split()) else text[: match.end()]
        place = len(words) == len(match[0].split()) and _PLACE_BEFORE.search(before)
        person = len(words) >= 2 and not re.search(r"\bthe\s+$", before) and not re.search(r"\d|&|\bof\b", name)
        found.append(Entity(name, "place" if place else "person" if person else "thing"))
    return found


def subject_of(text: str) -> Entity | None:
    """What a user's turn is about: a name in it, else what stands where such a turn names its subject."""
    names = names_in(text)
    if names:
        return names[-1]
    for shape in _SHAPES:
        if found := shape.search(text):
            name = _TAIL.sub("", found["name"]).strip()
            words = name.split()
            if 1 <= len(words) <= 4 and words[0].lower() not in _NO_NAMES | _VAGUE:
                person = shape.pattern.find("who") >= 0 and len(words) >= 2
                return Entity(name, "person" if person else "thing")
    return None


def person_before(messages: Sequence[Message]) -> str | None:
    """Whom "he" or "she" means after these messages: the latest person, named by the user or asked for."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if message.role != "user":
            continue
        if _ASKS_PERSON.search(message.content):
            if (asked := _person_asked_for(messages, place)) is not None:
                return asked
            continue
        for name in [*names_in(message.content)[::-1], subject_of(message.content)]:
            if name is not None and name.kind == "person":
                return name.text
    for message in reversed(messages):
        if message.role == "assistant":
            people = [n.text for n in names_in(message.content) if n.kind == "person"]
            if people:
                return people[0]
    for message in reversed(messages):
        if message.role == "user" and not _ASKS_PERSON.search(message.content):
            single = [name.text for name in names_in(message.content) if name.kind == "thing" and " " not in name.text]
            if single:  # one word may be a person's name too
                return single[-1]
    return None


def _person_asked_for(messages: Sequence[Message], place: int) -> str | None:
    """Whom a question like "Who is the CEO of Google?" is about: by the answer's name, else by the office."""
    question = messages[place].content
    answered = [name.text for name in _answer_names(messages, place) if name.kind == "person"]
    fresh = [name for name in answered if name.lower() not in question.lower()]
    if fresh:
        return fresh[0]
    if role := _ROLE.search(question):
        return f"the {role['role'].strip()}"
    return next((name.text for name in names_in(question)[::-1] if name.kind == "person"), None)


def thing_before(messages: Sequence[Message]) -> str | None:
    """What "it" or "they" means after these messages."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if message.role != "user":
            continue
        if _ASKS_WHICH.search(message.content):
            named = _answer_names(messages, place)
            if named:
                return named[0].text
        subject = subject_of(message.content)
        if subject is not None:
            return subject.text
    for message in reversed(messages):
        if message.role == "assistant":
            names = names_in(message.content)
            if names:
                return names[0].text
    return None


def place_before(messages: Sequence[Message]) -> str | None:
    """Where "there" is after these messages."""
    for message in reversed(messages):
        if message.role != "user":
            continue
        names = names_in(message.content)
        places = [name for name in names if name.kind == "place"] or names
        if places:
            return places[-1].text
    for message in reversed(messages):
        if message.role == "assistant":
            names = [name for name in names_in(message.content) if name.kind == "place"]
            if names:
                return names[0].text
    return None


def _answer_names(messages: Sequence[Message], place: int) -> list[Entity]:
    """Names in what the assistant said to a user's turn."""
    found: list[Entity] = []
    for message in messages[place + 1 :]:
        if message.role == "user":
            break
        if message.role == "assistant":
            found += names_in(message.content)
    return found
