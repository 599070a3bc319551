"""bench/many_clients.py at small size, on a server of the test: answers, canaries, malformed requests, disconnects."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from small_server import Running, serving

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parents[2] / "bench"), *sys.path])


def test_a_crowd_gets_what_each_gets_alone_and_the_ill_bred_leave_nothing_behind(load: Any) -> None:
    from many_clients import alone, crowd, freed, leave, mistreat

    async def all_of_it(found: Running) -> None:
        async with httpx2.AsyncClient(base_url=found.url, timeout=300) as http:
            expected = await alone(http, "small", clients=8, each=2, max_tokens=16)
            told = await crowd(http, "small", expected, clients=8, each=2, max_tokens=16, seconds=0, least=4)
            assert told["answers"] == 32
            assert told["foreign canaries"] == told["other than alone"] == told["refused or failed"] == 0, told
            statuses = await mistreat(http, "small", 300)
            assert statuses.total() == 300
            assert {status[0] for status in statuses} == {"4"}, statuses
            await leave(http, "small", 40, at_once=8)
            assert await freed(http, seconds=120)
            assert await alone(http, "small", clients=2, each=2, max_tokens=16) == {
                pair: said for pair, said in expected.items() if pair[0] < 2
            }

    with serving(load) as found:
        asyncio.run(all_of_it(found))
        stats = found.state.models.find("small").service.stats()
        assert stats.num_failed == 0
        assert stats.num_cancelled > 10
