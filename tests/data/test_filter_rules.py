"""C4, FineWeb, length, line and symbol rules: each by hand, on both sides of its limit."""

from typing import Any

import pytest

from gradus.data.filters.table import filter_named

GOOD = "The river ran past the old town. "


def rule(name: str, text: str, **settings: Any) -> str | None:
    reason = filter_named({"name": name, **settings}).reason(text)
    return reason and reason.name.removeprefix(f"{name}.")


# C4


def test_c4_keeps_a_text_with_three_sentences_in_good_lines() -> None:
    line = "The river ran past the town."
    assert rule("c4", "\n".join([line] * 3)) is None
    assert rule("c4", "\n".join([line] * 2)) == "too_few_sentences"
    assert rule("c4", "\n".join([line] * 4), min_sentences=5) == "too_few_sentences"
    assert rule("c4", "\n".join([line] * 4), min_sentences=None) is None
    # Three sentences on one line, one of them quoted.
    assert rule("c4", 'The river ran past. "Is it so?" It was so!') is None


@pytest.mark.parametrize(
    "line",
    [
        "The river ran past the town",  # no full stop
        "The river ran past the town...",
        "The river ran past.",  # four words
        "Please enable JavaScript in your browser now.",
        "This site, like most others, uses cookies.",
        "Read our Privacy Policy before you go on.",
        "The river ran past the " + "x" * 1001 + ".",
    ],
)
def test_c4_counts_no_sentence_in_a_bad_line(line: str) -> None:
    good = "The river ran past the town."
    assert rule("c4", "\n".join([good, good, line])) == "too_few_sentences"
    assert rule("c4", "\n".join([good, good, good, line])) is None


@pytest.mark.parametrize("line", ["The river ran past it”", "The river ran past it.[12]", "The river ran past it?  "])
def test_c4_takes_quotes_citations_and_spaces_for_ends(line: str) -> None:
    assert rule("c4", "\n".join([line] * 3)) is None


def test_c4_drops_placeholder_pages() -> None:
    assert rule("c4", GOOD * 5 + "\nLorem Ipsum dolor sit amet") == "lorem_ipsum"
    assert rule("c4", GOOD * 5 + "\nLorem Ipsum dolor sit amet", lorem_ipsum=False) is None


def test_c4_keeps_curly_brackets_unless_told_otherwise() -> None:
    text = GOOD * 5 + "\nint main() { return 0; }"
    assert rule("c4", text) is None
    assert rule("c4", text, curly_brackets=True) == "curly_bracket"


def test_c4_can_ask_for_a_share_of_good_lines() -> None:
    text = "\n\n".join([GOOD.strip()] * 3 + ["menu"] * 5)
    assert rule("c4", text) is None
    assert rule("c4", text, min_good_line_fraction=0.375) is None
    assert rule("c4", text, min_good_line_fraction=0.4) == "bad_lines"


# FineWeb


def test_fineweb_wants_lines_that_end_sentences() -> None:
    lines = [f"{number} the river ran past the old town" for number in range(25)]
    assert rule("fineweb", "\n".join([*lines[:22], *(line + "." for line in lines[22:])])) is None  # 3 of 25 are .12
    assert rule("fineweb", "\n".join([*lines[:23], *(line + "." for line in lines[23:])])) == "unpunctuated_lines"


def test_fineweb_wants_long_lines() -> None:
    short, long = "a b c d e f g h i j k l m n o.", "a b c d e f g h i j k l m n op."  # 30 and 31 characters
    assert (len(short), len(long)) == (30, 31)
    assert rule("fineweb", f"{short}\n{long}") is None
    assert rule("fineweb", "\n".join(f"{n}{short[1:]}" for n in range(3)) + f"\n{long}") == "short_lines"


def test_fineweb_wants_few_duplicate_characters() -> None:
    lines = [f"{number} the river ran past the old town." for number in range(10, 20)]
    assert rule("fineweb", "\n".join([*lines, lines[0]])) is None  # 1 of 11
    assert rule("fineweb", "\n".join([*lines[:9], lines[0], lines[1]])) == "duplicate_characters"  # 2 of 11


def test_fineweb_wants_words_on_its_lines() -> None:
    # 8 line feeds for 18 words
    lines = [f"{number:032} {number}." for number in range(9)]
    assert rule("fineweb", "\n".join(lines)) == "line_feeds"
    assert rule("fineweb", "\n".join(lines), max_line_feed_ratio=0.45) is None
    assert rule("fineweb", " \n\t\n") == "empty"


# Length, lines, symbols


def test_length_counts_characters_and_words() -> None:
    assert rule("length", "word " * 49) == "too_few_words"
    assert rule("length", "word " * 50) is None
    assert rule("length", "a b", min_words=None, min_characters=4) == "too_few_characters"
    assert rule("length", "a b", min_words=None, max_characters=2) == "too_many_characters"
    assert rule("length", "a b", min_words=False, max_words=1) == "too_many_words"  # as a roadmap has to write it
    assert rule("length", "a b c", min_words=1, max_words=2) == "too_many_words"
    assert rule("length", "a+b", min_words=3, words="symbols_apart") is None


def test_lines_wants_three_long_ones_for_web_pages_and_no_very_long_one_for_code() -> None:
    assert rule("lines", "\n".join(["x" * 200] * 3)) is None
    assert rule("lines", "\n".join(["x" * 200] * 2 + ["x" * 199])) == "too_few_long_lines"
    code = {"min_long_lines": None, "max_line_characters": 1000, "max_mean_line_characters": 100}
    assert rule("lines", "x" * 1001, **code) == "long_line"
    assert rule("lines", "x" * 101, **code) == "long_lines"
    assert rule("lines", f"{'x' * 150}\n\n{'x' * 50}", **code) is None
    assert rule("lines", "", **code) is None
    assert rule("lines", "x", min_long_lines=False) is None


def test_symbols_wants_letters_or_digits_of_any_script() -> None:
    assert rule("symbols", "ab +=- *") is None  # 2 of 6
    assert rule("symbols", "ab +=- *().") == "symbols"  # 2 of 9
    assert rule("symbols", "漢字 +=- *") is None
    assert rule("symbols", "42 +=- *") is None
    assert rule("symbols", "") is None
    assert rule("symbols", "abc\ufffd") == "replacement_characters"
    assert rule("symbols", "A b c d", max_capital_fraction=0.25) is None
    assert rule("symbols", "A B c d", max_capital_fraction=0.25) == "capitals"
    assert rule("symbols", "1 2 c d", max_digit_fraction=0.4) == "digits"
