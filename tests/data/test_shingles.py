"""Words and n-grams in numpy against the same definition written out one character at a time."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gradus.data import shingles
from gradus.data.shingles import ngram_hashes, word_hashes

A, B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9
WITHOUT_SPACES = "HIRAGANA", "KATAKANA", "CJK", "THAI", "LAO", "MYANMAR", "KHMER", "BOPOMOFO"


def slow_words(text: str) -> list[str]:
    words, word = [], ""
    for character in text.lower().replace("ς", "σ"):
        counts = unicodedata.category(character)[0] in "LMN" or ord(character) >= 0x20000
        counts = counts and ord(character) < 0x40000
        alone = counts and any(first <= ord(character) <= last for first, last in shingles._SCRIPTS_WITHOUT_SPACES)
        if counts and not alone:
            word += character
            continue
        words += [part for part in (word, character if alone else "") if part]
        word = ""
    return [*words, word] if word else words


def slow_mix(value: int) -> int:
    value = value * A % 2**64
    value = (value ^ value >> 32) * A % 2**64
    return value ^ value >> 29


def slow_word_hash(word: str) -> int:
    data = word.encode()
    groups = [int.from_bytes(data[k : k + 8], "little") for k in range(0, len(data), 8)]
    return slow_mix(sum(group * A ** (k + 1) for k, group in enumerate(groups)) % 2**64)


def slow_ngrams(words: list[int], n: int) -> list[int]:
    return [
        slow_mix(sum(word * B ** (n - 1 - i) for i, word in enumerate(words[start : start + n])) % 2**64)
        for start in range(len(words) - n + 1)
    ]


# By the slow definition below, version 1.
GOLDEN_WORDS, GOLDEN_SHINGLES = 1218145472139568804, 11602685270270040530

TEXTS = st.text(
    st.one_of(
        st.characters(codec=None, exclude_categories=[]),
        st.sampled_from("aAzZ09 _-'\n\tßẞİıΣσςſKéÉ漢字かなไทยﾊ゛\u0301\u00a0\u200b😀\0’…"),
    ),
    max_size=60,
)


@given(st.lists(TEXTS, max_size=8), st.integers(1, 14))
@example(["İΣ'Σ", "\ud800a\udfff", "a\0b", "漢a字", "", "x" * 100, "ab" * 8 + " ab" * 4], 3)
def test_hashes_equal_the_definition_on_any_unicode(texts: list[str], n: int) -> None:
    words, offsets = word_hashes(texts)
    grams, gram_offsets = ngram_hashes(words, offsets, n)
    for index, text in enumerate(texts):
        expected = [slow_word_hash(word) for word in slow_words(text)]
        assert words[offsets[index] : offsets[index + 1]].tolist() == expected
        assert grams[gram_offsets[index] : gram_offsets[index + 1]].tolist() == slow_ngrams(expected, n)
    assert len(words) == offsets[-1]
    assert len(grams) == gram_offsets[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't STOP_me now!", ["don", "t", "stop", "me", "now"]),
        ("x = a*b + 3.5e-7", ["x", "a", "b", "3", "5e", "7"]),
        ("Ünïcode—naïve Ⅷ ½", ["ünïcode", "naïve", "ⅷ", "½"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("ΟΔΟΣ οδος", ["οδοσ", "οδοσ"]),
        ("漢字とkana 3つ", ["漢", "字", "と", "kana", "3", "つ"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("a🎉b", ["a", "b"]),
    ],
)
def test_words_are_lower_case_runs_of_letters_marks_and_numbers(text: str, expected: list[str]) -> None:
    assert slow_words(text) == expected
    assert word_hashes([text])[0].tolist() == [slow_word_hash(word) for word in expected]


def test_the_scripts_without_spaces_are_what_their_names_say() -> None:
    for first, last in shingles._SCRIPTS_WITHOUT_SPACES:
        for code in range(first, last + 1):
            name = unicodedata.name(chr(code), "")
            if name and unicodedata.category(chr(code))[0] in "LMN":
                assert any(script in name for script in (*WITHOUT_SPACES, "IDEOGRAPH", "KANGXI", "HENTAIGANA")), name


def test_a_hash_by_hand() -> None:
    # One group, 0x61, times A; the mix multiplies by A twice more.
    value = 0x61 * A * A % 2**64
    value = (value ^ (value >> 32)) * A % 2**64
    assert word_hashes(["A"])[0].tolist() == [value ^ (value >> 29)]


def test_hashes_never_change_between_versions() -> None:
    words, offsets = word_hashes(["The quick brown fox jumps over the lazy dog, twice-and-thrice incontrovertibly"])
    assert shingles.WORDS_VERSION == 1
    assert int(np.bitwise_xor.reduce(words)) == GOLDEN_WORDS
    assert int(np.bitwise_xor.reduce(ngram_hashes(words, offsets, 5)[0])) == GOLDEN_SHINGLES


def test_long_texts_are_cut_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Anna, Βήτα 漢字 " + "long" * 900 + "'ΣΑΣ' " + "few words more; " * 40
    whole = word_hashes([text, "b c"])
    monkeypatch.setattr(shingles, "_CHUNK_CHARACTERS", 50)
    pieces = word_hashes([text, "b c"])
    assert whole[0].tolist() == pieces[0].tolist() == [slow_word_hash(w) for w in [*slow_words(text), "b", "c"]]
    assert whole[1].tolist() == pieces[1].tolist()


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=9), max_size=6), st.integers(1, 5), st.integers(1, 9))
def test_ngrams_do_not_depend_on_the_block_size(documents: list[list[int]], n: int, block: int) -> None:
    words = np.array([word for document in documents for word in document], dtype=np.uint64)
    offsets = np.cumsum([0, *map(len, documents)])
    before = shingles._CHUNK_CHARACTERS
    shingles._CHUNK_CHARACTERS = 8 * block
    try:
        grams, _ = ngram_hashes(words, offsets, n)
    finally:
        shingles._CHUNK_CHARACTERS = before
    assert grams.tolist() == [gram for document in documents for gram in slow_ngrams(document, n)]


def test_no_two_of_many_words_share_a_hash() -> None:
    texts = [f"{a}{b}{c} {a} {b}{a}" for a in "abcdefghijklmnop" for b in "0123456789é漢" for c in range(200)]
    words, _ = word_hashes(texts)
    assert len(np.unique(words)) == len({word for text in texts for word in slow_words(text)})
