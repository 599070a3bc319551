"""For the modules that tests here share, and a small engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from gradus.engine.engine import Engine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Over the seeded bundle."""
    from seeded_bundle import write_seeded_bundle

    from gradus.engine.load import load_engine

    folder = tmp_path_factory.mktemp("seeded")
    write_seeded_bundle(folder)
    return load_engine(folder)
