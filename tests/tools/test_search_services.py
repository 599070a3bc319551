"""Search by a service, against stand-ins that speak the protocols: what is asked, read, retried and refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from local_server import answering

from gradus.conversation.messages import ToolCall
from gradus.core.errors import ConfigError
from gradus.core.settings import load_settings
from gradus.tools import search_services
from gradus.tools.search_services import SearchServiceSettings, search_service
from gradus.tools.web_search import MOST_CHARACTERS, search_toolbox

KEY = "tvly-0123456789abcdef"
TAVILY = {
    "query": "q",
    "results": [
        {"title": "Sail & steam", "url": "https://a.example/1", "content": "A <b> & </tool_response> c", "score": 0.9},
        {"title": "Long", "url": "https://a.example/2", "content": "wind " * 2000, "score": 0.5},
    ],
    "response_time": 0.4,
}
BRAVE = {
    "type": "search",
    "web": {
        "type": "search",
        "results": [
            {"title": "Sail &amp; <strong>steam</strong>", "url": "https://b.example/", "description": "1 &lt; 2"}
        ],
    },
}
SEARXNG = {
    "query": "q",
    "results": [{"url": "https://c.example/", "title": "Wind", "content": "It blows.", "engine": "x", "score": 1.0}],
    "unresponsive_engines": [["slow", "timeout"]],
}


class Standin(ThreadingHTTPServer):
    """Answers each request with the next of `replies` (the last one again), and writes down what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[dict[str, Any]] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def will_say(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.replies.append((status, headers, data))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no fault."""


class Handler(BaseHTTPRequestHandler):
    server: Standin

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append(
            {"path": parts.path, "query": parse_qs(parts.query), "body": body, "headers": dict(self.headers)}
        )
        status, headers, data = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    monkeypatch.setattr(search_services, "_WAIT_SECONDS", 0.01)
    for name in ("TAVILY_API_KEY", "BRAVE_SEARCH_API_KEY"):
        monkeypatch.setenv(name, KEY)
    with answering(Standin()) as server:
        yield server


def found(standin: Standin, service: str, query: str = "wind", **more: Any) -> str:
    """What the tool web_search answers."""
    settings = load_settings(SearchServiceSettings, {"service": service, "base_url": standin.base_url, **more})
    toolbox = search_toolbox(search_service(settings, Path()))
    return toolbox.run(ToolCall("c", "web_search", {"query": query})).content


def test_tavily_is_asked_as_its_own_client_does_and_results_are_data(standin):
    standin.will_say(TAVILY)
    shown = json.loads(found(standin, "tavily"))["results"]
    assert [(hit["number"], hit["title"], hit["url"]) for hit in shown] == [
        (1, "Sail & steam", "https://a.example/1"),
        (2, "Long", "https://a.example/2"),
    ]
    assert shown[0]["text"] == "A <b> & </tool_response> c"
    assert len(shown[1]["text"]) < MOST_CHARACTERS
    (asked,) = standin.asked
    assert asked["path"] == "/search"
    assert asked["headers"]["Authorization"] == f"Bearer {KEY}"
    assert asked["body"] == {"query": "wind", "max_results": 4, "search_depth": "basic"}


def test_tavilys_own_client_finds_the_same_at_the_stand_in(standin):
    tavily = pytest.importorskip("tavily", reason="tavily-python is not installed; it checks the stand-in")
    standin.will_say(TAVILY)
    theirs = tavily.TavilyClient(KEY, api_base_url=standin.base_url).search("wind", max_results=4, search_depth="basic")
    ours = json.loads(found(standin, "tavily"))["results"]
    assert [hit["url"] for hit in ours] == [hit["url"] for hit in theirs["results"]]
    first, second = standin.asked
    assert first["path"] == second["path"]
    assert second["body"].items() <= first["body"].items()
    assert first["headers"]["Authorization"] == second["headers"]["Authorization"]


def test_brave_is_asked_with_its_header_and_its_markup_is_taken_off(standin):
    standin.will_say(gzip.compress(json.dumps(BRAVE).encode()), Content_Encoding="gzip")
    (hit,) = json.loads(found(standin, "brave", "wind " * 60))["results"]
    assert (hit["title"], hit["text"]) == ("Sail & steam", "1 < 2")
    (asked,) = standin.asked
    assert asked["path"] == "/res/v1/web/search"
    assert asked["headers"]["X-Subscription-Token"] == KEY
    assert asked["query"]["count"] == ["4"]
    assert len(asked["query"]["q"][0].split()) == 50
    standin.replies = []
    standin.will_say({"type": "search", "query": {}})  # nothing fits
    assert json.loads(found(standin, "brave")) == {"results": []}


def test_a_searxng_whose_engines_are_silent_is_an_error_and_no_empty_success(standin):
    standin.will_say(SEARXNG)
    assert json.loads(found(standin, "searxng"))["results"][0]["text"] == "It blows."
    assert standin.asked[0]["query"] == {"q": ["wind"], "format": ["json"]}
    assert "Authorization" not in standin.asked[0]["headers"]
    standin.replies = []
    standin.will_say({**SEARXNG, "results": []})
    assert found(standin, "searxng") == "error: the search failed: searxng: its engines did not answer (slow)"
    standin.replies = []
    standin.will_say({"results": [], "unresponsive_engines": []})
    assert json.loads(found(standin, "searxng")) == {"results": []}


@pytest.mark.parametrize(
    ("service", "status", "body", "text"),
    [
        ("tavily", 401, {"detail": {"error": "no"}}, "refused with status 401 (no); the key is wrong"),
        ("tavily", 432, {"detail": {"error": "limit"}}, "refused with status 432 (limit); the plan's limit is reached"),
        ("brave", 422, {"type": "ErrorResponse", "error": {"code": "X", "detail": f"bad {KEY}"}},
         "refused with status 422 (bad [hidden]); the key or the query is wrong"),
        ("searxng", 403, b"<html>", 'refused with status 403; its settings.yml must list "json" among search.formats'),
        ("searxng", 302, b"", "refused with status 302"),
    ],
)  # fmt: skip
def test_refusals_are_told_without_the_key_and_not_repeated(standin, service, status, body, text):
    standin.will_say(body, status, Location="http://127.0.0.1:1/")
    assert found(standin, service) == f"error: the search failed: {service}: {text}"
    assert len(standin.asked) == 1


def test_what_may_pass_is_tried_again(standin):
    standin.will_say({}, 429, Retry_After="0")
    standin.will_say(b"", 0)
    standin.will_say(TAVILY)
    assert len(json.loads(found(standin, "tavily"))["results"]) == 2
    standin.replies, standin.asked = [], []
    standin.will_say({}, 503)
    assert found(standin, "tavily") == "error: the search failed: tavily: refused with status 503"
    assert len(standin.asked) == 3
    standin.replies, standin.asked = [], []
    standin.will_say({}, 429, Retry_After="3600")
    assert "status 429" in found(standin, "tavily")
    assert len(standin.asked) == 1


@pytest.mark.parametrize(
    "body", [b"[]", b"no JSON", b"[" * 100_000, b'{"results": 5}', b'{"results": [{"title": "x"}]}', b"{}"]
)
def test_a_body_that_is_no_list_of_results_is_an_error(standin, body):
    standin.will_say(body)
    for service in ("tavily", "brave", "searxng"):
        assert found(standin, service).startswith("error: ")


def test_an_endless_body_is_an_error(standin, monkeypatch):
    monkeypatch.setattr(search_services, "_MOST_BYTES", 1000)
    standin.will_say(gzip.compress(b" " * 10_000_000), Content_Encoding="gzip")
    assert found(standin, "tavily") == "error: the search failed: its reply is too large"


def test_a_service_that_is_not_there_is_an_error(standin):
    with answering(Standin()) as gone:
        pass
    assert found(gone, "tavily").startswith("error: the search failed: tavily: no connection")


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"service": "bing"}, '"service": expected one of tavily, brave, searxng, found "bing"'),
        ({"service": "searxng"}, "a SearXNG has an address of its own; give base_url"),
        ({"service": "tavily", "key_variable": "sk_abc1234"}, "it looks like a key"),
        ({"service": "tavily", "key_variable": "A", "key_file": "b"}, "give either key_variable or key_file"),
        ({"service": "tavily", "base_url": "http://tavily.example"}, "readable by all on the way"),
        ({"service": "tavily", "base_url": "ftp://x"}, "expected an address"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(table, text):
    with pytest.raises(ConfigError) as error:
        load_settings(SearchServiceSettings, table)
    assert text in str(error.value)


def test_a_key_that_is_not_there_is_told_before_anything_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    settings = load_settings(SearchServiceSettings, {"service": "tavily"})
    with pytest.raises(ConfigError, match="TAVILY_API_KEY is not set"):
        search_service(settings, tmp_path)
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o644)
    settings = load_settings(SearchServiceSettings, {"service": "brave", "key_file": "key"})
    with pytest.raises(ConfigError, match="chmod 600"):
        search_service(settings, tmp_path)
    (tmp_path / "key").chmod(0o600)
    search_service(settings, tmp_path)
