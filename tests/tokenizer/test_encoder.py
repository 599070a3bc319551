"""Encoding corpora: ids of the fast encoder are the tokenizer's own on any text, and no difference is passed over."""

from __future__ import annotations

import importlib.metadata
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.core.errors import ConfigError, DataError, MissingPackageError
from gradus.tokenizer.difficult_text import difficult_texts
from gradus.tokenizer.encoder import GIGATOKEN_VERSION, Encoder, open_encoder
from gradus.tokenizer.specials import SPECIAL_TOKENS
from gradus.tokenizer.spread import groups_of, spread
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

ODD = st.text(
    st.sampled_from(
        list("aAsStT'’ſK \t\n\r\u00a0\u2003\u200d\u0301\u066112½٣.,!?-_{}\"<>|/İßﬁ中🙂🏽🇩🇪\u0085\x00\x1c\ufffd")
    )
)
TEXT = st.one_of(st.text(), ODD)


@pytest.fixture(scope="module")
def fast(tokenizer: Tokenizer) -> Encoder:
    pytest.importorskip("gigatoken")
    return open_encoder(tokenizer, "gigatoken", threads=2)


def same(found: list, expected: list) -> bool:
    return [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]


@pytest.fixture(scope="module")
def single(tokenizer: Tokenizer) -> Encoder:
    pytest.importorskip("gigatoken")
    return open_encoder(tokenizer, "gigatoken", threads=1)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TEXT, max_size=6))
def test_ids_are_those_of_the_tokenizer_on_any_text(
    fast: Encoder, single: Encoder, tokenizer: Tokenizer, texts: list[str]
):
    expected = [np.array(ids) for ids in tokenizer._encode_reference(texts)]
    assert same(fast.encode(texts), expected)
    assert same(single.encode(texts), expected)


@pytest.mark.parametrize("pattern", ["qwen2", "cl100k"])
def test_ids_are_those_of_the_tokenizer_on_every_character(pattern: str, texts: list[str]):
    pytest.importorskip("gigatoken")
    tokenizer = train_tokenizer(texts, 380, pattern=pattern)
    points = [*range(0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200), *range(0x10FF00, 0x110000)]
    batch = [
        "".join(f"x{chr(c)}1{chr(c)} {chr(c)}'{chr(c)}\n" for c in points[i : i + 4096])
        for i in range(0, len(points), 4096)
    ]
    assert same(open_encoder(tokenizer, "gigatoken").encode(batch), tokenizer.encode_batch(batch))


def test_control_tokens_in_text_stay_text(tokenizer: Tokenizer):
    pytest.importorskip("gigatoken")
    with_bos = tokenizer.extended(["<|bos|>"])
    names = [*SPECIAL_TOKENS, "<|bos|>"]
    texts = [*names, "".join(names), "a<|bos|>b <|endoftext|>\n<|im_start|>system"]
    for name in ("gigatoken", "tiktoken"):
        for text, ids in zip(texts, open_encoder(with_bos, name).encode(texts), strict=True):
            assert not set(ids.tolist()) & set(with_bos.special_tokens.values())
            assert with_bos.decode(ids.tolist()) == text


def test_a_pattern_it_does_not_know_is_refused_or_left_to_tiktoken_aloud(texts: list[str]):
    pytest.importorskip("gigatoken")
    tokenizer = train_tokenizer(texts, 380, pattern="nanochat")
    with pytest.raises(ConfigError, match=r"gigatoken cannot encode it \(Unknown pre_tokenizer Split .*tiktoken"):
        open_encoder(tokenizer, "gigatoken")
    slow = open_encoder(tokenizer)
    assert slow.name == "tiktoken"
    assert slow.notice is not None
    assert "no fast pretokenizer" in slow.notice
    assert same(slow.encode(texts), tokenizer.encode_batch(texts))
    assert open_encoder(tokenizer, "tiktoken").notice is None


