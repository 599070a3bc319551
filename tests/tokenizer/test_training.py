"""Training: size, determinism, what is refused."""

from __future__ import annotations

import pytest

from gradus.core.errors import ConfigError, DataError
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer


def test_the_vocabulary_has_the_size_asked_for_with_control_tokens_last(tokenizer: Tokenizer):
    assert tokenizer.vocab_size == 400
    assert list(tokenizer.special_tokens) == list(SPECIAL_TOKENS)
    assert list(tokenizer.special_tokens.values()) == list(range(400 - len(SPECIAL_TOKENS), 400))


def test_the_same_texts_give_the_same_tokenizer(tokenizer: Tokenizer, texts: list[str]):
    again = train_tokenizer(iter(texts), 400)
    assert again.to_json() == tokenizer.to_json()
    assert again.digest == tokenizer.digest


def test_other_texts_give_another_digest(tokenizer: Tokenizer, texts: list[str]):
    assert train_tokenizer([*texts, "zzzz " * 50], 400).digest != tokenizer.digest


def test_digits_stand_alone_under_the_qwen2_pattern(texts: list[str]):
    tokenizer = train_tokenizer([*texts, "777 777 777 777"], 300)
    assert len(tokenizer.encode("777")) == 3
    grouped = train_tokenizer([*texts, "777 777 777 777" * 40], 300, pattern="cl100k")
    assert len(grouped.encode("777")) == 1


def test_a_vocabulary_without_room_is_refused(texts: list[str]):
    with pytest.raises(ConfigError) as error:
        train_tokenizer(texts, 266)
    assert str(error.value) == (
        "tokenizer: vocab_size 266 is too small; 256 bytes and 11 control tokens need at least 267"
    )
    assert train_tokenizer(texts, 267).vocab_size == 267


def test_too_little_text_is_refused():
    with pytest.raises(DataError) as error:
        train_tokenizer(["abab"], 1000)
    assert str(error.value) == (
        "tokenizer: the texts hold pairs for 269 ids, 1,000 were asked for; "
        "give more text or set vocab_size to at most 269"
    )


def test_an_unknown_pattern_is_refused_with_the_nearest(texts: list[str]):
    with pytest.raises(ConfigError) as error:
        train_tokenizer(texts, 300, pattern="qwen")
    assert str(error.value) == (
        'tokenizer: unknown pattern "qwen"; known are qwen2, cl100k, nanochat; did you mean "qwen2"?'
    )


def test_training_text_that_is_no_unicode_is_refused():
    with pytest.raises(DataError, match="unpaired surrogate"):
        train_tokenizer(["ok", "\udc80"], 300)
