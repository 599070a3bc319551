"""A server on a free port of this machine, over the small engine that knows a few conversations by heart."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from gradus.serve.keys import Accounts
from gradus.serve.models import ModelSource, ServedModel
from gradus.serve.server import Server, State, bind, open_state
from gradus.serve.settings import ServeSettings

CHAT = "/v1/chat/completions"


@dataclass
class Running:
    """A server that answers, what it stands on, and a client of it."""

    server: Server
    state: State
    url: str
    http: httpx2.Client
    said: list[str]

    def chat(self, text: str = "hello", **given: Any) -> httpx2.Response:
        return self.http.post(CHAT, json=body(text, **given))

    def stream(self, text: str = "hello", path: str = CHAT, **given: Any) -> list[dict[str, Any]]:
        """The data of a streamed reply, without what marks its end."""
        with self.http.stream("POST", path, json=body(text, **given, stream=True)) as reply:
            assert reply.status_code == 200, reply.read()
            lines = [line for line in reply.iter_lines() if line.startswith("data: ")]
        return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]


def body(text: str, **given: Any) -> dict[str, Any]:
    """A chat completion with greedy answers."""
    return {"model": "small", "messages": [{"role": "user", "content": text}], "temperature": 0, **given}


def source(name: str, label: str = "made/up") -> ModelSource:
    return ModelSource(name, label, label, Path(), Path(), "up", "sft", "f" * 64)


@contextmanager
def serving(
    load: Callable[[ModelSource], ServedModel],
    sources: Sequence[ModelSource] = (),
    keys: Path | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """A running server; it has ended, with nobody left in its engines, when the block is over."""
    said: list[str] = []
    accounts = Accounts(keys)
    with bind("127.0.0.1", 0, accounts) as listening:
        usage = keys.with_name("usage.json") if keys else None
        options = ServeSettings(**{"drain_seconds": 60, **settings})
        state = open_state(sources or [source("small")], load, options, accounts, usage)
        server = Server(state, said.append)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx2.Client(base_url=url, timeout=300) as http:
            yield Running(server, state, url, http, said)
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()
    assert all(model.service.stats().num_live == 0 for model in state.models)


def wait_until(what: Callable[[], Any], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def folded(chunks: list[dict[str, Any]], number: int = 0) -> dict[str, Any]:
    """One choice of a stream put together as clients do it."""
    found: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": {}, "events": [], "finish": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != number:
                continue
            delta = choice["delta"]
            assert delta.get("reasoning_content") == delta.get("reasoning")
            found["content"] += delta.get("content") or ""
            found["reasoning_content"] += delta.get("reasoning_content") or ""
            for piece in delta.get("tool_calls", ()):
                call = found["tool_calls"].setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.get("id", "")
                call["name"] += piece["function"].get("name", "")
                call["arguments"] += piece["function"].get("arguments", "")
            found["events"] += [delta["gradus"]] if "gradus" in delta else []
            found["finish"] += [choice["finish_reason"]] if choice["finish_reason"] else []
    return found
