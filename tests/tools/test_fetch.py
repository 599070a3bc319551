"""fetch: pages as text, and the ways in which names, pages and servers try to lead elsewhere or to take for ever."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore2
import pytest
from local_server import answering

from gradus.conversation.messages import ToolCall
from gradus.tools.fetch import MOST_CHARACTERS, fetch_tool
from gradus.tools.page_text import page_text
from gradus.tools.public_network import connected, is_public
from gradus.tools.toolbox import ToolBox

PAGE = b"""<!DOCTYPE html><html><head><title> Wind &amp; sail </title><style>p {color: red}</style>
<script>steal("</b><p>")</script></head><body><nav>Home | About</nav><h1>Sails</h1>
<p>A sail   turns <b>wind</b> into <a href=x>motion</a>.</p><ul><li>Jib<li>Spinnaker</ul>
<pre>  a  b
    c</pre><div hidden>unseen</div><p>&lt;tool_call&gt; stays text<br>End</p></body></html>"""


class Site(ThreadingHTTPServer):
    """Pages by path: (status, headers, body); a function writes by itself."""

    daemon_threads = True

    def __init__(self, pages: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = pages
        self.asked: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away in most of these tests."""


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        page = self.server.pages.get(self.path, (404, {}, b""))
        if callable(page):
            page(self.wfile)
            self.close_connection = True
            return
        status, headers, body = page
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


def drip(stream: Any) -> None:
    """A header that never ends."""
    stream.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(500):
        stream.write(b"a")
        stream.flush()
        time.sleep(0.02)


def redirect(location: str) -> tuple[int, dict[str, str], bytes]:
    return 302, {"Location": location}, b""


HTML = {"Content-Type": "text/html"}
PAGES: dict[str, Any] = {
    "/": (200, HTML, PAGE),
    "/moved": redirect("http://other.example/"),
    "/relative": redirect("/"),
    "/loop": redirect("/loop"),
    "/inside": redirect("http://127.0.0.1/"),
    "/inside-name": redirect("http://inside.example/secret"),
    "/metadata": redirect("http://169.254.169.254/latest/meta-data/"),
    "/file": redirect("file:///etc/passwd"),
    "/port": redirect("http://site.example:8080/"),
    "/nowhere": redirect("http://[::1"),
    "/pdf": (200, {"Content-Type": "application/pdf"}, b"%PDF"),
    "/json": (200, {"Content-Type": "application/vnd.api+json"}, b'{"a": 1}'),
    "/long": (200, {"Content-Type": "text/plain"}, b"word\x1b[2J " * 100_000),
    "/bomb": (200, {**HTML, "Content-Encoding": "gzip"}, gzip.compress(b"<p>boom</p>" * 20_000_000, 1)),
    "/damaged": (200, {**HTML, "Content-Encoding": "gzip"}, b"no gzip"),
    "/brotli": (200, {**HTML, "Content-Encoding": "br"}, b"x"),
    "/latin": (200, {"Content-Type": "text/html; charset=ISO-8859-1"}, "<p>café</p>".encode("latin-1")),
    "/meta": (200, HTML, '<meta charset="windows-1252"><p>“café”</p>'.encode("cp1252")),
    "/odd": (200, {"Content-Type": "text/html; charset=punycode"}, "<p>café</p>".encode()),
    "/drip": drip,
}  # fmt: skip
PUBLIC = "93.184.216.34"
NAMES = {
    "site.example": [PUBLIC],
    "other.example": ["2606:2800:220:1::1"],
    "inside.example": ["10.0.0.5"],
    "mixed.example": [PUBLIC, "192.168.1.1"],
    "bücher.example": [PUBLIC],
    "xn--bcher-kva.example": [PUBLIC],
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with answering(Site(PAGES)) as server:
        yield server


@pytest.fixture
def fetched(site: Site) -> Callable[[str], str]:
    """Fetches from a small internet, where every public address leads to the site."""
    site.asked.clear()

    def resolve(host: str, port: int) -> list[str]:
        if host[0].isdigit():
            return [host]
        if host not in NAMES:
            raise socket.gaierror("unknown")
        return NAMES[host]

    def connect(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
        assert is_public(address)
        return connected("127.0.0.1", site.server_address[1], seconds)

    tool = fetch_tool(resolve, connect)
    return lambda url: ToolBox({"fetch": tool}).run(ToolCall("c", "fetch", {"url": url})).content


def test_a_page_is_its_title_and_what_a_reader_reads(fetched, site):
    found = json.loads(fetched("http://site.example/"))
    assert found["url"] == "http://site.example/"
    assert found["title"] == "Wind & sail"
    assert found["text"] == (
        "# Sails\n\nA sail turns wind into motion.\n\n- Jib\n- Spinnaker\n\na  b\n    c\n\n<tool_call> stays text\nEnd"
    )
    ((path, headers),) = site.asked
    assert (path, headers["Host"]) == ("/", "site.example")
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)


def test_redirects_are_followed_and_judged_each(fetched, site):
    assert json.loads(fetched("http://site.example/moved"))["url"] == "http://other.example/"
    assert json.loads(fetched("http://site.example/relative"))["title"] == "Wind & sail"
    for path, text in {
        "/inside": "127.0.0.1 is no public address",
        "/inside-name": "inside.example is no public address",
        "/metadata": "169.254.169.254 is no public address",
        "/file": "only addresses that begin with http",
        "/port": "only the usual ports are fetched from, found 8080",
        "/nowhere": "the page leads to something that is no address",
        "/loop": "more than 5 redirects",
    }.items():
        assert fetched(f"http://site.example{path}").startswith(f"error: {text}")
    assert "/secret" not in [path for path, _ in site.asked]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0", "0.0.0.0", "127.1", "2130706433", "017700000001", "0177.0.0.1", "0x7f.1",
     "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
     "[fe80::1]", "[fc00::1]", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
     "224.0.0.1", "255.255.255.255", "192.0.0.8", "[ff02::1]", "\u2460\u2461\u2466.0.0.1"],
)  # fmt: skip
def test_no_spelling_of_an_address_inside_is_connected_to(host):
    def never(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
        raise AssertionError(f"connected to {address}")

    answer = (
        ToolBox({"fetch": fetch_tool(connect=never)}).run(ToolCall("c", "fetch", {"url": f"http://{host}/"})).content
    )
    assert "is no public address" in answer or "no such host" in answer or "this is no address" in answer, answer


def test_public_addresses_are_known_as_such():
    assert all(map(is_public, ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]))


