"""Real text cut into documents, with planted near-duplicates whose Jaccard similarity is measured, not assumed.

A copy is made by one kind of edit of one strength: single words replaced, dropped or inserted; a passage replaced by
one from elsewhere; the text cut off or continued; sentences in another order. Similarity is that of the sets of
word 5-grams (lower case, letters and digits), by Python's sets and a regular expression.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from real_text import read_texts

WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Planted:
    """Rows of an original and its edited copy, and how similar they are."""

    original: int
    copy: int
    jaccard: float
    edit: str


def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return set(zip(*(words[i:] for i in range(n)), strict=False))


def jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / max(1, len(one | other))


def documents(folders: list[Path], rng: random.Random) -> Iterator[str]:
    """Consecutive passages of 60 to 1,200 words, as web pages are short and long."""
    for text in read_texts(folders):
        places = [found.start() for found in re.finditer(r"\S+", text)]
        start = 0
        while start < len(places):
            size = int(60 * 20 ** rng.random())
            stop = start + size
            passage = text[places[start] : places[stop] if stop < len(places) else len(text)].strip()
            # English, as after a language filter: of the scripts and translations among the documentation little stays.
            foreign = sum(1 for letter in passage if letter > "\u024f" and letter.isalpha())
            if len(WORD.findall(passage)) >= 30 and foreign < 0.02 * len(passage):
                yield passage
            start = stop


def planted_corpus(folders: list[Path], size: int, copies: float, seed: int) -> tuple[list[str], list[Planted]]:
    """`size` documents, of which the share `copies` are edited copies of others, in random order."""
    rng = random.Random(seed)
    pool = list(documents(folders, rng))
    rng.shuffle(pool)
    num_copies = int(size * copies)
    if len(pool) < size:
        raise SystemExit(f"only {len(pool)} documents in {', '.join(map(str, folders))}; name more text by --text")
    originals, spare = pool[: size - num_copies], pool[size - num_copies :]
    made: list[tuple[int, str, float, str]] = []
    for number in rng.sample(range(len(originals)), num_copies):
        kind = rng.choice(list(EDITS))
        copy = EDITS[kind](originals[number], rng.random(), rng.choice(spare), rng)
        made.append((number, copy, jaccard(shingles(originals[number]), shingles(copy)), kind))
    order = list(range(size))
    rng.shuffle(order)  # order[i]: the row of document i
    texts = [""] * size
    for number, text in enumerate([*originals, *(copy for _, copy, _, _ in made)]):
        texts[order[number]] = text
    planted = [
        Planted(order[number], order[len(originals) + i], similarity, kind)
        for i, (number, _, similarity, kind) in enumerate(made)
    ]
    return texts, planted


def edit_words(text: str, strength: float, other: str, rng: random.Random) -> str:
    words, others = text.split(" "), other.split(" ")
    for _ in range(1 + int(0.12 * strength * len(words))):
        place = rng.randrange(len(words))
        kind = rng.randrange(3)
        words[place : place + (kind != 2)] = [] if kind == 0 else [rng.choice(others)]
        words = words or ["nothing"]
    return " ".join(words)


def edit_passage(text: str, strength: float, other: str, rng: random.Random) -> str:
    words, others = text.split(" "), other.split(" ")
    size = 1 + int(0.4 * strength * len(words))
    place = rng.randrange(max(1, len(words) - size))
    words[place : place + size] = others[:size]
    return " ".join(words)


def edit_end(text: str, strength: float, other: str, rng: random.Random) -> str:
    words, others = text.split(" "), other.split(" ")
    size = 1 + int(0.6 * strength * len(words))
    return " ".join(words[:-size] or words if rng.random() < 0.5 else words + others[:size])


def edit_order(text: str, strength: float, other: str, rng: random.Random) -> str:
    sentences = re.split(r"(?<=[.!?;:,])\s+", text)
    for _ in range(1 + int(0.25 * strength * len(sentences))):
        one, two = rng.randrange(len(sentences)), rng.randrange(len(sentences))
        sentences[one], sentences[two] = sentences[two], sentences[one]
    # Another case and spacing as well.
    return "\n".join(sentences).upper() if rng.random() < 0.3 else "  ".join(sentences)


EDITS = {"words": edit_words, "passage": edit_passage, "end": edit_end, "order": edit_order}
