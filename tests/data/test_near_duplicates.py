"""Near-duplicate search against the same rule by brute force; shards, memory and steps change nothing."""

import itertools
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.data import near_duplicates
from gradus.data.document import document_id
from gradus.data.minhash import MinHashSettings, band_keys, signatures
from gradus.data.near_duplicates import bucket_pairs, find_near_duplicates, read_index
from gradus.data.sketches import SketchWriter, read_sketch

SETTINGS = MinHashSettings(ngram=2, bands=6, rows=2, threshold=0.6, leaders=1000)


def write_sketch(folder: Path, texts: Sequence[str], ranks: Sequence[int], run_keys: int = 1 << 20) -> Path:
    writer = SketchWriter(folder, SETTINGS, run_keys)
    half = len(texts) // 2
    for part in (slice(None, half), slice(half, None)):
        writer.add(texts[part], [document_id(text) for text in texts[part]], ranks[part])
    writer.close()
    return folder


def search(
    folder: Path, shards: Sequence[Sequence[tuple[str, int]]], against: Sequence[Path] = (), memory: int = 1 << 28
) -> list[bool]:
    """The removed documents of the shards end to end; the index is left in `folder`/index."""
    sketches = [
        write_sketch(folder / f"sketch{i}", [t for t, _ in shard], [r for _, r in shard], 5)
        for i, shard in enumerate(shards)
    ]
    index = find_near_duplicates(sketches, folder / "index", SETTINGS, against=against, memory_bytes=memory)
    removed = [index.removed(i).tolist() for i in range(len(shards))]
    assert index.num_removed == sum(map(sum, removed))
    return list(itertools.chain(*removed))


def brute_force(documents: Sequence[tuple[str, int]], num_old: int = 0) -> list[bool]:
    """Every pair of documents that share a band key, best first; the first `num_old` stay."""
    made = signatures([text for text, _ in documents], SETTINGS)
    keys = band_keys(made, SETTINGS)
    met = (keys[:, None] == keys[None]).any(axis=2) & made.any(axis=1) & made.any(axis=1)[:, None]
    met &= (made[:, None] == made[None]).mean(axis=2) >= SETTINGS.threshold
    order = [*range(num_old), *sorted(range(num_old, len(documents)), key=lambda i: (-documents[i][1], i))]
    removed = [False] * len(documents)
    for place, later in enumerate(order):
        for earlier in order[:place]:
            if later >= num_old and not removed[earlier] and met[later, earlier]:
                removed[later] = True
    return removed


