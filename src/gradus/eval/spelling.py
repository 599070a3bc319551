"""Spelling a word and counting a letter in it: questions made here, which no template trains on.

Words, and letters to count in them, are those that the split of data/synthetic keeps for probes; items are drawn once
for all by a fixed seed, so that they are the same for every model.
"""

from __future__ import annotations

import random
import re
from string import ascii_lowercase

from gradus.data.synthetic.item import side_of
from gradus.data.synthetic.letters import letter_count_key, spelling_key
from gradus.data.synthetic.words import spelling_words

ITEMS = 256
_SEED = 1337


def spelling_items() -> list[tuple[str, str, str]]:
    """(id, question, word) of words to spell."""
    words = [word for word in spelling_words() if side_of(spelling_key(word)) == "probe"]
    drawn = random.Random(_SEED).sample(words, ITEMS)
    return [
        (word, f"Spell the word {word}, one letter after the other, with a dash between them.", word) for word in drawn
    ]


def count_items() -> list[tuple[str, str, str]]:
    """(id, question, count) of letters to count: most stand in the word, and more than once where any does."""
    draw = random.Random(_SEED)
    found: dict[str, tuple[str, str, str]] = {}
    while len(found) < ITEMS:
        word = draw.choice(spelling_words())
        repeated = [letter for letter in sorted(set(word)) if word.count(letter) > 1]
        letter = draw.choice(repeated or sorted(set(word))) if draw.random() < 0.8 else draw.choice(ascii_lowercase)
        if side_of(letter_count_key(word, letter)) == "probe":
            key = f"{word}:{letter}"
            question = f"How many times does the letter {letter} stand in the word {word}?"
            found[key] = key, question, str(word.count(letter))
    return list(found.values())


def is_spelled(answer: str, word: str) -> bool:
    """Whether a word stands in an answer letter by letter, whatever is between them, and no other letter with them."""
    first, *rest = map(re.escape, word)
    spelled = rf"(?<!\w){first}(?P<between>\W{{1,3}}){'(?P=between)'.join(rest)}(?!\w)(?!(?P=between)\w(?!\w))"
    for found in re.finditer(spelled, answer, re.IGNORECASE):
        before = answer[: found.start()]
        if not re.search(rf"(?<!\w)\w{re.escape(found['between'])}\Z", before):
            return True
    return False
