"""A stand-in for an OpenAI-compatible service on this machine: answers by a function, misbehaves as scripted.

Speaks POST /v1/chat/completions, whole or as a stream of events, and GET /v1/models over HTTP/1.1. Every request is
written down. Faults are used up in their order, one a request: statuses with headers, bodies cut short, silence,
dropped connections, other models.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from local_server import answering

MODEL = "teacher-1"
Mind = Callable[[dict[str, Any]], "str | dict[str, Any]"]


@dataclass
class Fault:
    """One request that goes wrong. body: sent in place of an answer. cut: bytes of the body before the connection ends.

    Of a stream it is the number of events. silent_seconds: waits before it answers. drop: closes the connection
    without a word. change: edits a good answer.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    cut: int | None = None
    silent_seconds: float = 0.0
    drop: bool = False
    change: Callable[[dict[str, Any]], None] | None = None


class TeacherServer(ThreadingHTTPServer):
    """requests: bodies of completions in the order of arrival; keys: the Authorization headers that came with them."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, mind: Mind, port: int = 0, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.mind, self.delay = mind, delay
        self.event_delay = 0.0  # before each event of a stream
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TeacherServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._send(200, {}, json.dumps({"data": [{"id": MODEL}, {"id": "teacher-large"}]}))

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(body)
            server.keys.append(self.headers.get("Authorization"))
            server.times.append(time.monotonic())
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
            fault = server.faults.pop(0) if server.faults else Fault()
        try:
            time.sleep(server.delay + fault.silent_seconds)
            self._answer(body, fault)
        finally:
            with server.lock:
                server.in_flight -= 1

    def _answer(self, body: dict[str, Any], fault: Fault) -> None:
        if fault.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        text = fault.body
        if text is None and fault.status == 200:
            said = self.server.mind(body)
            message = {"role": "assistant", **(said if isinstance(said, dict) else {"content": said})}
            tokens = len(json.dumps(body["messages"])) // 4
            completion = {
                "id": "x",
                "object": "chat.completion",
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": tokens, "completion_tokens": len(json.dumps(message)) // 4},
            }
            if fault.change is not None:
                fault.change(completion)
            if body.get("stream"):
                self._send_events(stream_events(completion), fault.cut)
                return
            text = json.dumps(completion)
        elif text is None:
            text = json.dumps({"error": {"message": f"scripted fault {fault.status}"}})
        self._send(fault.status, fault.headers, text, fault.cut)

    def _send(self, status: int, headers: dict[str, str], text: str, cut: int | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send_events(self, events: list[str], most: int | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in events[:most]:
                time.sleep(self.server.event_delay)
                data = f"{event}\n\n".encode()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.flush()
            if most is None:
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the client has gone away
            self.close_connection = True


def stream_events(completion: dict[str, Any]) -> list[str]:
    """A completion as OpenAI streams it: pieces of three characters, a call's name before its arguments, usage last."""
    message = completion["choices"][0]["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for key in ("reasoning_content", "content"):
        text = message.get(key) or ""
        deltas += [{key: text[i : i + 3]} for i in range(0, len(text), 3)]
    for number, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        begun = {"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": number, **begun}]})
        for i in range(0, len(function["arguments"]), 3):
            piece = {"function": {"arguments": function["arguments"][i : i + 3]}}
            deltas.append({"tool_calls": [{"index": number, **piece}]})
    head = {"id": "x", "object": "chat.completion.chunk", "model": completion["model"]}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    reason = "tool_calls" if message.get("tool_calls") else completion["choices"][0]["finish_reason"]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append({**head, "choices": [], "usage": completion["usage"]})
    return [": keep-alive", *(f"data: {json.dumps(chunk)}" for chunk in chunks), "data: [DONE]"]


def echo(body: dict[str, Any]) -> str:
    """The last message again."""
    return f"You said: {body['messages'][-1]['content']}"


def running(mind: Mind = echo, port: int = 0, delay: float = 0.0) -> AbstractContextManager[TeacherServer]:
    """The server in a thread of its own."""
    return answering(TeacherServer(mind, port, delay))
