"""Shared by the data tests: a small tokenizer, and real data."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, hub_server

from gradus.data import hub as hub_module
from gradus.data import manifests, transfer
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer


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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A stand-in Hub that HF_ENDPOINT leads to, with nothing remembered, no token and no waits."""
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("GRADUS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(transfer, "_sleep", server.waits.append)
        monkeypatch.setattr(hub_module, "_resolved", {})
        monkeypatch.setattr(manifests, "_fetched_texts", {})
        yield server
