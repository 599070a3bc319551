"""Exact dedup: equal to a set, whatever the batches and however small the runs in memory."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from gradus.data.dedup import SeenHashes
from gradus.data.document import document_id
from gradus.data.holdout import holdout_position


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=20), max_size=20), st.integers(1, 8))
def test_the_first_of_equal_texts_is_new_and_the_rest_are_not(batches: Sequence[Sequence[int]], run_size: int) -> None:
    met: set[int] = set()
    with TemporaryDirectory() as folder:
        seen = SeenHashes(Path(folder) / "runs", run_size=run_size)
        for batch in batches:
            expected = []
            for number in batch:
                expected.append(number not in met)
                met.add(number)
            assert seen.add([document_id(str(n)) for n in batch]).tolist() == expected
        assert seen.size == len(met)
        del seen


def test_full_runs_leave_memory_for_the_disk(tmp_path: Path) -> None:
    seen = SeenHashes(tmp_path / "runs", run_size=100)
    for start in range(0, 1000, 50):
        seen.add([document_id(str(n)) for n in range(start, start + 50)])
    assert len(list((tmp_path / "runs").glob("*.npy"))) >= 4
    assert not seen.add([document_id(str(n)) for n in range(1000)]).any()


def test_ids_that_differ_in_the_last_byte_only_are_different(tmp_path: Path) -> None:
    seen = SeenHashes(tmp_path)
    assert seen.add(["ab" * 15 + "00", "ab" * 15 + "01", "00" * 16]).all()


def test_a_document_id_is_the_start_of_sha256() -> None:
    # echo -n abc | sha256sum
    assert document_id("abc") == "ba7816bf8f01cfea414140de5dae2223"


def test_the_validation_side_has_its_share() -> None:
    held = sum(holdout_position(f"text {n}") < 0.1 for n in range(10_000))
    # Binomial: mean 1,000, standard deviation 30.
    assert 900 < held < 1100
    assert 0 <= holdout_position("") < 1
