"""Signatures against the published algorithm written out, the true Jaccard similarity, and recorded values."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.data import minhash
from gradus.data.minhash import MinHashSettings, band_keys, shingle_signatures, signatures, similarities
from gradus.data.shingles import ngram_hashes, word_hashes

GOLDEN = 0x9E3779B97F4A7C15
GOLDEN_SIGNATURE = [28333, 41557, 28316, 46948, 48701, 9501]
GOLDEN_KEYS = [5383606562404762097, 7105794269357978073, 3134810220775512247]
SMALL = MinHashSettings(ngram=2, bands=3, rows=2)


def slow_factor(seed: int, turn: int) -> int:
    """splitmix64 by its published text; turn from 0."""
    state = (seed * 0xD1342543DE82EF95 + (turn + 1) * GOLDEN) % 2**64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return (state ^ state >> 31) | 1


def slow_spread(value: int) -> int:
    value = (value ^ value >> 32) * GOLDEN % 2**64
    return (value ^ value >> 29) * GOLDEN % 2**64


def slow_signature(shingles: list[int], places: int, seed: int) -> list[int]:
    """Fast similarity sketching: Dahlgaard, Knudsen and Thorup 2017, algorithm 1."""
    least = [2**64] * places
    bits = (2 * places).bit_length()
    for turn in range(2 * places):
        for shingle in shingles:
            value = shingle * slow_factor(seed, turn) % 2**64
            place = (value >> 48) * places >> 16 if turn < places else turn - places
            least[place] = min(least[place], (turn << 64 - bits) + (value >> bits))
        if max(least) < 2**64:
            break
    return [slow_spread(value) >> 48 if shingles else 0 for value in least]


@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=30), max_size=6),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_signatures_equal_the_published_algorithm(texts: list[list[int]], bands: int, rows: int, seed: int) -> None:
    settings = MinHashSettings(bands=bands, rows=rows, seed=seed)
    offsets = np.cumsum([0, *map(len, texts)])
    shingles = np.array([shingle for text in texts for shingle in text], dtype=np.uint64)
    made = shingle_signatures(shingles, offsets, settings)
    assert made.tolist() == [slow_signature(text, bands * rows, seed) for text in texts]


def test_a_text_gets_the_same_signature_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.choice([0, 3, 5, 20, 300]))) for _ in range(60)]
    settings = MinHashSettings()
    together = signatures(texts, settings)
    assert together.tolist() == [signatures([text], settings)[0].tolist() for text in texts]
    monkeypatch.setattr(minhash, "_CHUNK_TEXTS", 7)
    monkeypatch.setattr(minhash, "_CHUNK_SHINGLES", 11)
    assert together.tolist() == signatures(texts, settings).tolist()


def test_a_text_shorter_than_a_shingle_has_no_signature() -> None:
    made = signatures(["one two three four", "one two three four five", "", "..."], MinHashSettings())
    assert made.any(axis=1).tolist() == [False, True, False, False]


def test_signatures_and_keys_never_change_between_versions() -> None:
    made = signatures(["It was the best of times, it was the worst of times, it was the age of wisdom"], SMALL)
    assert minhash.MINHASH_VERSION == 1
    assert made[0].tolist() == GOLDEN_SIGNATURE
    assert band_keys(made, SMALL)[0].tolist() == GOLDEN_KEYS


def slow_keys(signature: list[int], bands: int, rows: int) -> list[int]:
    keys = []
    for band in range(bands):
        key = band
        for value in signature[band * rows : (band + 1) * rows]:
            key = (key * GOLDEN + value) % 2**64
        keys.append(slow_spread(key))
    return keys


def test_band_keys_equal_their_definition() -> None:
    settings = MinHashSettings()
    made = signatures(["a b c d e f g", "a b c d e f h", "z " * 50], settings)
    assert band_keys(made, settings).tolist() == [slow_keys(row.tolist(), 14, 8) for row in made]


@pytest.mark.parametrize("size", [5, 40, 200, 3000])
@pytest.mark.parametrize("jaccard", [0.5, 0.8])
def test_agreement_estimates_the_jaccard_similarity(size: int, jaccard: float) -> None:
    """The mean over many pairs, and no more spread than independent hash functions would have."""
    settings = MinHashSettings()
    rng = np.random.default_rng(size)
    num_pairs = 400 if size < 1000 else 60
    shared = round(jaccard * size)
    sets = rng.integers(0, 2**64, size=(num_pairs, size), dtype=np.uint64)
    apart = (size - shared) // 2
    one, other = sets[:, : shared + apart], np.hstack([sets[:, :shared], sets[:, shared + apart :]])
    made = [
        shingle_signatures(side.reshape(-1), np.arange(num_pairs + 1) * side.shape[1], settings)
        for side in (one, other)
    ]
    true = shared / size
    deviation = (true * (1 - true) / settings.places) ** 0.5
    found = similarities(made[0], made[1])
    assert abs(found.mean() - true) < 4 * deviation / num_pairs**0.5
    # Four standard errors of a standard deviation above the one of independent functions.
    assert found.std() < deviation * (1 + 4 / (2 * num_pairs) ** 0.5)


def test_candidates_come_as_often_as_banding_promises() -> None:
    settings = MinHashSettings()
    rng = np.random.default_rng(5)
    sets = rng.integers(0, 2**64, size=(2000, 200), dtype=np.uint64)
    one, other = sets[:, :170], np.hstack([sets[:, :140], sets[:, 170:]])
    made = [shingle_signatures(s.reshape(-1), np.arange(2001) * 170, settings) for s in (one, other)]
    met = (band_keys(made[0], settings) == band_keys(made[1], settings)).any(axis=1).mean()
    expected = 1 - (1 - 0.7**8) ** 14  # .565, Leskovec et al., section 3.4
    assert abs(met - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5


def test_real_text_is_estimated_as_its_shingle_sets_say() -> None:
    rng = random.Random(3)
    words = [f"word{rng.randrange(3000)}" for _ in range(400)]
    changed = list(words)
    for place in rng.sample(range(400), 12):
        changed[place] = "other"
    texts = [" ".join(words), ", ".join(changed).upper()]
    offsets = word_hashes(texts)
    shingles, bounds = ngram_hashes(*offsets, 5)
    one, other = (set(shingles[bounds[i] : bounds[i + 1]].tolist()) for i in (0, 1))
    true = len(one & other) / len(one | other)
    made = signatures(texts, MinHashSettings())
    assert 0.6 < true < 0.9
    assert abs(float(similarities(made[:1], made[1:])[0]) - true) < 0.1


def pairs_of_texts() -> list[tuple[str, str]]:
    """200 pairs of 150 words, of which a few are replaced in the copy."""
    rng = random.Random(7)
    made = []
    for _ in range(200):
        words = [f"w{rng.randrange(5000)}" for _ in range(150)]
        copy = list(words)
        for place in rng.sample(range(150), rng.randrange(1, 12)):
            copy[place] = f"v{rng.randrange(5000)}"
        made.append((" ".join(words), " ".join(copy)))
    return made


def true_jaccard(one: str, other: str) -> float:
    sets = [set(zip(*(text.split()[i:] for i in range(5)), strict=False)) for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_estimates_are_nearer_the_truth_than_datasketchs() -> None:
    # datasketch 2.0.0, MinHash(num_perm=112, seed=1) on the same 5-grams: error .0433, bias -.0037.
    pairs = pairs_of_texts()
    settings = MinHashSettings()
    one, other = (signatures([pair[i] for pair in pairs], settings) for i in (0, 1))
    errors = similarities(one, other) - np.array([true_jaccard(*pair) for pair in pairs])
    assert (errors**2).mean() ** 0.5 < 0.0433
    assert abs(errors.mean()) < 0.0037


def test_settings_that_change_signatures_change_the_fingerprint() -> None:
    plain = MinHashSettings()
    assert plain.sketch_fingerprint == MinHashSettings(threshold=0.9, leaders=2).sketch_fingerprint
    others = [MinHashSettings(ngram=4), MinHashSettings(bands=16), MinHashSettings(rows=7), MinHashSettings(seed=1)]
    assert len({plain.sketch_fingerprint, *(other.sketch_fingerprint for other in others)}) == 5
