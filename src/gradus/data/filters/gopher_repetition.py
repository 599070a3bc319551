"""The repetition rules of Gopher: duplicate lines and paragraphs, frequent and duplicate n-grams.

Source: Rae et al. 2021, appendix A.1.1 and table A1. A duplicate is every occurrence after the first; shares are of
the text's characters, white space included. Duplicate n-grams are counted from left to right without counting a
word twice, as in datatrove 0.10. Ours departs from it in one thing: n-grams are equal where their words are, not
where the words written together are ("1 11" is not "11 1").
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gradus.core.settings import Settings
from gradus.data.filters.batch import TextBatch, WordDefinition
from gradus.data.filters.filter import Filter, Reason
from gradus.data.filters.line_repetition import may_repeat_lines
from gradus.data.filters.ngram_repetition import Candidates, candidates, covered_bytes, largest_ngrams
from gradus.data.filters.segments import Segments

# [n, share of the characters]
NgramLimits = tuple[tuple[Annotated[int, Field(ge=2, le=100)], Annotated[float, Field(ge=0)]], ...]


class GopherRepetition(Settings):
    """Thresholds of Rae et al. 2021, table A1; None, or an n-gram length left out, turns a rule off.

    words: what a word is. max_duplicate_*_fraction: of all lines or paragraphs, or of the text's characters.
    max_top_ngram_fraction: [n, share of the text's characters that the most frequent n-gram may have].
    max_duplicate_ngram_fraction: [n, share that all duplicate n-grams may have].
    """

    words: WordDefinition = "whitespace"
    max_duplicate_paragraph_fraction: float | None = Field(default=0.30, ge=0, le=1)
    max_duplicate_paragraph_character_fraction: float | None = Field(default=0.20, ge=0, le=1)
    max_duplicate_line_fraction: float | None = Field(default=0.30, ge=0, le=1)
    max_duplicate_line_character_fraction: float | None = Field(default=0.20, ge=0, le=1)
    max_top_ngram_fraction: NgramLimits = ((2, 0.20), (3, 0.18), (4, 0.16))
    max_duplicate_ngram_fraction: NgramLimits = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


class GopherRepetitionFilter(Filter[GopherRepetition]):
    """Paragraphs, lines, top n-grams, duplicate n-grams, in this order; the first rule that fails is the reason."""

    name = "gopher_repetition"
    settings_class = GopherRepetition

    def judge(self, batch: TextBatch) -> list[Reason | None]:
        sizes = np.fromiter(map(len, batch.texts), np.int64, len(batch.texts))
        reasons: list[Reason | None] = [None] * len(batch.texts)
        # Bounds that are quick to have acquit most texts; only the others are counted.
        for index in np.flatnonzero(self._may_repeat_lines(batch, sizes)).tolist():
            reasons[index] = self._repeated_lines(batch.texts[index])
        self._repeated_ngrams(batch.words(self.settings.words).segments, sizes, reasons)
        return reasons

    # Paragraphs and lines

    def _may_repeat_lines(self, batch: TextBatch, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
        limits = self.settings
        shares = [limits.max_duplicate_paragraph_fraction, limits.max_duplicate_line_fraction]
        characters = [limits.max_duplicate_paragraph_character_fraction, limits.max_duplicate_line_character_fraction]
        may = may_repeat_lines(batch.lines, sizes, _least(shares), _least(characters))
        return may | np.fromiter(map(_has_open_ends, batch.texts), np.bool_, len(batch.texts))

    def _repeated_lines(self, text: str) -> Reason | None:
        if not text:
            return self.drop("empty")
        lines = _lines(text)
        limits = self.settings
        fraction, characters = _duplicates(_paragraphs(text))
        reason = self._more(fraction, limits.max_duplicate_paragraph_fraction, "duplicate_paragraphs", "paragraphs")
        if reason is None:
            limit = limits.max_duplicate_paragraph_character_fraction
            reason = self._more(characters / len(text), limit, "duplicate_paragraph_characters", "characters")
        if reason is None:
            fraction, characters = _duplicates(lines)
            reason = self._more(fraction, limits.max_duplicate_line_fraction, "duplicate_lines", "lines")
        if reason is None:
            limit = limits.max_duplicate_line_character_fraction
            reason = self._more(characters / len(text), limit, "duplicate_line_characters", "characters")
        return reason

    def _more(self, fraction: float, limit: float | None, rule: str, of: str) -> Reason | None:
        if limit is None or fraction <= limit:
            return None
        return self.drop(rule, f"{fraction:.2f} of the {of}, at most {limit:g}")

    # N-grams

    def _repeated_ngrams(self, words: Segments, sizes: NDArray[np.int64], reasons: list[Reason | None]) -> None:
        """Fill in reasons where there are none yet. sizes: (D,) characters of the texts."""
        top, duplicate = dict(self.settings.max_top_ngram_fraction), dict(self.settings.max_duplicate_ngram_fraction)
        first_duplicate = min(duplicate, default=0)
        ends = np.zeros(len(words.starts) + 1, dtype=np.int64)  # bytes of the words before each word
        np.cumsum(words.num_bytes, out=ends[1:])
        open_duplicates: Candidates | None = None
        for found in candidates(words, max([first_duplicate, *top], default=0)):
            n = found.n
            if n in top:
                suspects = np.flatnonzero(largest_ngrams(words, ends, found) >= top[n] * sizes)
                for text in suspects.tolist():
                    if reasons[text] is None:
                        reasons[text] = self._top_ngram(words, text, int(sizes[text]), found, top[n])
            if n == first_duplicate:
                open_duplicates = found
        if open_duplicates is not None:
            limit = min(duplicate.values())
            suspects = np.flatnonzero(covered_bytes(words, ends, open_duplicates) >= limit * sizes)
            for text in suspects.tolist():
                if reasons[text] is None:
                    reasons[text] = self._duplicate_ngrams(words, text, int(sizes[text]), open_duplicates)

    def _top_ngram(self, words: Segments, text: int, size: int, found: Candidates, limit: float) -> Reason | None:
        start, stop = words.offsets[text : text + 2].tolist()
        if stop - start < found.n:
            return None
        place, count = found.of(start, stop).most_frequent()
        # With one space between words.
        characters = int(words.num_characters[start + place : start + place + found.n].sum()) + found.n - 1
        return self._more(count * characters / size, limit, f"top_{found.n}_gram", "characters")

    def _duplicate_ngrams(self, words: Segments, text: int, size: int, found: Candidates) -> Reason | None:
        start, stop = words.offsets[text : text + 2].tolist()
        ends = np.zeros(stop - start + 1, dtype=np.int64)  # characters of the text's words before each
        np.cumsum(words.num_characters[start:stop], out=ends[1:])
        ngrams = found.of(start, stop)
        for n, limit in sorted(self.settings.max_duplicate_ngram_fraction):
            ngrams.advance_to(n)
            if not len(ngrams.positions):
                break
            places = np.array(ngrams.duplicate_positions(), dtype=np.int64)
            characters = int((ends[places + n] - ends[places]).sum())
            reason = self._more(characters / size, limit, f"duplicate_{n}_grams", "characters")
            if reason is not None:
                return reason
        return None


def _has_open_ends(text: str) -> bool:
    """Whether white space at the ends of a text changes which of its lines or paragraphs are equal.

    The first and the last paragraph are taken without it; empty lines at both ends are equal.
    """
    if not text or (text[0] == "\n" and text[-1] == "\n"):
        return True
    inner = text.strip("\n")
    return inner[:1].isspace() or inner[-1:].isspace()


def _least(limits: list[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _paragraphs(text: str) -> list[str]:
    """What stands between runs of two or more line feeds, in the text without white space around it."""
    # Of a run of three or more, line feeds are left in empty parts and before the next paragraph.
    return [part.lstrip("\n") for part in text.strip().split("\n\n") if part] or [""]


def _lines(text: str) -> list[str]:
    """What stands between runs of line feeds; before a leading and after a closing run stands an empty line."""
    lines = [line for line in text.split("\n") if line]
    return lines + [""] * (text.startswith("\n") + text.endswith("\n"))


def _duplicates(parts: list[str]) -> tuple[float, int]:
    """(share of the parts, their characters) that are equal to an earlier part."""
    different = set(parts)
    characters = sum(map(len, parts)) - sum(map(len, different))
    return (len(parts) - len(different)) / len(parts), characters
