"""Pretraining text from templates, so that a first run needs no download: `documents("primer", ...)`.

Small stories, facts, spelling lists, calendars walked day by day, and questions with their worked answers in
plain text. Control tokens never occur. Problems of the probe side of the conversations are left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from gradus.core.errors import DataError, did_you_mean
from gradus.data.document import Document, document_id
from gradus.data.synthetic import facts, numerals
from gradus.data.synthetic.arithmetic import decimal, whole_number
from gradus.data.synthetic.calendars import Steps, date_key, date_steps, weekday_key, weekday_steps
from gradus.data.synthetic.conversations import GENERATORS
from gradus.data.synthetic.grammar import TrainingDraws, load_grammar
from gradus.data.synthetic.item import Item, Persona, Turn, between, pick, side_of
from gradus.data.synthetic.letters import counted, letter_count_key, shown_word, spelled, spelling_key
from gradus.data.synthetic.people import name as first_name
from gradus.data.synthetic.percent import money_cents
from gradus.data.synthetic.words import plural, random_word
from gradus.tools.calculator import calculate

_NOBODY = Persona("the assistant", "its makers")
_WORKED = tuple(name for name in GENERATORS if name not in ("identity", "follow_up"))
_STYLES = (
    ("Question: ", "\nAnswer: "),
    ("Q: ", "\nA: "),
    ("", "\n"),
    ("- ", "\n  "),
    ("Anna: ", "\nTom: "),
    ("Teacher: ", "\nPupil: "),
)
"""What stands before a question and between it and its answer."""
_ECHOES = (
    ("Said: ", "\nAgain: "),
    ("", ". The same: "),
    ("Anna: ", "\nTom: "),
    ("Has: ", ". Has: "),
    ("", ": "),
    ("My list is ", ". Your list is "),
)
"""What stands before what is said, and between that and what is said again."""


def documents(name: str, count: int, seed: int) -> Iterator[Document]:
    """`count` documents of the generator `name`, the same for equal seeds. DataError for an unknown name."""
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise DataError(f'synthetic source: unknown name "{name}"{did_you_mean(name, SOURCES)}; known are {known}')
    rng = TrainingDraws(f"{seed} {name} documents")
    kinds = SOURCES[name]
    for _ in range(count):
        text = pick(rng, kinds)(rng)
        yield Document(text, document_id(text), f"synthetic/{name}")


def tale(rng: random.Random) -> str:
    """One to three short stories about the same people."""
    grammar = load_grammar("primer")
    people = load_grammar("people")
    she = rng.random() < 0.5
    slots = {
        "A": people.text("girl" if she else "boy", rng),
        "B": first_name(rng),
        "n": str(between(rng, 2, 40)),
        "he": "she" if she else "he",
        "he_cap": "She" if she else "He",
        "him": "her" if she else "him",
        "his": "her" if she else "his",
    }
    return "\n".join(grammar.text("tale", rng, slots) for _ in range(between(rng, 1, 3)))


def notes(rng: random.Random) -> str:
    """Rules of thumb in words, with a short story behind them."""
    grammar = load_grammar("primer")
    rules = dict.fromkeys(grammar.text("note", rng) for _ in range(between(rng, 2, 6)))
    return f"{' '.join(rules)}\n{tale(rng)}"


def worked(rng: random.Random) -> str:
    """Questions with their worked answers as plain text, of the training side."""
    opening, between_turns = pick(rng, _STYLES)
    lines = []
    for _ in range(between(rng, 2, 6)):
        lines += [f"{opening}{turn.user}{between_turns}{_reply(turn)}" for turn in _training_item(rng).turns]
    return "\n".join(lines)


def _training_item(rng: random.Random) -> Item:
    while True:
        item = GENERATORS[pick(rng, _WORKED)](rng, _NOBODY)
        if side_of(item.key) == "train":
            return item


def _reply(turn: Turn) -> str:
    result = ""
    parts = [turn.thinking] if turn.thinking else []
    for expression in turn.expressions:
        result = calculate(expression)
        parts.append(f"{expression} = {result}.")
    return " ".join([*parts, turn.answer.replace("{result}", result)])


def knowledge(rng: random.Random) -> str:
    """Sentences from the closed tables."""
    lines = []
    for _ in range(between(rng, 4, 12)):
        draw = rng.random()
        if draw < 0.35:
            country = pick(rng, tuple(facts.CAPITALS))
            city = facts.CAPITALS[country]
            forward = draw < 0.25
            lines.append(f"The capital of {country} is {city}." if forward else f"{city} is the capital of {country}.")
        elif draw < 0.7:
            one, two = pick(rng, facts.OPPOSITES)[:: 1 if rng.random() < 0.5 else -1]
            lines.append(f"The opposite of {one} is {two}.")
        elif draw < 0.85:
            fact = pick(rng, facts.COUNTS)
            lines.append(f"{fact.whole[0].upper()}{fact.whole[1:]} has {fact.number} {fact.part}.")
        else:
            thing = pick(rng, tuple(facts.COLOURS))
            lines.append(f"{thing[0].upper()}{thing[1:]} is {facts.COLOURS[thing]}.")
    return (" " if rng.random() < 0.5 else "\n").join(lines)


def spellings(rng: random.Random) -> str:
    """A list of words with their letters; words of the probe side are left out."""
    lines = []
    for _ in range(between(rng, 8, 30)):
        word = random_word(rng)
        if side_of(spelling_key(word)) == "train":
            lines.append(f"{word}: {spelled(word)}")
    return "\n".join(lines)


def echoes(rng: random.Random) -> str:
    """Words, names and numbers, said and then said again: practice in copying, which every answer rests on."""
    opening, between_parts = pick(rng, _ECHOES)
    lines = []
    for _ in range(between(rng, 3, 8)):
        said, again = zip(*(_said(rng) for _ in range(between(rng, 2, 6))), strict=True)
        lines.append(f"{opening}{', '.join(said)}{between_parts}{', '.join(again)}")
    return "\n".join(lines)


def _said(rng: random.Random) -> tuple[str, str]:
    """Something as one says it, and as another says it again: words in small letters, amounts in plain digits."""
    draw = rng.random()
    if draw < 0.4:
        word = random_word(rng)
        return shown_word(rng, word), word
    if draw < 0.55:
        name = first_name(rng)
        return (name.lower() if rng.random() < 0.2 else name), name
    if draw < 0.7:
        thing = load_grammar("nouns").text(pick(rng, ("object", "food", "goods", "container")), rng)
        number = between(rng, 2, 60)
        return (f"{numerals.integer(rng, number)} {plural(thing)}", f"{number} {plural(thing)}")
    if draw < 0.85:
        number = whole_number(rng) if rng.random() < 0.7 else between(rng, 10_000, 999_999)
        return numerals.integer(rng, number), str(number)
    if draw < 0.92:
        number_text = decimal(rng)
        return number_text, number_text
    cents = money_cents(rng)
    return numerals.currency(rng).write(cents, rng), numerals.plain_cents(cents)


def letter_counts(rng: random.Random) -> str:
    """Words with one letter counted along the spelling."""
    lines = []
    for _ in range(between(rng, 5, 15)):
        word = random_word(rng)
        letter = pick(rng, word)
        if side_of(spelling_key(word)) == side_of(letter_count_key(word, letter)) == "train":
            lines.append(f"{letter} in {word}: {counted(word, letter)}. Count: {word.count(letter)}.")
    return "\n".join(lines)


def counting(rng: random.Random) -> str:
    """Numbers in order, in digits or words, now and then in larger steps."""
    start, step = between(rng, 0, 900), pick(rng, (1, 1, 1, 2, 5, 7, 10))
    draw = rng.random()
    if draw < 0.1:
        low = between(rng, 0, 80)
        return "\n".join(f"{n} is {numerals.number_word(n)}." for n in range(low, low + between(rng, 5, 20)))
    if draw < 0.15:
        return ", ".join(f"{numerals.ordinal(n)}" for n in range(start % 25 + 1, start % 25 + between(rng, 5, 12)))
    return ", ".join(str(n) for n in range(start, start + step * between(rng, 8, 30), step))


def calendar(rng: random.Random) -> str:
    """Weekdays and dates reached by stepping, of the training side, and plain lists of days and months."""
    lines = []
    for _ in range(between(rng, 3, 8)):
        draw = rng.random()
        sign = 1 if rng.random() < 0.55 else -1
        word = "after" if sign > 0 else "before"
        if draw < 0.45:
            day, days = pick(rng, facts.DAYS), between(rng, 1, 60)
            if side_of(weekday_key(day, sign * days)) == "train":
                steps, reached = weekday_steps(day, sign * days)
                lines.append(f"{days} days {word} {day}: {_worked(steps)} {reached}.")
        elif draw < 0.9:
            month = pick(rng, facts.MONTHS)
            number, days = between(rng, 1, facts.MONTH_LENGTHS[month]), between(rng, 1, 30)
            if side_of(date_key(month, number, sign * days)) == "train":
                steps, reached, place = date_steps(month, number, sign * days)
                lines.append(f"{days} days {word} {month} {number}: {_worked(steps)} {reached} {place}.")
        else:
            names, start = pick(rng, (facts.DAYS, facts.MONTHS)), between(rng, 0, 11)
            count = between(rng, 4, 9)
            lines.append(", ".join(names[(start + sign * step) % len(names)] for step in range(count)) + ".")
    return "\n".join(lines)


def _worked(steps: Steps) -> str:
    return " ".join([steps.thinking, *(f"{e} = {calculate(e)}." for e in steps.expressions)])


_Kind = Callable[[random.Random], str]
SOURCES: dict[str, tuple[_Kind, ...]] = {
    "primer": (
        *(tale,) * 3,
        notes,
        *(worked,) * 10,
        *(knowledge,) * 4,
        *(spellings,) * 8,
        *(echoes,) * 6,
        *(letter_counts,) * 4,
        counting,
        calendar,
    )
}
"""Generators by name, each kind listed as often as it should come."""
