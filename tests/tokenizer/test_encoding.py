"""Text to ids and back, against transformers, against the reference encoder, and against plain UTF-8."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.tokenizer import tokenizer as tokenizer_module
from gradus.tokenizer.merges import last_pair, merges_follow_ranks
from gradus.tokenizer.patterns import GPT2_PATTERN, PATTERNS
from gradus.tokenizer.specials import HIDDEN_TOKENS, SPECIAL_TOKENS
from gradus.tokenizer.streaming import StreamDecoder
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

# Any text at all, plus a dense mix of what splits badly: marks, blanks, quotes, digits, joiners, odd cases.
ODD = st.text(
    st.sampled_from(
        list("aAsStT'’ſK \t\n\r\u00a0\u2003\u200d\u0301\u066112½٣.,!?-_{}\"<>|/İßﬁ中🙂🏽🇩🇪\u0085\x00\x1c\ufffd")
    )
)
TEXT = st.one_of(st.text(), ODD)


@pytest.fixture(scope="module")
def hub(folder: Path):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder)


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_any_text_comes_back_unchanged(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_ids_are_those_of_the_hub_class(tokenizer: Tokenizer, hub, text: str):
    if not any(name in text for name in SPECIAL_TOKENS):
        assert tokenizer.encode(text) == hub(text, add_special_tokens=False).input_ids


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 399), max_size=30))
def test_decoding_is_that_of_the_hub_class(tokenizer: Tokenizer, hub, ids: list[int]):
    for skip in (False, True):
        ours = tokenizer.decode(ids, skip_special=skip)
        # The Hub class decodes between control tokens, we decode one run of bytes: they may differ only where
        # a character is cut in two by a control token.
        controls = set(tokenizer.special_tokens.values())
        if "\ufffd" not in ours and not controls & set(ids[1:-1]):
            assert ours == hub.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(SPECIAL_TOKENS), ODD), max_size=8))
def test_text_never_becomes_a_control_token(tokenizer: Tokenizer, hub, parts: list[str]):
    text = "".join(parts)
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special_tokens.values())
    assert tokenizer.decode(ids) == text
    assert [list(a) for a in tokenizer.encode_batch([text, text])] == [ids, ids]
    # An independent account of "the control tokens are off": transformers without its added tokens.
    assert ids == hub._encode_without_added_tokens(text)


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_the_fast_encoder_gives_the_ids_of_the_reference(pattern: str, texts: list[str]):
    tokenizer = train_tokenizer(texts, 380, pattern=pattern)
    assert tokenizer.is_fast

    @settings(max_examples=150, deadline=None)
    @given(text=TEXT)
    def agree(text: str):
        assert tokenizer.encode_lists([text]) == tokenizer._encode_reference([text])

    agree()


def test_both_encoders_split_every_character_alike(tokenizer: Tokenizer):
    points = [*range(0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200)]
    texts = [
        "".join(f"x{chr(c)}1{chr(c)} {chr(c)}'{chr(c)}\n" for c in points[i : i + 4096])
        for i in range(0, len(points), 4096)
    ]
    for text in texts:
        assert tokenizer.encode_lists([text]) == tokenizer._encode_reference([text])


def test_both_encoders_agree_on_real_prose(tokenizer: Tokenizer):
    folder = Path(os.environ.get("GRADUS_DATA", "../shared/data")) / "multiturn"
    path = folder / "fastchat_dummy_conversation.json"
    if not path.exists():
        pytest.skip(f"{path} is not here; set GRADUS_DATA")
    rows = json.loads(path.read_text(encoding="utf-8"))
    texts = [turn["value"] for row in rows for turn in row["conversations"]]
    assert tokenizer.encode_lists(texts) == tokenizer._encode_reference(texts)


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=12),
    text=st.text("abc", min_size=1, max_size=30),
)
def test_the_rank_rule_is_only_trusted_where_it_is_exact(pairs: list[tuple[int, int]], text: str):
    """Random merge lists: whenever the check passes, tiktoken's greedy rule equals merging by the list."""
    tokens = [bytes([b]) for b in range(256)]
    letters = [b"a", b"b", b"c"]
    merges = []
    for left, right in pairs:
        pair = (letters[left % len(letters)], letters[right % len(letters)])
        joined = pair[0] + pair[1]
        if len(joined) <= 8 and pair not in merges:
            merges.append(pair)
            if joined not in tokens:
                tokens.append(joined)
                letters.append(joined)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    if not merges_follow_ranks(merges, ranks):
        return
    parts = [bytes([b]) for b in text.encode()]
    by_list = list(parts)
    for left, right in merges:  # merging in the order of the list, each pair everywhere, is BPE's definition
        i = 0
        while i < len(by_list) - 1:
            if (by_list[i], by_list[i + 1]) == (left, right):
                by_list[i : i + 2] = [left + right]
            else:
                i += 1
    by_rank = list(parts)
    while True:
        found = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(by_rank)) if a + b in ranks]
        if not found:
            break
        i = min(found)[1]
        by_rank[i : i + 2] = [by_rank[i] + by_rank[i + 1]]
    assert by_rank == by_list


