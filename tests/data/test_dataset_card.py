"""Patterns of a dataset card, held against the standard library's for one folder."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.data.dataset_card import card_patterns, compiled_pattern, pattern_folder

PIECE = st.lists(st.sampled_from(["a", "b", "-", ".", "*", "?", "[ab]", "[!a]", "[a-c]", "(", "+"]), max_size=6)


@given(PIECE, st.text("abc-.(+", max_size=6))
def test_within_a_folder_patterns_match_as_fnmatch_does(parts: list[str], name: str) -> None:
    pattern = "".join(parts).replace("**", "*")
    assert bool(compiled_pattern(pattern).match(name)) == fnmatch.fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.jsonl", ["a.jsonl"], ["d/a.jsonl", "a.jsonl.gz"]),
        ("**/*.jsonl", ["a.jsonl", "d/a.jsonl", "d/e/a.jsonl"], ["a.json"]),
        ("d/**", ["d/a", "d/e/a"], ["e/a"]),
        ("data/train-*", ["data/train-0"], ["data/x/train-0", "data/train-/0"]),
        ("[!a]/x", ["b/x"], ["a/x", "//x"]),
        ("a[.txt", ["a[.txt"], ["a.txt"]),
        ("[a&&b||c~~d[]", ["&", "|", "[", "c"], ["e"]),
    ],
)
def test_patterns_reach_as_far_as_they_say(pattern: str, matching: list[str], other: list[str]) -> None:
    meant = compiled_pattern(pattern)
    assert [p for p in matching + other if meant.match(p)] == matching


@pytest.mark.parametrize(
    ("pattern", "folder"), [("sample/10BT/*", "sample/10BT"), ("*.jsonl", ""), ("a/*/b/c.txt", "a"), ("a/b.txt", "a")]
)
def test_only_the_fixed_folder_of_a_pattern_is_listed(pattern: str, folder: str) -> None:
    assert pattern_folder(pattern) == folder


@given(st.text(max_size=80))
def test_no_text_breaks_a_card(text: str) -> None:
    from gradus.core.errors import DataError

    try:
        found = card_patterns("a/b", f"---\n{text}\n---\n", None, "train")
    except DataError:
        return
    assert found is None or all(isinstance(pattern, str) for pattern in found)
