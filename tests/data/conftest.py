"""Shared by the data tests: property tests without a deadline, a small tokenizer, and real data."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

# The machine may be busy with other things.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Bytes, a few merges and the control tokens."""
    return train_tokenizer(["the cat sat on the mat with the hat, and then the rat ran"] * 4, 275)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data, or a skip that says why."""
    folder = Path(os.environ.get("GRADUS_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set GRADUS_DATA")
    return folder
