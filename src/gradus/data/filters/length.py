"""Texts that are too short or too long, in characters or words."""

from __future__ import annotations

from pydantic import Field

from gradus.core.settings import Settings
from gradus.data.filters.batch import TextBatch, WordDefinition
from gradus.data.filters.filter import Filter, Reason


class Length(Settings):
    """None turns a rule off. The defaults for words are those of Gopher (Rae et al. 2021, appendix A.1.1).

    words: what a word is; unlike Gopher's rule, words of punctuation only count.
    """

    words: WordDefinition = "whitespace"
    min_characters: int | None = Field(default=None, ge=1)
    max_characters: int | None = Field(default=None, ge=1)
    min_words: int | None = Field(default=50, ge=1)
    max_words: int | None = Field(default=100_000, ge=1)


class LengthFilter(Filter[Length]):
    """Characters first, since they need no look at the text."""

    name = "length"
    settings_class = Length

    def judge(self, batch: TextBatch) -> list[Reason | None]:
        limits = self.settings
        reasons = [
            self._outside(len(text), limits.min_characters, limits.max_characters, "characters") for text in batch.texts
        ]
        left = [index for index, reason in enumerate(reasons) if reason is None]
        if left and (limits.min_words is not None or limits.max_words is not None):
            num_words = batch.select(left).words(limits.words).segments.counts.tolist()
            for index, count in zip(left, num_words, strict=True):
                reasons[index] = self._outside(count, limits.min_words, limits.max_words, "words")
        return reasons

    def _outside(self, count: int, least: int | None, most: int | None, unit: str) -> Reason | None:
        if least is not None and count < least:
            return self.drop(f"too_few_{unit}", f"{count} {unit}, at least {least}")
        if most is not None and count > most:
            return self.drop(f"too_many_{unit}", f"{count} {unit}, at most {most}")
        return None