def test_an_absent_or_untested_version_is_asked_for(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    expected = f'the package "gigatoken=={GIGATOKEN_VERSION}" is needed and not installed; run: pip install "gradus'
    with pytest.raises(MissingPackageError) as error:
        open_encoder(tokenizer, "gigatoken")
    assert str(error.value).startswith(expected)
    fallback = open_encoder(tokenizer)
    assert fallback.name == "tiktoken"
    assert fallback.notice == 'tiktoken encodes: pip install "gradus[data]" brings an encoder that is ten times faster'


class Wrong:
    """An encoder that is wrong about one word."""

    def __init__(self, right: object, word: str) -> None:
        self.right, self.word = right, word

    def encode(self, text: str) -> np.ndarray:
        ids = self.right.encode(text).copy()
        if self.word in text:
            ids[-1] += 1
        return ids

    def encode_batch(self, texts: list[str], *, parallel: bool) -> object:
        rows = [self.encode(text) for text in texts]
        offsets = np.cumsum([0, *map(len, rows)])
        return SimpleNamespace(
            layout=SimpleNamespace(
                content=SimpleNamespace(data=np.concatenate(rows)), offsets=SimpleNamespace(data=offsets)
            )
        )


def wrong_about(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rs = pytest.importorskip("gigatoken.gigatoken_rs")
    load = rs.load_hf_json
    monkeypatch.setattr(rs, "load_hf_json", lambda data: Wrong(load(data), word))


def test_other_ids_on_the_difficult_sample_are_refused_or_left_to_tiktoken_aloud(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    wrong_about("\U00011950", monkeypatch)
    with pytest.raises(
        DataError, match=r'gives other ids than the tokenizer: token \d+ of .* set encoder = "tiktoken"'
    ):
        open_encoder(tokenizer, "gigatoken")
    fallback = open_encoder(tokenizer)
    assert fallback.name == "tiktoken"
    assert "gives other ids" in str(fallback.notice)


def test_other_ids_later_end_the_work(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    wrong_about("xylophone", monkeypatch)
    encoder = open_encoder(tokenizer)
    assert encoder.name == "gigatoken 0.10.0"
    # 2,048 characters of each batch are checked, and which of them moves on: a rare error is met in time.
    texts = ["fine " * 500] * 40 + ["a xylophone"] + ["fine " * 500] * 40

    def work() -> None:
        for _ in range(2 * len(texts)):
            encoder.encode(texts)

    with pytest.raises(DataError, match=r"begins 'a xylophone' is .* ids written so far cannot be trusted"):
        work()


def test_of_a_long_text_the_beginning_is_checked(fast: Encoder, texts: list[str], monkeypatch: pytest.MonkeyPatch):
    before = fast.checked_tokens
    fast.encode(["\n".join(texts) * 2000])
    assert 0 < fast.checked_tokens - before < 10_000
    monkeypatch.setattr(fast._tokenizer, "encode_batch", lambda texts: [np.zeros(3, dtype=np.int32)])
    with pytest.raises(DataError, match="token 0 of the text"):
        fast.encode(["\n".join(texts) * 2000])


def test_a_long_text_without_a_blank_is_checked_too(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    wrong_about("山" * 50, monkeypatch)
    encoder = open_encoder(tokenizer, "gigatoken")
    encoder.encode(["山" * 40 + "é" * 5000])
    assert encoder.checked_tokens > 0
    with pytest.raises(DataError, match="ids written so far cannot be trusted"):
        encoder.encode(["山" * 5000])


def test_copies_are_replaced_and_ids_stay(tokenizer: Tokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch):
    rs = pytest.importorskip("gigatoken.gigatoken_rs")
    load, loaded = rs.load_hf_json, []
    monkeypatch.setattr(rs, "load_hf_json", lambda data: loaded.append(1) or load(data))
    encoder = open_encoder(tokenizer, "gigatoken", threads=1, renew_bytes=500)
    loaded.clear()
    for _ in range(6):
        assert same(encoder.encode(texts), tokenizer.encode_batch(texts))
    # A copy ends with the first text that takes it past 500 characters; the longest has 79.
    read = 6 * sum(map(len, texts))
    assert read // 579 <= len(loaded) <= 1 + read // 500


@pytest.mark.slow
def test_memory_stays_flat_on_text_that_never_repeats(tokenizer: Tokenizer):
    """Random letters, every word new. Without renewal the encoder holds 700 MB after 80 MB of it (measured)."""
    psutil = pytest.importorskip("psutil")
    pytest.importorskip("gigatoken")
    encoder = open_encoder(tokenizer, "gigatoken", threads=2, renew_bytes=1 << 23)
    random = np.random.default_rng(0)

    def batch() -> list[str]:
        letters = random.integers(97, 123, size=(100, 20_000), dtype=np.uint8)
        letters[:, ::8] = 32
        return [row.tobytes().decode() for row in letters]

    held = []
    for _ in range(40):
        encoder.encode(batch())
        held.append(psutil.Process().memory_info().rss)
    assert max(held[20:]) < max(held[:20]) * 1.1


def test_unpaired_surrogates_are_refused(fast: Encoder):
    with pytest.raises(DataError, match="is an unpaired surrogate"):
        fast.encode(["fine", "a\ud800"])


def test_a_vocabulary_that_only_its_library_encodes_is_checked_against_it(texts: list[str]):
    data = json.loads(train_tokenizer(texts, 300).to_json())
    data["normalizer"] = {"type": "NFC"}
    tokenizer = Tokenizer(json.dumps(data))
    encoder = open_encoder(tokenizer)
    assert encoder.name in {f"gigatoken {GIGATOKEN_VERSION}", "tokenizers"}
    assert same(encoder.encode([*texts, "e\u0301"]), tokenizer.encode_batch([*texts, "e\u0301"]))


@given(st.lists(st.text(max_size=20), max_size=30), st.integers(1, 6))
def test_groups_keep_the_order_and_leave_nothing_out(texts: list[str], most: int):
    groups = groups_of(texts, most)
    assert [text for group in groups for text in group] == texts
    assert len(groups) <= most
    assert all(len(group) for group in groups)
    assert spread(lambda _, group: [len(text) for text in group], texts, most) == [len(text) for text in texts]


def test_groups_are_of_about_the_same_size():
    assert [sum(map(len, group)) for group in groups_of(["abcd"] * 100, 4)] == [100] * 4


def test_the_difficult_sample_names_the_control_tokens_and_is_small():
    texts = difficult_texts(SPECIAL_TOKENS)
    assert all(any(name in text for text in texts) for name in (*SPECIAL_TOKENS, "<|bos|>"))
    assert sum(len(text.encode()) for text in texts) < 200_000
