"""A stand-in for the server behind the chat page: the page's files, two lists, and chat streams by a script.

A script is a function from a request's body to what is sent: a dict is an event, bytes go out as they are, a number
is a pause in seconds, a Refusal in the first place is an answer with that status, and CUT ends the connection without
an end.
"""

from __future__ import annotations

import json
import mimetypes
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import chain
from typing import Any

from local_server import answering

PAGE = files("gradus.serve") / "page"
CUT = object()
Script = Callable[[dict[str, Any]], Iterable[Any]]


@dataclass(frozen=True)
class Refusal:
    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


def model(name: str, kind: str, **extras: Any) -> dict[str, Any]:
    shown = {"stage": name, "kind": kind, "label": name, "context": 2048, "tools": ["calculator", "web_search"],
             "thinks": True, "default": name == "chat", **extras}  # fmt: skip
    return {"id": f"quickstart/{name}", "object": "model", "created": 0, "owned_by": "gradus", "gradus": shown}


MODELS = [model("base", "pretrain", tools=[], thinks=False), model("chat", "sft"), model("polish", "dpo")]


def delta(**parts: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": parts, "finish_reason": None}]}


def said(text: str) -> list[dict[str, Any]]:
    """A text in pieces of a few characters."""
    return [delta(content=text[at : at + 7]) for at in range(0, len(text), 7)]


def thought(text: str) -> list[dict[str, Any]]:
    """Thinking under both names, as the server sends it."""
    return [delta(reasoning_content=text[at : at + 7], reasoning=text[at : at + 7]) for at in range(0, len(text), 7)]


def call(id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return delta(gradus={"type": "tool_call", "id": id, "name": name, "arguments": arguments})


def result(id: str, content: str, error: bool = False) -> dict[str, Any]:
    return delta(gradus={"type": "tool_result", "tool_call_id": id, "content": content, "error": error})


def end(reason: str = "stop", tokens: tuple[int, int] = (20, 10), thinking: int = 0) -> list[Any]:
    usage = {
        "prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens),
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }  # fmt: skip
    return [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {"choices": [], "usage": usage},
        b"data: [DONE]\n\n",
    ]


def endless(word: str, first: str = "") -> Script:
    """A script that says a word again and again until the page goes away."""

    def script(body: dict[str, Any]) -> Iterator[Any]:
        yield from said(first)
        while True:
            yield delta(content=word)
            yield 0.02

    return script


class PageServer(ThreadingHTTPServer):
    """requests: bodies of completions in the order of arrival; keys: the Authorization headers that came with them.

    paths: everything else that was asked for. dropped: set when a client went away in the middle of a stream.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.models: Any = {"object": "list", "data": MODELS}
        self.config: dict[str, Any] = {"title": "gradus", "needs_key": False, "models_url": "/v1"}
        self.key: str | None = None
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.dropped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_OPTIONS(self) -> None:
        self._send(204, "", "")

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.paths.append(path)
        if path == "/config.json":
            return self._send(200, "application/json", json.dumps(self.server.config))
        if path == "/v1/models":
            return self._refuse_key() or self._send(200, "application/json", json.dumps(self.server.models))
        file = PAGE / (path.lstrip("/") or "index.html")
        if not file.is_file():
            return self._send(404, "text/plain", "not here")
        return self._send(200, mimetypes.guess_type(file.name)[0] or "text/javascript", file.read_bytes())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        if self._refuse_key():
            return None
        items = iter(self.server.script(body))
        first = next(items)
        if isinstance(first, Refusal):
            return self._send(first.status, "text/html", first.body, first.headers)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        try:
            self._stream(first, items)
        except OSError:
            self.server.dropped.set()

    def _stream(self, first: Any, items: Iterator[Any]) -> None:
        for item in chain([first], items):
            if isinstance(item, float | int):
                time.sleep(item)
            elif item is CUT:
                return
            else:
                data = item if isinstance(item, bytes) else f"data: {json.dumps(item, ensure_ascii=False)}\n\n".encode()
                self.wfile.write(data)
                self.wfile.flush()

    def _refuse_key(self) -> bool:
        if self.server.key is None or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return False
        self._send(401, "application/json", json.dumps({"error": {"message": "This server needs a key."}}))
        return True

    def _send(self, status: int, kind: str, text: str | bytes, headers: dict[str, str] | None = None) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        allowed = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **allowed,
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def running(script: Script) -> AbstractContextManager[PageServer]:
    """The server in a thread of its own."""
    return answering(PageServer(script))
