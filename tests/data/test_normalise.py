"""Normalisation: what changes, and that code and mathematics do not."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.data.normalise import normalise_text


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("a\r\nb\rc\n", "a\nb\nc"),
        ("page one\x0cpage two\x0bend", "page one\npage two\nend"),
        ("a\x00b\x07c\x7fd\x85e", "abcde"),
        ("col1\tcol2\n\trow", "col1\tcol2\n\trow"),
        ("\ufeff\n  \n    indented = 1\n", "    indented = 1"),
        ("cafe\u0301", "caf\u00e9"),
        # A control character between a letter and its accent must not keep them apart.
        ("e\x00\u0301", "\u00e9"),
        ("  \n\t\n", ""),
    ],
)
def test_a_text_has_this_normal_form(raw: str, normal: str) -> None:
    assert normalise_text(raw) == normal


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n\tif x >= 0 and x != 3:\n\t\treturn x ** 2 / 7 % 5  # <tag> & 'quote'\n\n\nprint(f(2))",
        "∑_{i=1}^n i² = n(n+1)/2 ≤ ∞, ∀x ∈ ℝ: x·0 = 0, a → b, 3 × 4 ÷ 2 ± 1",
        "日本語 العربية हिन्दी 👩‍👩‍👧 \u200b zero width",
        "a   b\n\n\n\nc    d",
    ],
)
def test_code_and_mathematics_stay_as_they_are(text: str) -> None:
    assert normalise_text(text) == text


@given(st.text(st.sampled_from("ab \t\r\n\x00\x0b\x0c\x1f\x85\xa0\u0301\u0323\ufeff\u2028é가")) | st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
