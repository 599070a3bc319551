"""Workers of OpenMP that nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gradus.engine.openmp import _gnu_openmp, release_workers

THREADS = Path("/proc/self/task")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    release_workers()
    torch.set_num_threads(before)


@pytest.mark.skipif(not THREADS.exists(), reason="threads are counted in /proc, which only Linux has")
@pytest.mark.usefixtures("three_threads")
def test_workers_end_when_they_are_given_back_and_come_again_when_they_are_needed() -> None:
    if _gnu_openmp() is None:
        pytest.skip("this torch does not use GNU's OpenMP")
    release_workers()
    before = len(list(THREADS.iterdir()))
    numbers = torch.rand(2**20)
    for _ in range(2):
        found = numbers.exp()
        assert len(list(THREADS.iterdir())) == before + 2
        release_workers()
        assert len(list(THREADS.iterdir())) == before
        torch.testing.assert_close(numbers.exp(), found, rtol=0, atol=0)
        release_workers()
