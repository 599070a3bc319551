"""spelling and letter_count: taking a word apart into letters, and counting one letter with a running count.

The count stands right behind each letter that matches: strawberry for r is s-t-r1-a-w-b-e-r2-r3-y.
"""

from __future__ import annotations

import random

from gradus.data.synthetic.calendars import NO_CALLS, THINK_CLOSED
from gradus.data.synthetic.grammar import load_grammar
from gradus.data.synthetic.item import Check, Item, Persona, Turn, between, pick
from gradus.data.synthetic.surface import dress
from gradus.data.synthetic.words import random_word


def spelled(word: str) -> str:
    """The letters of a word joined by dashes: c-a-t."""
    return "-".join(word)


def counted(word: str, letter: str) -> str:
    """The spelling with a running count behind each `letter`: l-e1-t-t-e2-r."""
    parts = []
    count = 0
    for each in word:
        if each == letter:
            count += 1
            parts.append(f"{each}{count}")
        else:
            parts.append(each)
    return "-".join(parts)


def spelling_check(word: str) -> tuple[Check, ...]:
    return ({"kind": "answer_regex", "pattern": rf"(?<![a-z]-)\b{spelled(word)}\b(?!-[a-z])"}, NO_CALLS)


def count_check(count: int) -> tuple[Check, ...]:
    return ({"kind": "answer_number", "value": count}, THINK_CLOSED, NO_CALLS)


def count_answer(letter: str, count: int) -> str:
    return f"The letter {letter} appears {count} time{'' if count == 1 else 's'}."


def shown_word(rng: random.Random, word: str) -> str:
    """A word as a user may write it in a question: plain, quoted, capitalised."""
    draw = rng.random()
    if draw < 0.55:
        return word
    if draw < 0.70:
        return f'"{word}"'
    if draw < 0.80:
        return f"'{word}'"
    if draw < 0.90:
        return word.capitalize()
    if draw < 0.99:
        return f'"{word.capitalize()}"'
    return word.upper()


def spelling(rng: random.Random, persona: Persona) -> Item:
    word = random_word(rng)
    return Item("spelling", spelling_key(word), (spelling_turn(rng, word),))


def letter_count(rng: random.Random, persona: Persona) -> Item:
    word = random_word(rng)
    letter = asked_letter(rng, word)
    return Item("letter_count", letter_count_key(word, letter), (counting_turn(rng, word, letter),))


def spelling_key(word: str) -> str:
    return f"spelling|{word}"


def letter_count_key(word: str, letter: str) -> str:
    return f"letter_count|{word}|{letter}"


def spelling_turn(rng: random.Random, word: str) -> Turn:
    question = load_grammar("letters").text("spell", rng, {"w": shown_word(rng, word)})
    return Turn(dress(question, rng), spelled(word), checks=spelling_check(word), key=spelling_key(word))


def counting_turn(rng: random.Random, word: str, letter: str | None = None) -> Turn:
    letter = letter or asked_letter(rng, word)
    question = load_grammar("letters").text("count", rng, {"w": shown_word(rng, word), **letter_slots(rng, letter)})
    return letter_turn(dress(question, rng), word, letter)


def letter_turn(question: str, word: str, letter: str) -> Turn:
    count = word.count(letter)
    thinking = f"{letter} in {word}: {counted(word, letter)}. Count: {count}."
    checks, key = count_check(count), letter_count_key(word, letter)
    return Turn(question, count_answer(letter, count), thinking, checks=checks, key=key)


def asked_letter(rng: random.Random, word: str) -> str:
    """Letters that occur several times are asked for most; one in ten is not in the word."""
    draw = rng.random()
    if draw < 0.1:
        return "abcdefghijklmnopqrstuvwxyz"[between(rng, 0, 25)]
    if draw < 0.55:
        repeated = [letter for letter in word if word.count(letter) > 1]
        if repeated:
            return pick(rng, repeated)
    return pick(rng, word)


def letter_slots(rng: random.Random, letter: str) -> dict[str, str]:
    upper = letter.upper()
    shown = pick(rng, (letter, letter, letter, f'"{letter}"', f"'{letter}'", upper, upper, f'"{upper}"'))
    plural = pick(
        rng,
        (
            f"{letter}'s",
            f"{letter}'s",
            f"{letter}s",
            f"{upper}s",
            f"{upper}'s",
            f"letter {letter}'s",
            f"letters {letter}",
            f'"{letter}"s',
            f"'{letter}'s",
        ),
    )
    return {"l": shown, "ls": plural}
