"""Override values: TOML where it is TOML, bare words as text."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.roadmap.layers import read_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("1_000", 1000), ("2.5", 2.5), ("true", True), ('"x"', "x"), ("d4", "d4"),
        ("1B tokens", "1B tokens"), ("20 tokens/param", "20 tokens/param"), ("[1, 2]", [1, 2]),
        ("{ depth = 2 }", {"depth": 2}), ("", ""), ("books/*.jsonl", "books/*.jsonl"), ("a=b", "a=b"),
        ("folder:/x", "folder:/x"), ("3\nx = 4", "3\nx = 4"),
    ],
)  # fmt: skip
def test_values_are_read_as_toml_or_as_text(text, value):
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


@pytest.mark.parametrize("text", ["[1, 2", '"open', "{ a = 1", "'x"])
def test_an_unfinished_value_is_no_bare_word(text):
    with pytest.raises(tomllib.TOMLDecodeError):
        read_value(text)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])).filter(lambda t: t[:1] not in set("\"'[{")))
def test_any_other_text_is_read_without_error(text):
    assert read_value(text) is not None


@given(st.integers(-(2**60), 2**60) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_type(value):
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    read = read_value(text)
    assert read == value
    assert type(read) is type(value)
