"""The rules of C4 as a filter: it drops whole texts and deletes no line.

Source: Raffel et al. 2020 (JMLR 21:140), section 2.2, with the figures of its generator (tensorflow_datasets
text/c4_utils.py). C4 deletes lines and keeps what is left of a page; here lines are only judged, and a text goes
where too few sentences stand in good lines, so that code, formulas and headings of a kept text stay in it. The rule
against curly brackets, made to keep code out, is off by default. Sentences are counted by their ends, not by NLTK.
"""

from __future__ import annotations

import re

from pydantic import Field

from gradus.core.settings import Settings
from gradus.data.filters.filter import Reason, TextFilter

_PLACEHOLDER = "lorem ipsum"
_CITATION = re.compile(r"\[(?:\d{0,9}|edit|citation needed)\]")
_SENTENCE_ENDS = (".", "!", "?")
_CLOSERS = "\"'”’)]"


class C4(Settings):
    """Rules of Raffel et al. 2020, section 2.2; None or false turns one off.

    min_sentences: in good lines (3 in the paper and its code; 5 in its first version and in datatrove).
    A good line ends in one of end_marks and not in "...", where terminal_punctuation is on; has min_line_words words,
    none longer than max_word_characters; names no JavaScript (javascript_lines) and no policy (policy_lines).
    lorem_ipsum: drops a text that has the phrase. curly_brackets: drops a text that has "{".
    min_good_line_fraction: of the lines that are not blank; not in the paper.
    """

    min_sentences: int | None = Field(default=3, ge=1)
    min_good_line_fraction: float | None = Field(default=None, ge=0, le=1)
    terminal_punctuation: bool = True
    end_marks: tuple[str, ...] = (".", "!", "?", '"', "'", "”", "’")
    min_line_words: int = Field(default=5, ge=1)
    max_word_characters: int | None = Field(default=1000, ge=1)
    javascript_lines: bool = True
    policy_lines: bool = True
    policy_phrases: tuple[str, ...] = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )
    lorem_ipsum: bool = True
    curly_brackets: bool = False


class C4Filter(TextFilter[C4]):
    """Phrases and brackets first, then lines and sentences."""

    name = "c4"
    settings_class = C4

    def judge_text(self, text: str) -> Reason | None:
        rules = self.settings
        if rules.curly_brackets and "{" in text:
            return self.drop("curly_bracket")
        lowered = text.lower()
        if rules.lorem_ipsum and _PLACEHOLDER in lowered:
            return self.drop("lorem_ipsum")
        least = rules.min_sentences or 0
        bad_phrases = self._bad_phrases(lowered)
        num_lines = num_good = num_sentences = 0
        for line in text.splitlines():
            words = line.split()
            if not words:
                continue
            num_lines += 1
            if not self._is_good(line, words, bad_phrases):
                continue
            num_good += 1
            if num_sentences < least:
                num_sentences += _count_sentences(words)
            elif rules.min_good_line_fraction is None:
                return None
        if num_sentences < least:
            return self.drop("too_few_sentences", f"{num_sentences} sentences in good lines, at least {least}")
        limit = rules.min_good_line_fraction
        if limit is not None and num_good < limit * num_lines:
            return self.drop("bad_lines", f"{num_good} of {num_lines} lines are good, at least {limit:g}")
        return None

    def _bad_phrases(self, lowered: str) -> tuple[str, ...]:
        """Of the phrases that spoil a line, those that the text has."""
        phrases = self.settings.policy_phrases if self.settings.policy_lines else ()
        if self.settings.javascript_lines:
            phrases = ("javascript", *phrases)
        return tuple(phrase for phrase in phrases if phrase in lowered)

    def _is_good(self, line: str, words: list[str], bad_phrases: tuple[str, ...]) -> bool:
        rules = self.settings
        if len(words) < rules.min_line_words:
            return False
        if rules.max_word_characters is not None and max(map(len, words)) > rules.max_word_characters:
            return False
        if rules.terminal_punctuation:
            end = line.rstrip()
            if end.endswith("]"):
                # Citations such as "[12]" stand after the full stop.
                end = _CITATION.sub("", end).rstrip()
            if not end.endswith(rules.end_marks) or end.endswith("..."):
                return False
        if bad_phrases:
            lowered = line.lower()
            return not any(phrase in lowered for phrase in bad_phrases)
        return True


def _count_sentences(words: list[str]) -> int:
    """Words that end in ".", "!" or "?", closing quotes and brackets aside; a line is one sentence at least."""
    return max(1, sum(word.rstrip(_CLOSERS).endswith(_SENTENCE_ENDS) for word in words))
