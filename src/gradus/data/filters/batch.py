"""Some texts together with their words and lines, which are found once for all filters that look at them.

What a word is decides what a filter keeps, so it is a setting of the filters that count words, and part of
their fingerprint: "whitespace" is what `str.split` gives; with "symbols_apart", besides, every ASCII character that
is no letter, digit or underscore is a word by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gradus.data.filters.punctuation import PUNCTUATION
from gradus.data.filters.segments import Encoded, Segments, find_lines, find_segments

WordDefinition = Literal["whitespace", "symbols_apart"]

_BYTES = [chr(code) for code in range(128)]
_IS_SPACE = np.array([*(c.isspace() for c in _BYTES), *[False] * 128])
_IS_SYMBOL = np.array([*(not (c.isalnum() or c == "_" or c.isspace()) for c in _BYTES), *[False] * 128])
# What kinds of bytes a word has, as bits.
_LETTER, _DIGIT, _WIDE = 1, 2, 4
_KINDS = np.array([*(_LETTER * c.isalpha() + _DIGIT * c.isdigit() for c in _BYTES), *[_WIDE] * 128], dtype=np.uint8)


class Words:
    """The words of D texts (S in all), and what filters ask about each."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    @cached_property
    def has_letter(self) -> NDArray[np.bool_]:
        """Whether a word has a letter, as str.isalpha knows them, (S,)."""
        answers: NDArray[np.bool_] = (self._kinds & _LETTER) != 0
        open_ones = np.flatnonzero(~answers & (self._kinds >= _WIDE))
        strings = self.segments.strings(open_ones)
        answers[open_ones] = [word[0].isalpha() or any(map(str.isalpha, word)) for word in strings]
        return answers

    @cached_property
    def is_punctuation(self) -> NDArray[np.bool_]:
        """Whether a word is of `PUNCTUATION` only, (S,). In ASCII that is all but letters and digits."""
        answers: NDArray[np.bool_] = ~self.has_letter & ((self._kinds & _DIGIT) == 0)
        open_ones = np.flatnonzero(answers & (self._kinds >= _WIDE))
        answers[open_ones] = [PUNCTUATION.issuperset(word) for word in self.segments.strings(open_ones)]
        return answers

    @cached_property
    def _kinds(self) -> NDArray[np.uint8]:
        """The kinds of bytes that a word is known to have, (S,); complete where none is a letter."""
        segments = self.segments
        data = np.frombuffer(segments.raw, np.uint8)
        kinds: NDArray[np.uint8] = _KINDS[data[segments.starts]]
        # Most words begin with a letter and need no further look.
        rest = np.flatnonzero(kinds != _LETTER)
        if len(rest):
            sizes = segments.num_bytes[rest]
            begins = np.cumsum(sizes) - sizes
            places = np.repeat(segments.starts[rest] - begins, sizes) + np.arange(int(sizes.sum()))
            kinds[rest] = np.bitwise_or.reduceat(_KINDS[data[places]], begins)
        return kinds


class TextBatch:
    """Texts that are judged together."""

    def __init__(self, texts: Sequence[str], words: dict[WordDefinition, Words] | None = None) -> None:
        self.texts = texts
        self._words = words if words is not None else {}

    @cached_property
    def encoded(self) -> Encoded:
        """The texts as UTF-8."""
        return Encoded(self.texts)

    @cached_property
    def lines(self) -> Segments:
        """Every line that is not empty, parted at line feeds."""
        return find_lines(self.encoded)

    def words(self, definition: WordDefinition) -> Words:
        """The words of every text."""
        if definition not in self._words:
            alone = _IS_SYMBOL if definition == "symbols_apart" else None
            self._words[definition] = Words(find_segments(self.encoded, ~_IS_SPACE, alone))
        return self._words[definition]

    def select(self, texts: Sequence[int]) -> TextBatch:
        """The batch of some of the texts (increasing numbers); its words are not looked for again."""
        if len(texts) == len(self.texts):
            return self
        numbers = np.array(texts, dtype=np.int64)
        words = {known: Words(words.segments.select(numbers)) for known, words in self._words.items()}
        return TextBatch([self.texts[text] for text in texts], words)
