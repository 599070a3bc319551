"""`gradus watch --page`: the report as a live page of this machine, read-only.

Only loopback is listened on, only two addresses answer and only to GET and HEAD, each behind a secret in its path, and
only where the browser asks for this machine by name, so that no page of the web can read it by way of its visitor.
"""

from __future__ import annotations

import http.server
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from gradus.core.errors import ConfigError, GradusError
from gradus.roadmap.report import report_page, script_json
from gradus.roadmap.report_data import report_data
from gradus.roadmap.watching import Watcher

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_FRESH_SECONDS = 1.0  # a look is shared by all who ask within
_REQUEST_SECONDS = 30.0
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


def serve_page(folder: Path, port: int) -> None:
    """Serve the run until the user stops it. Errors: ArtifactError for no run, ConfigError for a port that is taken."""
    server, address = page_server(folder, port)
    typer.echo(f"{address}\n(for this machine alone; Ctrl-C ends it, the walk goes on)")
    try:
        server.serve_forever()
    finally:
        server.server_close()


def page_server(folder: Path, port: int = 0) -> tuple[http.server.ThreadingHTTPServer, str]:
    """(a server that is bound and not yet serving, the page's address)."""
    look = _Looks(folder)
    look.data()
    secret = secrets.token_urlsafe(16)
    pages: dict[str, tuple[str, Callable[[], str]]] = {
        f"/{secret}/": ("text/html; charset=utf-8", lambda: report_page(look.data())),
        f"/{secret}/data.json": ("application/json", lambda: script_json(look.data())),
    }
    try:
        server = http.server.ThreadingHTTPServer((HOST, port), _handler(pages))
    except OSError as error:
        raise ConfigError(f"port {port} of {HOST}: {error.strerror}; choose another with --port") from error
    server.daemon_threads = True
    return server, f"http://{HOST}:{server.server_address[1]}/{secret}/"


class _Looks:
    """The report's data with how the walk stands, looked up at most once a second."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._watcher = folder, Watcher(folder)
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._data: dict[str, Any] = {}

    def data(self) -> Mapping[str, Any]:
        with self._lock:
            if time.monotonic() - self._at >= _FRESH_SECONDS:
                now = self._watcher.look()
                live = asdict(now)
                if live["training"] is not None:
                    # The page has the whole curve and all samples besides.
                    live["training"] |= {"losses": [], "samples": []}
                self._data = report_data(self._folder) | {"live": live}
                self._at = time.monotonic()
            return self._data


def _handler(
    pages: Mapping[str, tuple[str, Callable[[], str]]],
) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS
        server_version, sys_version = "gradus", ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            name = self.headers.get("Host", "").rpartition(":")[0]
            if name not in _NAMES or self.path not in pages:
                self._send(404, "text/plain; charset=utf-8", b"nothing here\n", with_body)
                return
            kind, make = pages[self.path]
            try:
                body = make()
            except (GradusError, OSError, ValueError) as error:
                # Also what the walk moves or writes while it is read; the page asks again.
                self._send(503, "text/plain; charset=utf-8", f"{error}\n".encode(), with_body)
                return
            self._send(200, kind, body.encode("utf-8"), with_body)

        def _send(self, status: int, kind: str, body: bytes, with_body: bool) -> None:
            self.send_response(status)
            for key, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | _HEADERS).items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                # The reader may close the page meanwhile.
                with suppress(ConnectionError, TimeoutError):
                    self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:
            """The terminal is for the user."""

    return Handler
