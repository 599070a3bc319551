"""Lets the tests of this folder import their helper module, and keeps them to one thread each."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """Models here are so small that a second thread only waits, for seconds where the machine is busy."""
