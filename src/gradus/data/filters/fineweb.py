"""The heuristics that were added for FineWeb: lines without punctuation, short and duplicate lines, lists.

Source: Penedo et al. 2024, "The FineWeb Datasets", section 3.6 (punctuation .12, duplicate characters .1, short lines
.67); line feeds by word as in datatrove 0.10, FineWeb's code. That code's default for duplicate characters is .01,
a tenth of what the paper says.
"""

from __future__ import annotations

from pydantic import Field

from gradus.core.settings import Settings
from gradus.data.filters.batch import TextBatch, WordDefinition
from gradus.data.filters.filter import Filter, Reason
from gradus.data.filters.punctuation import SENTENCE_TERMINALS


class FineWeb(Settings):
    """Thresholds of Penedo et al. 2024, section 3.6; None turns a rule off. Blank lines do not count.

    min_punctuated_line_fraction: lines that end in a character that ends sentences (Unicode Sentence_Terminal).
    max_short_line_fraction: lines of short_line_characters at most.
    max_duplicate_character_fraction: characters of lines equal to an earlier one, of all but line feeds.
    max_line_feed_ratio: line feeds by word. words: what a word is.
    """

    words: WordDefinition = "whitespace"
    min_punctuated_line_fraction: float | None = Field(default=0.12, ge=0, le=1)
    short_line_characters: int = Field(default=30, ge=0)
    max_short_line_fraction: float | None = Field(default=0.67, ge=0, le=1)
    max_duplicate_character_fraction: float | None = Field(default=0.1, ge=0, le=1)
    max_line_feed_ratio: float | None = Field(default=0.3, ge=0)


class FineWebFilter(Filter[FineWeb]):
    """Rules in the order of the settings; the first that fails is the reason."""

    name = "fineweb"
    settings_class = FineWeb

    def judge(self, batch: TextBatch) -> list[Reason | None]:
        reasons = [self._lines(text) for text in batch.texts]
        limit = self.settings.max_line_feed_ratio
        left = [index for index, reason in enumerate(reasons) if reason is None]
        if limit is None or not left:
            return reasons
        rest = batch.select(left)
        num_words = rest.words(self.settings.words).segments.counts.tolist()
        for index, count in zip(left, num_words, strict=True):
            ratio = batch.texts[index].count("\n") / count
            if ratio > limit:
                reasons[index] = self.drop("line_feeds", f"{ratio:.2f} line feeds a word, at most {limit:g}")
        return reasons

    def _lines(self, text: str) -> Reason | None:
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            return self.drop("empty")
        limits = self.settings
        least = limits.min_punctuated_line_fraction
        if least is not None:
            fraction = sum([line[-1] in SENTENCE_TERMINALS for line in lines]) / len(lines)
            if fraction < least:
                return self.drop(
                    "unpunctuated_lines", f"{fraction:.2f} of the lines end a sentence, at least {least:g}"
                )
        most = limits.max_short_line_fraction
        if most is not None:
            fraction = sum([len(line) <= limits.short_line_characters for line in lines]) / len(lines)
            if fraction > most:
                return self.drop("short_lines", f"{fraction:.2f} of the lines are short, at most {most:g}")
        most = limits.max_duplicate_character_fraction
        different = set(lines)
        if most is not None and len(different) < len(lines):
            characters = sum(map(len, lines)) - sum(map(len, different))
            fraction = characters / (len(text) - text.count("\n"))
            if fraction > most:
                return self.drop("duplicate_characters", f"{fraction:.2f} of the characters, at most {most:g}")
        return None