def a_corpus(seed: int, size: int) -> list[tuple[str, int]]:
    """Texts of a few families with edits, short ones and empty ones, with ranks that often tie."""
    rng = random.Random(seed)
    families = [[rng.choice("abcdefghijklmnopqrstuvwxyz") * 3 for _ in range(30)] for _ in range(max(1, size // 6))]
    documents = []
    for _ in range(size):
        words = list(rng.choice(families))
        for _ in range(rng.choice([0, 0, 1, 2, 4, 8])):
            words[rng.randrange(30)] = rng.choice("xyz") * 3
        documents.append((" ".join(words[: rng.choice([0, 1, 2, 25, 30, 30])]), rng.choice([1, 2, 3])))
    return documents


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(0, 60), st.lists(st.integers(0, 60), max_size=4), st.integers(0, 14))
def test_removals_equal_brute_force_in_any_shards_and_memory(
    seed: int, size: int, cuts: list[int], memory_bits: int
) -> None:
    documents = a_corpus(seed, size)
    bounds = [0, *sorted(min(cut, size) for cut in cuts), size]
    shards = [documents[a:b] for a, b in itertools.pairwise(bounds)]
    with TemporaryDirectory() as folder:
        assert search(Path(folder), shards, memory=1 << memory_bits) == brute_force(documents)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_in_steps_equals_at_once_with_ranks_that_put_earlier_steps_first(
    seed: int, first: int, second: int, third: int
) -> None:
    documents = a_corpus(seed, first + second + third)
    steps = [documents[:first], documents[first : first + second], documents[first + second :]]
    with TemporaryDirectory() as name:
        folder = Path(name)
        removed: list[bool] = []
        for number, step in enumerate(steps):
            against = [folder / str(i) / "index" for i in range(number)]
            removed += search(folder / str(number), [step], against)
        at_once = [(text, rank + 10 * (3 - i)) for i, step in enumerate(steps) for text, rank in step]
        assert removed == search(folder / "all", [at_once]) == brute_force(at_once)
        pairs = pq.read_table(folder / "2" / "index" / "pairs.parquet").to_pylist()
    # Whoever is removed has a similar document that stays, wherever that one is.
    kept = {document_id(text) for (text, _), out in zip(documents, removed, strict=True) if not out}
    assert all(pair["kept"] in kept and pair["similarity"] >= SETTINGS.threshold for pair in pairs)
    assert len(pairs) == sum(removed[first + second :])


def test_the_longest_stays_then_the_earliest(tmp_path: Path) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    documents = [(text, 1), (text + " thirteen", 9), (text + "!", 9), ("else where " * 5, 1), (text.upper() + ".", 1)]
    assert search(tmp_path, [documents]) == [True, False, True, False, True]


def test_a_pair_is_logged_with_its_ids_and_similarity(tmp_path: Path) -> None:
    texts = ["a b c d e f g h", "a b c d e f g h.", "q w e r t z u i o p"]
    assert search(tmp_path, [[(text, 5) for text in texts]]) == [False, True, False]
    [pair] = pq.read_table(tmp_path / "index" / "pairs.parquet").to_pylist()
    assert pair == {"removed": document_id(texts[1]), "kept": document_id(texts[0]), "similarity": 1.0}


def test_chains_are_stars_around_documents_that_stay(tmp_path: Path) -> None:
    """Each text like the next, the ends unlike: not all of the chain collapses into one."""
    words = [f"w{i}" for i in range(80)]
    documents = [(" ".join(words[i : i + 40]), 100 - i) for i in range(0, 40, 4)]
    removed = search(tmp_path, [documents])
    assert removed == brute_force(documents)
    assert 2 <= removed.count(False) < len(removed)
    assert not removed[0]


def test_short_texts_are_never_near_duplicates(tmp_path: Path) -> None:
    assert search(tmp_path, [[("word", 1), ("word", 1), ("", 1), ("", 1), ("Word!", 1)]]) == [False] * 5


def test_excluded_documents_neither_go_nor_make_others_go(tmp_path: Path) -> None:
    texts = ["a b c d e f g h", "a b c d e f g h.", "A B C D E F G H"]
    sketches = [write_sketch(tmp_path / str(i), [text], [3 - i]) for i, text in enumerate(texts)]
    masks = [np.array([out]) for out in (True, False, False)]
    index = find_near_duplicates(sketches, tmp_path / "index", SETTINGS, excluded=masks)
    assert [index.removed(i).tolist() for i in range(3)] == [[False], [False], [True]]
    assert (index.num_removed, index.num_excluded) == (1, 1)
    # Nor later: an excluded document is not in the index.
    later = write_sketch(tmp_path / "later", [texts[0]], [1])
    again = find_near_duplicates([later], tmp_path / "second", SETTINGS, against=[tmp_path / "index"])
    pairs = pq.read_table(again.folder / "pairs.parquet").to_pylist()
    assert [pair["kept"] for pair in pairs] == [document_id(texts[1])]


@given(st.lists(st.lists(st.integers(0, 30), max_size=12, unique=True), max_size=6), st.integers(0, 31))
def test_bucket_pairs_are_each_new_document_with_the_leaders(buckets: list[list[int]], num_old: int) -> None:
    expected = set()
    for bucket in map(sorted, buckets):
        old, new = [n for n in bucket if n < num_old], [n for n in bucket if n >= num_old]
        for place, later in enumerate(new):
            expected |= {(later, earlier) for earlier in [*old[:2], *new[:place][:2]]}
    values = [(key << 30) | number for key, bucket in enumerate(buckets) for number in sorted(bucket)]
    pairs = [pair for part in bucket_pairs(np.array(values, dtype=np.uint64), num_old, 2) for pair in part.tolist()]
    assert sorted(set(pairs)) == sorted((later << 30) | earlier for later, earlier in expected)


def test_a_large_bucket_costs_its_size_times_the_leaders() -> None:
    values = np.arange(10_000, dtype=np.uint64)
    assert sum(len(part) for part in bucket_pairs(values, 0, 8)) == 8 * 10_000 - 36


# Damage


def finished(tmp_path: Path) -> tuple[Path, Path]:
    sketch = write_sketch(tmp_path / "sketch", ["a b c d e f", "a b c d e f!"], [1, 1])
    return sketch, find_near_duplicates([sketch], tmp_path / "index", SETTINGS).folder


def test_a_half_written_sketch_is_refused(tmp_path: Path) -> None:
    writer = SketchWriter(tmp_path / "half", SETTINGS)
    writer.add(["a b c d e"], [document_id("x")], [1])
    message = r"half: no sketch.json here; what was being written was not finished, write it again"
    with pytest.raises(DataError, match=message):
        read_sketch(tmp_path / "half", SETTINGS)
    writer.close()
    assert read_sketch(tmp_path / "half", SETTINGS).documents == 1


def test_a_sketch_that_is_begun_anew_is_unfinished_again(tmp_path: Path) -> None:
    sketch, _ = finished(tmp_path)
    SketchWriter(sketch, SETTINGS)
    with pytest.raises(DataError, match=r"no sketch.json here"):
        read_sketch(sketch, SETTINGS)


def test_a_search_that_was_killed_leaves_no_index_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sketch, index = finished(tmp_path)
    before = {path.name: path.read_bytes() for path in index.iterdir()}
    for step in ("_number", "_candidates", "_decide", "_write_removed", "_write_keys", "_finish"):
        with monkeypatch.context() as patch:
            patch.setattr(near_duplicates._Search, step, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                find_near_duplicates([sketch], index, SETTINGS)
        with pytest.raises(DataError, match=r"no index.json here"):
            read_index(index, SETTINGS)
    assert find_near_duplicates([sketch], index, SETTINGS).num_removed == 1
    assert {path.name: path.read_bytes() for path in index.iterdir()} == before


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    sketch, index = finished(tmp_path)
    keys = (index / "keys.bin").read_bytes()
    (index / "keys.bin").write_bytes(keys[:-8])
    with pytest.raises(DataError, match=r"keys.bin: 40 bytes, expected 48 bytes"):
        find_near_duplicates([sketch], tmp_path / "next", SETTINGS, against=[index])
    (index / "keys.bin").unlink()
    with pytest.raises(DataError, match=r"keys.bin: missing, expected 48 bytes"):
        read_index(index, SETTINGS)
    (index / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index.json: damaged"):
        read_index(index, SETTINGS)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    sketch, index = finished(tmp_path)
    message = r"made with other settings of minhash \(ngram, bands, rows, seed\)"
    with pytest.raises(DataError, match=message):
        find_near_duplicates([sketch], tmp_path / "other", MinHashSettings())
    with pytest.raises(DataError, match=message):
        read_index(index, MinHashSettings())
    # The threshold is not part of a sketch.
    strict = SETTINGS.model_copy(update={"threshold": 0.99})
    assert find_near_duplicates([sketch], tmp_path / "strict", strict).num_removed == 1


def test_the_sketches_may_go_when_the_index_is_there(tmp_path: Path) -> None:
    sketch, index = finished(tmp_path)
    shutil.rmtree(sketch)
    later = write_sketch(tmp_path / "later", ["A B C D E F"], [1])
    assert find_near_duplicates([later], tmp_path / "next", SETTINGS, against=[index]).removed(0).tolist() == [True]
    assert json.loads((index / "index.json").read_text())["documents"] == 2
