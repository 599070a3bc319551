"""Rules on the length of lines: too few long ones make no prose, very long ones are generated or minified.

Sources: at least three lines of 200 characters, mC4 (Xue et al. 2021, section 3.1), for web pages; for source code a
longest line of 1,000 and a mean of 100 characters, Codex (Chen et al. 2021, section 3.1).
"""

from __future__ import annotations

from pydantic import Field

from gradus.core.settings import Settings
from gradus.data.filters.filter import Reason, TextFilter


class Lines(Settings):
    """None turns a rule off. Lines end at line feeds; blank ones do not count.

    min_long_lines: how many lines must have long_line_characters (mC4).
    max_line_characters, max_mean_line_characters: off by default; 1000 and 100 are Codex's, for code. Books and
    articles often have one line a paragraph, which both would drop.
    """

    min_long_lines: int | None = Field(default=3, ge=1)
    long_line_characters: int = Field(default=200, ge=1)
    max_line_characters: int | None = Field(default=None, ge=1)
    max_mean_line_characters: float | None = Field(default=None, ge=1)


class LinesFilter(TextFilter[Lines]):
    """Rules in the order of the settings."""

    name = "lines"
    settings_class = Lines

    def judge_text(self, text: str) -> Reason | None:
        limits = self.settings
        sizes = [len(line) for line in text.split("\n") if line and not line.isspace()]
        if limits.min_long_lines is not None:
            num_long = sum([size >= limits.long_line_characters for size in sizes])
            if num_long < limits.min_long_lines:
                return self.drop("too_few_long_lines", f"{num_long} long lines, at least {limits.min_long_lines}")
        if not sizes:
            return None
        longest, most = max(sizes), limits.max_line_characters
        if most is not None and longest > most:
            return self.drop("long_line", f"a line of {longest} characters, at most {most}")
        mean, limit = sum(sizes) / len(sizes), limits.max_mean_line_characters
        if limit is not None and mean > limit:
            return self.drop("long_lines", f"{mean:.0f} characters a line, at most {limit:g}")
        return None
