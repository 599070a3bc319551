"""Words and lines found in bytes are those that Python's own string methods find, whatever the text holds."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.data.filters.batch import TextBatch, WordDefinition
from gradus.data.filters.punctuation import PUNCTUATION, SENTENCE_TERMINALS
from gradus.data.filters.segments import Segments, sampled_hashes, string_hashes

# Every character of Unicode, lone surrogates too, and often those that part words.
SPACES = "".join(chr(code) for code in range(0x110000) if chr(code).isspace())
TEXT = st.text(
    st.one_of(
        st.sampled_from(SPACES + "\n\n\n ab.,-é…«漢"), st.characters(exclude_categories=()), st.sampled_from("ab ")
    ),
    max_size=60,
)
TEXTS = st.lists(TEXT, max_size=5)


def strings(segments: Segments) -> list[list[str]]:
    """The segments of each text."""
    spans = list(zip(segments.starts.tolist(), segments.ends.tolist(), strict=True))
    found = [segments.raw[start:end].decode("utf-8", "surrogatepass") for start, end in spans]
    return [found[start:end] for start, end in pairwise(segments.offsets.tolist())]


@given(TEXTS)
def test_whitespace_words_are_those_of_str_split(texts: Sequence[str]) -> None:
    assert strings(TextBatch(texts).words("whitespace").segments) == [text.split() for text in texts]


@given(TEXTS)
def test_with_symbols_apart_every_ascii_symbol_is_a_word(texts: Sequence[str]) -> None:
    # What ASCII calls neither letter, digit, underscore nor white space.
    symbol = (
        "[" + re.escape("".join(chr(c) for c in range(128) if not (chr(c).isalnum() or chr(c) in "_" + SPACES))) + "]"
    )
    pattern = re.compile(f"{symbol}|(?:(?!{symbol})\\S)+")
    assert strings(TextBatch(texts).words("symbols_apart").segments) == [pattern.findall(text) for text in texts]


def test_symbols_apart_on_a_line_of_code() -> None:
    words = strings(TextBatch(["x_1+=f(«naïve»)\t# 3.5"]).words("symbols_apart").segments)
    assert words == [["x_1", "+", "=", "f", "(", "«naïve»", ")", "#", "3", ".", "5"]]


@given(TEXTS)
def test_lines_are_what_stands_between_line_feeds_and_is_not_empty(texts: Sequence[str]) -> None:
    assert strings(TextBatch(texts).lines) == [[line for line in text.split("\n") if line] for text in texts]


@given(TEXTS)
def test_lengths_letters_and_punctuation_are_those_of_each_word(texts: Sequence[str]) -> None:
    words = TextBatch(texts).words("whitespace")
    expected = [word for text in texts for word in text.split()]
    assert words.segments.strings(np.arange(len(expected))) == expected
    assert words.segments.num_characters.tolist() == [len(word) for word in expected]
    assert words.has_letter.tolist() == [any(c.isalpha() for c in word) for word in expected]
    assert words.is_punctuation.tolist() == [all(c in PUNCTUATION for c in word) for word in expected]


@given(TEXTS)
def test_hashes_are_equal_where_words_are_and_only_there(texts: Sequence[str]) -> None:
    words = TextBatch(texts).words("whitespace").segments
    expected = [word for text in texts for word in text.split()]
    assert len(set(words.hashes.tolist())) == len(set(expected))
    assert words.hashes.tolist() == string_hashes(expected).tolist()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 17, 127, 128, 129, 400])
def test_a_hash_depends_on_every_byte_and_on_the_length(size: int) -> None:
    word = "a" * size
    changed = [word[:place] + "b" + word[place + 1 :] for place in range(size)]
    variants = [word, word + "a", word + "\0", *changed]
    assert len(set(string_hashes(variants).tolist())) == len(variants)


def test_hashes_do_not_depend_on_the_process_or_on_what_stands_beside() -> None:
    # Recorded once: shards made on two machines must agree.
    assert string_hashes(["gradus"]).tolist() == string_hashes(["x", "gradus", "y"])[1:2].tolist()
    recorded = ["0x4aa4a9cdfd2bf2e6", "0x4b0a6df26fc8f38d"]
    assert [hex(value) for value in string_hashes(["a", "gradus ad Parnassum"]).tolist()] == recorded


@given(st.lists(st.text("ab", max_size=30), max_size=6))
def test_equal_lines_have_equal_samples(lines: Sequence[str]) -> None:
    found = TextBatch(["\n".join(lines)]).lines
    samples: dict[str, int] = {}
    for line, sample in zip(strings(found)[0], sampled_hashes(found).tolist(), strict=True):
        assert samples.setdefault(line, sample) == sample


@given(TEXTS, st.data())
def test_some_texts_of_a_batch_keep_their_words(texts: Sequence[str], data: st.DataObject) -> None:
    chosen = [index for index in range(len(texts)) if data.draw(st.booleans())]
    definition: WordDefinition = data.draw(st.sampled_from(["whitespace", "symbols_apart"]))
    batch = TextBatch(texts)
    batch.words(definition).segments.hashes.sum()
    some = batch.select(chosen)
    fresh = TextBatch([texts[index] for index in chosen])
    assert strings(some.words(definition).segments) == strings(fresh.words(definition).segments)
    assert np.array_equal(some.words(definition).segments.hashes, fresh.words(definition).segments.hashes)
    assert strings(some.lines) == strings(fresh.lines)


def test_sentences_end_in_what_unicode_says() -> None:
    assert {".", "!", "?", "。", "؟", "।", "‼", "…"} - SENTENCE_TERMINALS == {"…"}
    assert not any(character.isalpha() for character in PUNCTUATION)
