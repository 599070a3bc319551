"""Lets the tests of this folder import their helper; nobody waits here, and keys of the user are not seen."""

import sys
from pathlib import Path

import pytest

from gradus.data import transfer

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def home(tmp_path):
    from toy_home import Home

    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """What would have been slept between tries; nobody waits."""
    slept = []
    monkeypatch.setattr(transfer, "_sleep", slept.append)
    return slept


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch, tmp_path):
    """Keys of this machine's user are not seen."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
