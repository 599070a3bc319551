"""The quality rules of Gopher: length, word length, symbols, bullets, letters and stop words.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix
A.1.1. Where the paper leaves a rule open it is read as datatrove 0.10 reads it: words of punctuation only do not
count towards length and mean word length; "#", "..." and "…" are counted in the text; a bullet is "•" or "-".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gradus.core.settings import Settings
from gradus.data.filters.batch import TextBatch, WordDefinition
from gradus.data.filters.filter import Filter, Reason
from gradus.data.filters.segments import Segments, string_hashes

_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")


class GopherQuality(Settings):
    """Thresholds of Rae et al. 2021, appendix A.1.1; None turns a rule off.

    words: what a word is. min_words, max_words: words that are more than punctuation.
    min_mean_word_characters, max_mean_word_characters: of those words.
    max_hash_ratio, max_ellipsis_ratio: hash signs, and ellipses, by word.
    max_bullet_line_fraction, max_ellipsis_line_fraction: lines that begin with a bullet, that end in an ellipsis.
    min_letter_word_fraction: words with at least one letter.
    min_stop_words: how many different ones of stop_words must occur, written exactly so.
    """

    words: WordDefinition = "whitespace"
    min_words: int | None = Field(default=50, ge=1)
    max_words: int | None = Field(default=100_000, ge=1)
    min_mean_word_characters: float | None = Field(default=3.0, ge=0)
    max_mean_word_characters: float | None = Field(default=10.0, ge=0)
    max_hash_ratio: float | None = Field(default=0.1, ge=0)
    max_ellipsis_ratio: float | None = Field(default=0.1, ge=0)
    max_bullet_line_fraction: float | None = Field(default=0.9, ge=0, le=1)
    max_ellipsis_line_fraction: float | None = Field(default=0.3, ge=0, le=1)
    min_letter_word_fraction: float | None = Field(default=0.8, ge=0, le=1)
    min_stop_words: int | None = Field(default=2, ge=1)
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherQualityFilter(Filter[GopherQuality]):
    """Rules in the order of the settings; the first that fails is the reason."""

    name = "gopher_quality"
    settings_class = GopherQuality

    def judge(self, batch: TextBatch) -> list[Reason | None]:
        limits = self.settings
        words = batch.words(limits.words)
        counted = ~words.is_punctuation
        num_words = words.segments.counts
        num_counted = words.segments.totals(counted)
        characters = words.segments.totals(words.segments.num_characters * counted)
        letters = words.segments.totals(words.has_letter)
        stop_words = self._stop_words(words.segments)
        reasons: list[Reason | None] = []
        figures = zip(batch.texts, num_words.tolist(), num_counted.tolist(), characters.tolist(), strict=True)
        for index, (text, total, count, size) in enumerate(figures):
            reason = self._lengths(count, size)
            if reason is None and total:
                ellipses = text.count("...") + text.count("…")
                reason = self._symbols(text.count("#"), ellipses, total) or self._lines(text, ellipses)
            if reason is None and total:
                reason = self._letters(int(letters[index]) / total) or self._common_words(int(stop_words[index]))
            reasons.append(reason)
        return reasons

    def _lengths(self, count: int, characters: int) -> Reason | None:
        limits = self.settings
        if limits.min_words is not None and count < limits.min_words:
            return self.drop("too_few_words", f"{count} words, at least {limits.min_words}")
        if limits.max_words is not None and count > limits.max_words:
            return self.drop("too_many_words", f"{count} words, at most {limits.max_words}")
        if count == 0:
            return None
        mean = characters / count
        least, most = limits.min_mean_word_characters, limits.max_mean_word_characters
        if least is not None and mean < least:
            return self.drop("short_words", f"{mean:.2f} characters a word, at least {least:g}")
        if most is not None and mean > most:
            return self.drop("long_words", f"{mean:.2f} characters a word, at most {most:g}")
        return None

    def _symbols(self, hashes: int, ellipses: int, num_words: int) -> Reason | None:
        limit = self.settings.max_hash_ratio
        if limit is not None and hashes / num_words > limit:
            return self.drop("hashes", f"{hashes / num_words:.2f} hash signs a word, at most {limit:g}")
        limit = self.settings.max_ellipsis_ratio
        if limit is not None and ellipses / num_words > limit:
            return self.drop("ellipses", f"{ellipses / num_words:.2f} ellipses a word, at most {limit:g}")
        return None

    def _lines(self, text: str, num_ellipses: int) -> Reason | None:
        bullets, ellipses = self.settings.max_bullet_line_fraction, self.settings.max_ellipsis_line_fraction
        # Most texts have too few bullets and ellipses, wherever they stand, and need not be split into lines.
        least_lines = text.count("\n") or 1
        if bullets is not None and text.count("-") + text.count("•") < bullets * least_lines:
            bullets = None
        if ellipses is not None and num_ellipses < ellipses * least_lines:
            ellipses = None
        if bullets is None and ellipses is None:
            return None
        lines = text.splitlines()
        if bullets is not None:
            fraction = sum([line.lstrip().startswith(_BULLETS) for line in lines]) / len(lines)
            if fraction > bullets:
                return self.drop(
                    "bullet_lines", f"{fraction:.2f} of the lines begin with a bullet, at most {bullets:g}"
                )
        if ellipses is not None:
            fraction = sum([line.rstrip().endswith(_ELLIPSES) for line in lines]) / len(lines)
            if fraction > ellipses:
                detail = f"{fraction:.2f} of the lines end in an ellipsis, at most {ellipses:g}"
                return self.drop("ellipsis_lines", detail)
        return None

    def _letters(self, fraction: float) -> Reason | None:
        limit = self.settings.min_letter_word_fraction
        if limit is not None and fraction < limit:
            return self.drop("few_letters", f"{fraction:.2f} of the words have a letter, at least {limit:g}")
        return None

    def _common_words(self, found: int) -> Reason | None:
        limit = self.settings.min_stop_words
        if limit is not None and found < limit:
            return self.drop("few_stop_words", f"{found} of the stop words, at least {limit}")
        return None

    def _stop_words(self, words: Segments) -> NDArray[np.int64]:
        """How many different stop words each text has, (D,); no longer exact where there are enough."""
        least = self.settings.min_stop_words
        found = np.zeros(len(words.offsets) - 1, dtype=np.int64)
        for number in string_hashes(self.settings.stop_words) if least is not None else ():
            texts = words.text_of[np.flatnonzero(words.hashes == number)]
            found[np.unique(texts)] += 1
            if least is not None and found.min(initial=least) >= least:
                break
        return found
