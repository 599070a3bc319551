"""External sorting: equal to sorting in memory, however small the memory, and groups are never divided."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.errors import DataError
from gradus.data.sorted_runs import Run, RunWriter, merged_blocks

VALUES = st.lists(st.lists(st.integers(0, 200) | st.integers(0, 2**64 - 1), max_size=20), max_size=8)


@given(VALUES, st.integers(1, 12), st.integers(0, 300), st.integers(0, 8))
def test_merged_blocks_are_all_values_sorted(
    batches: list[list[int]], run_values: int, memory_bytes: int, shift: int
) -> None:
    with TemporaryDirectory() as folder:
        writer = RunWriter(Path(folder) / "runs.bin", run_values)
        for batch in batches:
            writer.add(np.array(batch, dtype=np.uint64))
        blocks = [block.tolist() for block in merged_blocks(writer.runs(), memory_bytes, shift)]
    assert [value for block in blocks for value in block] == sorted(value for batch in batches for value in batch)
    groups = [{value >> shift for value in block} for block in blocks]
    assert all(not one & other for i, one in enumerate(groups) for other in groups[:i])
    assert max(writer.counts, default=0) <= run_values


def test_blocks_stay_within_the_memory_asked_for(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "runs.bin", 1000)
    writer.add(np.random.default_rng(0).integers(0, 2**64, size=20_000, dtype=np.uint64))
    assert len(writer.runs()) == 20
    assert max(len(block) for block in merged_blocks(writer.runs(), 8 * 2000)) <= 2000


def test_a_group_larger_than_the_memory_is_read_whole(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "runs.bin", 100)
    writer.add(np.array([5] * 450 + [6, 7], dtype=np.uint64))
    assert (next(merged_blocks(writer.runs(), 8 * 10))[:450] == 5).all()


def test_a_change_below_the_shift_applies_before_the_merge(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "runs.bin", 100)
    writer.add(np.array([0x100, 0x101, 0x200], dtype=np.uint64))
    [run] = writer.runs()
    flipped = Run(run.path, run.start, run.count, lambda values: values ^ np.uint64(0xF))
    merged = np.concatenate(list(merged_blocks([flipped, run], 8, shift=8)))
    assert merged.tolist() == [0x100, 0x101, 0x10E, 0x10F, 0x200, 0x20F]


def test_a_file_cut_short_is_an_error(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "runs.bin", 100)
    writer.add(np.arange(50, dtype=np.uint64))
    runs = writer.runs()
    (tmp_path / "runs.bin").write_bytes(b"\0" * 80)
    with pytest.raises(DataError, match="cut short while it was being read"):
        list(merged_blocks(runs, 1 << 20))