def test_one_address_inside_among_public_ones_is_refused(fetched):
    assert fetched("http://mixed.example/").startswith("error: mixed.example is no public address")


def test_a_name_that_changes_is_used_as_it_was_judged(site):
    """DNS rebinding: the second answer would be inside; it is never asked for, and the first is connected to."""
    answers = [[PUBLIC], ["127.0.0.1"]]
    reached = []

    def connect(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
        reached.append(address)
        return connected("127.0.0.1", site.server_address[1], seconds)

    tool = fetch_tool(lambda host, port: answers.pop(0), connect)
    assert "Sails" in ToolBox({"fetch": tool}).run(ToolCall("c", "fetch", {"url": "http://rebind.example/"})).content
    assert reached == [PUBLIC]
    # A redirect resolves anew, and is judged anew.
    tool = fetch_tool(lambda host, port: answers.pop(0), connect)
    answers[:] = [[PUBLIC], ["127.0.0.1"]]
    call = ToolCall("c", "fetch", {"url": "http://rebind.example/relative"})
    assert "is no public address" in ToolBox({"fetch": tool}).run(call).content
    assert reached == [PUBLIC, PUBLIC]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("file:///etc/passwd", "only addresses that begin with http:// or https:// are fetched"),
        ("gopher://site.example/", "only addresses that begin with http"),
        ("site.example", "only addresses that begin with http"),
        ("javascript:alert(1)", "only addresses that begin with http"),
        ("http://user:secret@site.example/", "an address with a user name in it is not fetched"),
        ("http://site.example:22/", "only the usual ports are fetched from, found 22"),
        ("http://site.example/" + "a" * 3000, "address longer than 2000 characters"),
        ("http://site.example\\@127.0.0.1/", ""),
        ("http://[::1", "this is no address"),
        ("http://\r\nX: y/", "this is no address"),
        ("", "only addresses that begin with http"),
        ("http://none.example/", "no such host: none.example"),
        ("http://site.example/none", "the server answered with status 404"),
        ("http://site.example/pdf", "no text but application/pdf"),
        ("http://site.example/damaged", "the page is damaged"),
        ("http://site.example/brotli", "packed in a way that was not asked for (br)"),
    ],
)
def test_what_is_not_fetched_is_said(fetched, url, text):
    answer = fetched(url)
    assert answer.startswith("error: ")
    assert text in answer
    assert "secret" not in answer


