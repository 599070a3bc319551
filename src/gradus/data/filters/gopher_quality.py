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
        may_end = self._may_have_many_marks(batch, num_words)
        reasons: list[Reason | None] = []
        for index, text in enumerate(batch.texts):
            total = int(num_words[index])
            reason = self._lengths(int(num_counted[index]), int(characters[index]))
            if reason is None and may_end[index]:
                reason = self._symbols(text, total) or self._lines(text)
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

    def _may_have_many_marks(self, batch: TextBatch, num_words: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a text has so many hashes, ellipses or bullets that it may break a limit, wherever they stand, (D,).

        Most texts have not, and need not be split into lines.
        """
        limits, texts = self.settings, batch.encoded
        data = np.frombuffer(texts.raw, np.uint8)
        least_lines = np.maximum(texts.counts(np.flatnonzero(data == ord("\n"))) - 1, 1)  # one stands after each text
        stops = np.flatnonzero(data == ord("."))
        stops = stops[:-2][stops[2:] == stops[:-2] + 2]
        num_ellipses = texts.counts(stops) + texts.count_wide("…")
        dashes = np.flatnonzero(data == ord("-"))
        # A bullet stands after white space, which may be outside ASCII, or first.
        before = data[dashes - 1]
        dashes = dashes[(before <= ord(" ")) | (before >= 0x80) | (dashes == 0)]
        num_bullets = texts.counts(dashes) + texts.count_wide("•")
        hashes = np.flatnonzero(data == ord("#"))
        suspect = np.zeros(len(batch.texts), dtype=bool)
        for count, limit, of in (
            (texts.counts(hashes), limits.max_hash_ratio, num_words),
            (num_ellipses, limits.max_ellipsis_ratio, num_words),
            (num_bullets, limits.max_bullet_line_fraction, least_lines),
            (num_ellipses, limits.max_ellipsis_line_fraction, least_lines),
        ):
            if limit is not None:
                suspect |= count >= limit * of
        return suspect & (num_words > 0)

    def _symbols(self, text: str, num_words: int) -> Reason | None:
        limit, ratio = self.settings.max_hash_ratio, text.count("#") / num_words
        if limit is not None and ratio > limit:
            return self.drop("hashes", f"{ratio:.2f} hash signs a word, at most {limit:g}")
        limit, ratio = self.settings.max_ellipsis_ratio, sum(map(text.count, _ELLIPSES)) / num_words
        if limit is not None and ratio > limit:
            return self.drop("ellipses", f"{ratio:.2f} ellipses a word, at most {limit:g}")
        return None

    def _lines(self, text: str) -> Reason | None:
        bullets, ellipses = self.settings.max_bullet_line_fraction, self.settings.max_ellipsis_line_fraction
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
        """How many different stop words each text has, (D,)."""
        found = np.zeros(len(words.offsets) - 1, dtype=np.int64)
        if self.settings.min_stop_words is None:
            return found
        for number in string_hashes(sorted(set(self.settings.stop_words))):
            texts = words.text_of[np.flatnonzero(words.hashes == number)]
            found += np.bincount(texts, minlength=len(found)) > 0
        return found
