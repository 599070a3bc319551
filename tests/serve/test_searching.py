"""A search before the model answers: by rule, by force, not at all; told as the model's own calls are."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from small_server import body, folded, serving

from gradus.core.errors import ToolError
from gradus.engine.engine import Engine
from gradus.engine.service import EngineService
from gradus.serve.models import ModelSource, ServedModel
from gradus.serve.searching import MOST_SEARCHES
from gradus.tools.deadline import Deadline
from gradus.tools.search_index import Hit
from gradus.tools.web_search import search_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rules_decide_whether_is_searched_first_and_force_overrules_them(memorised: Any) -> None:
    engine = memorised[0]
    queries: list[str] = []

    def search(query: str, limit: int, deadline: Deadline) -> Sequence[Hit]:
        queries.append(query)
        if "broken" in query:
            raise ToolError("the index is gone")
        return []

    whole = Engine(engine.model, engine.tokenizer, engine.form, search_toolbox(search), max_batch=4)

    def load(found: ModelSource) -> ServedModel:
        return ServedModel(found, whole, EngineService(whole, num_slots=2))

    def extension(how: str, *tools: str) -> dict[str, Any]:
        return {"gradus": {"tools": list(tools), "search": how}, "max_tokens": 4}

    with serving(load) as found:
        weather = "What is the weather in Seoul today?"
        told = folded(found.stream(weather, **extension("auto", "web_search")))
        assert len(queries) == 1
        assert "weather" in queries[0]
        call, result = told["events"]
        assert call == {"type": "tool_call", "id": "call_1", "name": "web_search", "arguments": {"query": queries[0]}}
        assert (result["tool_call_id"], result["error"]) == ("call_1", False)
        message = found.chat(weather, **extension("auto", "web_search")).json()["choices"][0]["message"]
        assert message["gradus"]["events"] == [call, result]
        queries.clear()
        for how, tools in (("auto", ("web_search",)), ("off", ("web_search", "calculator"))):
            assert folded(found.stream("hello", **extension(how, *tools)))["events"] == []
        assert queries == []
        told = folded(found.stream("broken things", **extension("force", "web_search")))
        assert told["events"][1]["error"] is True
        assert len(queries) == 1
        refused = found.chat(weather, **extension("force", "calculator"))
        assert refused.json()["error"]["param"] == "gradus.search"
        # Looking at a prompt searches for nothing.
        queries.clear()
        asked = body(weather, **extension("force", "web_search"))
        assert found.http.post("/tokenize", json=asked).json()["count"] > 10
        assert queries == []


def test_searches_that_do_not_end_hold_up_nobody_who_does_not_search(memorised: Any) -> None:
    engine, goes_on, asking = memorised[0], threading.Event(), threading.Semaphore(0)

    def search(query: str, limit: int, deadline: Deadline) -> Sequence[Hit]:
        asking.release()
        goes_on.wait(300)
        return []

    whole = Engine(engine.model, engine.tokenizer, engine.form, search_toolbox(search), max_batch=4)

    def load(found: ModelSource) -> ServedModel:
        return ServedModel(found, whole, EngineService(whole, num_slots=4, max_waiting=100))

    extension = {"gradus": {"tools": ["web_search"], "search": "force"}, "max_tokens": 2}
    with serving(load) as found, ThreadPoolExecutor(MOST_SEARCHES + 40) as clients:
        replies = [clients.submit(found.chat, "weather?", **extension) for _ in range(MOST_SEARCHES + 40)]
        assert all(asking.acquire(timeout=120) for _ in range(MOST_SEARCHES))
        try:
            # More ask for a search than the server has threads for anything else.
            assert found.chat("coffee?").status_code == 200
            assert not any(reply.done() for reply in replies)
        finally:
            goes_on.set()
        assert {reply.result(300).status_code for reply in replies} == {200}