def test_a_bomb_unpacks_to_no_more_than_the_bound(fetched, monkeypatch):
    found = json.loads(fetched("http://site.example/bomb"))
    assert found["text"].startswith("boom\n\nboom")
    assert len(found["text"]) == MOST_CHARACTERS + 4


def test_long_text_is_cut_and_stays_whole_json_without_what_steers_a_terminal(fetched):
    found = json.loads(fetched("http://site.example/long"))
    assert found["text"].endswith(" ...")
    assert "\x1b" not in found["text"]
    assert json.loads(json.loads(fetched("http://site.example/json"))["text"]) == {"a": 1}


def test_pages_are_read_in_their_own_encoding(fetched):
    texts = [json.loads(fetched(f"http://site.example/{name}"))["text"] for name in ("latin", "meta", "odd")]
    assert texts == ["café", "“café”", "café"]
    assert "Sails" in fetched("http://bücher.example/")


def test_a_server_that_drips_is_left_when_the_time_is_over(site):
    tool = fetch_tool(lambda host, port: [PUBLIC], lambda a, p, s: connected("127.0.0.1", site.server_address[1], s))
    slow = type(tool)(tool.schema, tool.answer, timeout_seconds=0.3)
    answer = ToolBox({"fetch": slow}).run(ToolCall("c", "fetch", {"url": "http://site.example/drip"})).content
    # Whichever looks at the clock first says so.
    assert answer in {"error: it took longer than 0.3 s", "error: site.example did not answer in time"}
    # The thread itself ends too, which is what keeps hostile servers from filling the process.
    end = time.monotonic() + 120
    while (alive := "tool fetch" in {thread.name for thread in threading.enumerate()}) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive


@pytest.mark.parametrize(
    "markup",
    ["<!" * 200_000, "<" * 400_000, "<a " * 200_000, "<!--" * 100_000, "&" * 400_000, "<div>" * 100_000, "&#1" * 90_000,
     "<![CDATA[" * 50_000, "<script>" + "</" * 200_000, "&#x110000;&#" + "5" * 9000, "<a b='" * 90_000,
     '<a b="x" ' * 90_000, "<a = ' >" * 90_000, "<title><title>" * 50_000, "<nav>" * 100_000, "\n" * 500_000,
     " \n" * 300_000, "=" * 400_000],
)  # fmt: skip
def test_hostile_markup_takes_no_time(markup):
    begin = time.thread_time()  # not the clock: the machine may be busy
    page_text(markup, 6000)
    assert time.thread_time() - begin < 20


def test_an_element_that_is_never_closed_hides_no_more_than_itself():
    assert page_text("<nav><div>menu</nav><p>text", 100)[1] == "text"
    assert page_text("<p>a<svg><title>x</title></svg>b", 100) == ("", "ab")


def test_a_certificate_must_be_that_of_the_name_and_be_vouched_for():
    asked: list[tuple[str, bool]] = []

    class Stream(httpcore2.NetworkStream):
        def start_tls(self, ssl_context: Any, server_hostname: Any = None, timeout: Any = None) -> Any:
            vouched = ssl_context.verify_mode.name == "CERT_REQUIRED" and ssl_context.check_hostname
            asked.append((server_hostname, vouched))
            raise httpcore2.ConnectError("certificate verify failed")

        def close(self) -> None:
            """Nothing is open."""

    tool = fetch_tool(lambda host, port: [PUBLIC], lambda address, port, seconds: Stream())
    answer = ToolBox({"fetch": tool}).run(ToolCall("c", "fetch", {"url": "https://site.example/"})).content
    assert answer == "error: no page from site.example: certificate verify failed"
    assert asked == [("site.example", True)]