def test_a_vocabulary_that_ranks_cannot_encode_is_left_to_the_reference(texts: list[str]):
    data = json.loads(train_tokenizer(texts, 267).to_json())
    vocab = data["model"]["vocab"]
    for name in ("ab", "bc", "abc"):
        vocab[name] = len(vocab)
    # "abc" is listed as a + bc, but by ranks "ab" would be joined first and abc come from ab + c.
    data["model"]["merges"] = [["a", "b"], ["b", "c"], ["a", "bc"]]
    for token in data["added_tokens"]:
        token["id"] += 3
    tokenizer = Tokenizer(json.dumps(data))
    assert not tokenizer.is_fast
    assert tokenizer.encode("abc") == [vocab["ab"], vocab["c"]]
    assert last_pair(b"abc", {b"ab": 300, b"bc": 301, b"abc": 302}) == (b"ab", b"c")
    assert last_pair(b"xy", {}) == (b"x", b"y")


def test_a_normalizing_tokenizer_keeps_its_own_ids(texts: list[str]):
    data = json.loads(train_tokenizer(texts, 300).to_json())
    data["normalizer"] = {"type": "NFC"}
    tokenizer = Tokenizer(json.dumps(data))
    assert not tokenizer.is_fast
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")


def test_gpt2_splitting_is_recognised(texts: list[str]):
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(backend.to_str())
    assert tokenizer.is_fast
    assert Regex(GPT2_PATTERN) is not None

    @settings(max_examples=150, deadline=None)
    @given(text=TEXT)
    def agree(text: str):
        assert tokenizer.encode_lists([text]) == tokenizer._encode_reference([text])

    agree()


def test_a_long_run_of_blanks_does_not_break_the_fast_encoder(tokenizer: Tokenizer):
    text = "a" + " " * 1_000_000 + "b"
    first, second = tokenizer.encode_lists([text, "a b"])
    assert tokenizer.decode(first) == text
    assert second == tokenizer.encode("a b")


def test_batches_equal_single_texts(tokenizer: Tokenizer, texts: list[str]):
    documents = ["\n".join(texts) * 30] * 4 + [""]  # long enough for the threaded path
    for batch in (texts, documents, []):
        arrays = tokenizer.encode_batch(batch)
        assert [a.dtype for a in arrays] == [np.int32] * len(batch)
        assert [a.tolist() for a in arrays] == [tokenizer.encode(text) for text in batch]


def test_threads_are_as_many_as_the_process_may_use_not_as_the_machine_has(
    tokenizer: Tokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []

    def counted(texts: list[str], num_threads: int) -> list[list[int]]:
        asked.append(num_threads)
        return [[] for _ in texts]

    monkeypatch.setattr(tokenizer_module, "spread", lambda work, texts, threads: asked.append(threads))
    monkeypatch.setattr(tokenizer, "_fast", SimpleNamespace(encode_ordinary_batch=counted))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    documents = ["\n".join(texts) * 30] * 4
    for usable in (1, 3):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, usable=usable: set(range(usable)), raising=False)
        tokenizer.encode_batch(documents)
        tokenizer.encode_lists(documents)
    assert asked == [1, 1, 3, 3]


def test_unpaired_surrogates_are_refused_with_their_place(tokenizer: Tokenizer):
    with pytest.raises(DataError) as error:
        tokenizer.encode("ab\ud800c")
    assert str(error.value) == (
        "tokenizer: character 2 of the text is an unpaired surrogate (U+D800), which is no Unicode text; "
        'clean it with text.encode("utf-8", "replace").decode()'
    )
    with pytest.raises(DataError, match="expected text, found bytes"):
        tokenizer.encode(b"ab")  # type: ignore[arg-type]


def test_control_tokens_decode_to_their_names_and_hidden_ones_can_be_skipped(tokenizer: Tokenizer):
    ids = [tokenizer.special(name) for name in SPECIAL_TOKENS]
    assert tokenizer.decode(ids) == "".join(SPECIAL_TOKENS)
    visible = [name for name in SPECIAL_TOKENS if name not in HIDDEN_TOKENS]
    assert tokenizer.decode(ids, skip_special=True) == "".join(visible)
    assert tokenizer.token_bytes[ids].tolist() == [0] * len(ids)


def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer):
    with pytest.raises(DataError, match="id 400 is outside the vocabulary of 400"):
        tokenizer.decode([400])
    with pytest.raises(DataError, match="id -1 is outside"):
        tokenizer.decode([-1])


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, 399), max_size=40))
def test_streamed_text_is_the_decoded_text(tokenizer: Tokenizer, ids: list[int]):
    decoder = StreamDecoder(tokenizer)
    for _ in range(2):  # and a decoder may be used again
        assert "".join([decoder.push(i) for i in ids] + [decoder.finish()]) == tokenizer.decode(ids)


def test_streaming_never_shows_half_a_character(tokenizer: Tokenizer):
    single = {token: i for i, token in enumerate(tokenizer._bytes) if len(token) == 1}
    decoder = StreamDecoder(tokenizer)
    shown = [decoder.push(single[bytes([byte])]) for byte in "é🙂".encode()]
    assert shown == ["", "é", "", "", "", "🙂"]
