"""Servers over the small engine that knows a few conversations by heart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from small_server import Running, serving

from gradus.engine.service import EngineService
from gradus.serve.models import ModelSource, ServedModel


@pytest.fixture(scope="session")
def load(memorised: Any) -> Callable[[ModelSource], ServedModel]:
    """Brings the small engine up with a service of its own."""

    def bring_up(found: ModelSource) -> ServedModel:
        return ServedModel(found, memorised[0], EngineService(memorised[0], num_slots=4, max_waiting=8))

    return bring_up


@pytest.fixture(scope="module")
def running(load: Any, one_thread: None) -> Iterator[Running]:
    with serving(load) as found:
        yield found
