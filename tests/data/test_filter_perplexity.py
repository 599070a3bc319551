"""The n-gram model equals smoothing by hand, ranks text as it should, and travels as a file without pickle."""

import json
import math
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from gradus.core.errors import ConfigError, DataError
from gradus.data.filters.ngram_model import NgramModel, NgramSettings, load_ngram_model, train_ngram_model
from gradus.data.filters.table import filter_named

SMALL = NgramSettings(order=2, table_bits=16)


def test_shares_are_those_of_witten_bell_by_hand() -> None:
    model = NgramModel(SMALL)
    model.learn(["a b a b a c"])
    # 6 words, 3 different: p(w) = (c(w) + 3 / 2^20) / 9. After a: 3 times, b or c; after b: 2 times, a.
    zero = 3 / 2**20
    p_a, p_b, p_c, p_new = (3 + zero) / 9, (2 + zero) / 9, (1 + zero) / 9, zero / 9
    p_b_after_a = (2 + 2 * p_b) / (3 + 2)
    p_c_after_a = (1 + 2 * p_c) / (3 + 2)
    p_a_after_b = (2 + 1 * p_a) / (2 + 1)
    p_c_after_b = (0 + 1 * p_c) / (2 + 1)
    p_new_after_a = (0 + 2 * p_new) / (3 + 2)
    for text, shares in [
        ("a b a", [p_a, p_b_after_a, p_a_after_b]),
        ("A, b", [p_a, p_new_after_a, p_b]),  # a comma stands apart, and nothing is known to follow it
        ("b c a", [p_b, p_c_after_b, p_a]),  # nothing ever followed c
        ("a c", [p_a, p_c_after_a]),
    ]:
        expected = math.exp(-sum(map(math.log, shares)) / len(shares))
        assert model.perplexities([text])[0] == pytest.approx(expected, rel=1e-12)


def test_a_trigram_falls_back_to_shorter_ones() -> None:
    model = NgramModel(NgramSettings(order=3, table_bits=16))
    model.learn(["x y z", "y q", "y q"])
    known, shorter, unknown = model.perplexities(["x y z", "x y q", "x y r"])
    assert known < shorter < unknown


def test_capitals_and_digits_are_one() -> None:
    model = NgramModel(SMALL)
    model.learn(["In 1984 The River"])
    one, other = model.perplexities(["in 2001 the river", "IN 9999 THE RIVER"])
    assert one == other


def test_texts_do_not_run_into_one_another() -> None:
    apart, together = NgramModel(SMALL), NgramModel(SMALL)
    apart.learn(["a b"])
    apart.learn(["c d"])
    together.learn(["a b", "c d"])
    assert np.array_equal(apart.counts, together.counts)
    assert np.array_equal(apart.continuations, together.continuations)
    batch = together.perplexities(["a b", "", "c d a", "  "]).tolist()
    assert batch == [together.perplexities([text])[0] for text in ("a b", "", "c d a", "  ")]
    assert batch[1] == batch[3] == math.inf


def sentences(count: int, seed: int) -> list[str]:
    """Made-up reference text with a grammar that a model can learn."""
    draw = random.Random(seed)
    nouns = ["river", "town", "garden", "engine", "letter", "window", "winter", "paper", "stone", "road"]
    verbs = ["saw", "found", "built", "wrote", "took"]
    return [
        " ".join(f"The {draw.choice(nouns)} {draw.choice(verbs)} the {draw.choice(nouns)}." for _ in range(12))
        + f" Note {number:03}."
        for number in range(count)
    ]


def shuffled(text: str, seed: int) -> str:
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "reference.safetensors"
    train_ngram_model(sentences(400, seed=1), NgramSettings(table_bits=16)).save(path)
    return path


def test_percentiles_are_of_texts_that_the_model_was_not_trained_on(model_file: Path) -> None:
    model = load_ngram_model(model_file)
    fresh = model.perplexities(sentences(300, seed=2))
    for percentile in (25, 50, 90):
        below = (fresh <= model.perplexity_at(percentile)).mean() * 100
        assert abs(below - percentile) < 20
    assert (np.diff(model.percentiles) >= 0).all()


def test_a_filter_keeps_what_reads_like_the_reference(model_file: Path) -> None:
    entry = {"name": "perplexity", "model": model_file.name, "max_percentile": 100, "min_percentile": 0}
    keep = filter_named(entry, folder=model_file.parent)
    texts = sentences(50, seed=3)
    assert sum(reason is None for reason in keep(texts)) >= 45
    names = {reason.name for reason in keep([shuffled(text, 1) for text in texts]) if reason}
    assert names == {"perplexity.too_high"}
    assert [reason and reason.name for reason in keep(["qwx zzk vvp", ""])] == [
        "perplexity.too_high",
        "perplexity.no_words",
    ]
    plain = filter_named({**entry, "min_percentile": 50}, folder=model_file.parent)
    names = [reason.name for reason in plain(texts) if reason]
    assert 15 <= names.count("perplexity.too_low") <= 35


def test_a_model_read_back_says_the_same_and_the_same_bytes_are_written(model_file: Path, tmp_path: Path) -> None:
    texts = sentences(5, seed=4)
    model = load_ngram_model(model_file)
    again = train_ngram_model(sentences(400, seed=1), NgramSettings(table_bits=16))
    again.save(tmp_path / "again.safetensors")
    assert np.array_equal(model.perplexities(texts), again.perplexities(texts))
    assert (tmp_path / "again.safetensors").read_bytes() == model_file.read_bytes()
    assert load_ngram_model(model_file).settings == NgramSettings(table_bits=16)


def test_the_fingerprint_follows_the_model_and_not_its_place(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "moved.safetensors").write_bytes(model_file.read_bytes())
    here = filter_named({"name": "perplexity", "model": str(model_file)})
    there = filter_named({"name": "perplexity", "model": "moved.safetensors"}, folder=tmp_path)
    assert here.fingerprint == there.fingerprint
    train_ngram_model(sentences(300, seed=1), NgramSettings(table_bits=16)).save(tmp_path / "moved.safetensors")
    assert (
        filter_named({"name": "perplexity", "model": "moved.safetensors"}, folder=tmp_path).fingerprint
        != here.fingerprint
    )


def test_calibration_texts_are_bounded_and_the_others_are_learned() -> None:
    settings = NgramSettings(table_bits=12, calibration_fraction=0.5, max_calibration_texts=20)
    texts = sentences(200, seed=5)
    model = train_ngram_model(texts, settings)
    words = len(["The", "a", "saw", "the", "b", "."]) * 12 + len(["Note", "1", "."])
    assert model.num_words == (len(texts) - 20) * words


def test_too_few_reference_texts_are_refused() -> None:
    with pytest.raises(DataError, match="at least 20 calibration texts, found"):
        train_ngram_model(sentences(10, seed=1), NgramSettings(table_bits=12))


def test_damaged_missing_and_foreign_models_are_refused(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such n-gram model"):
        load_ngram_model(tmp_path / "none")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(model_file.read_bytes()[:5000])
    with pytest.raises(DataError, match="damaged n-gram model"):
        load_ngram_model(damaged)
    foreign = tmp_path / "foreign"
    header = json.dumps({"__metadata__": {"gradus": "{}"}}).encode()
    foreign.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DataError, match="no n-gram model of this version"):
        load_ngram_model(foreign)


def test_percentiles_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_percentile = 60 is not below max_percentile = 50"):
        filter_named({"name": "perplexity", "model": "x", "min_percentile": 60, "max_percentile": 50})
