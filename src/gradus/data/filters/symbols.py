"""Rules on the kinds of characters in a text: letters and digits, capitals, damaged characters.

Source of the share of letters and digits: CodeParrot (Tunstall, von Werra and Wolf 2022, chapter 10); StarCoder
(Li et al. 2023) asks for the same share of letters: below a quarter a file is data, not code. The others are ours.
"""

from __future__ import annotations

import string

from pydantic import Field

from gradus.core.settings import Settings
from gradus.data.filters.filter import Reason, TextFilter

_REPLACEMENT = "\ufffd"
_CAPITALS = string.ascii_uppercase.encode()
_DIGITS = string.digits.encode()
_LETTERS_AND_DIGITS = string.ascii_letters.encode() + _DIGITS
_ASCII = bytes(range(128))


class Symbols(Settings):
    """Shares of a text's characters that are not white space; None turns a rule off.

    min_alphanumeric_fraction: letters and digits of any script (0.25 in CodeParrot, there of all characters).
    max_digit_fraction, max_capital_fraction: ASCII digits, and ASCII capitals.
    max_replacement_fraction: U+FFFD, which stands where bytes could not be decoded.
    """

    min_alphanumeric_fraction: float | None = Field(default=0.25, ge=0, le=1)
    max_digit_fraction: float | None = Field(default=None, ge=0, le=1)
    max_capital_fraction: float | None = Field(default=None, ge=0, le=1)
    max_replacement_fraction: float | None = Field(default=0.01, ge=0, le=1)


class SymbolsFilter(TextFilter[Symbols]):
    """Rules in the order of the settings; a text without characters passes."""

    name = "symbols"
    settings_class = Symbols

    def judge_text(self, text: str) -> Reason | None:
        limits = self.settings
        solid = "".join(text.split())
        if not solid:
            return None
        ascii_bytes = solid.encode("ascii", "ignore")
        least = limits.min_alphanumeric_fraction
        # ASCII alone usually suffices.
        known = _count(ascii_bytes, _LETTERS_AND_DIGITS)
        if least is not None and known < least * len(solid):
            wide = solid.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")
            fraction = (known + sum(map(str.isalnum, wide))) / len(solid)
            if fraction < least:
                return self.drop(
                    "symbols", f"{fraction:.2f} of the characters are letters or digits, at least {least:g}"
                )
        for rule, count, limit in (
            ("digits", _count(ascii_bytes, _DIGITS), limits.max_digit_fraction),
            ("capitals", _count(ascii_bytes, _CAPITALS), limits.max_capital_fraction),
            ("replacement_characters", solid.count(_REPLACEMENT), limits.max_replacement_fraction),
        ):
            if limit is not None and count > limit * len(solid):
                return self.drop(rule, f"{count / len(solid):.2f} of the characters, at most {limit:g}")
        return None


def _count(content: bytes, kinds: bytes) -> int:
    """How many bytes are of some kinds."""
    return len(content) - len(content.translate(None, kinds))
