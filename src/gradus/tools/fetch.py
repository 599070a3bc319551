"""The tool fetch: an address of the public internet in, the title and text of the page out, as JSON that is whole.

Only http and https, on their usual ports; every connection, after each redirect too, goes through PublicNetwork.
No proxy, no cookies, no key of anybody is used. Size is bounded before and after unpacking, time as a whole.
"""

from __future__ import annotations

import json
import re
import ssl
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpcore2
import httpx2

from gradus.conversation.messages import ToolSchema
from gradus.core.errors import ToolError
from gradus.core.terminal import harmless
from gradus.tools.deadline import Deadline
from gradus.tools.page_text import page_text, tidy_text
from gradus.tools.public_network import Connect, PublicNetwork, Resolve, connected, resolved
from gradus.tools.toolbox import Tool
from gradus.tools.web_search import cut_address

FETCH = ToolSchema(
    "fetch",
    "Reads a web page and returns its title and text.",
    {
        "type": "object",
        "properties": {"url": {"type": "string", "description": "The address, beginning with https://."}},
        "required": ["url"],
    },
)
MOST_CHARACTERS = 6000
_MOST_BYTES = 1 << 21  # of a page, unpacked
_MOST_URL_CHARACTERS = 2000
_MOST_TITLE_CHARACTERS = 200
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_PORTS = {"http": 80, "https": 443}
_HTML = {"text/html", "application/xhtml+xml"}
_TEXT = re.compile(r"text/[\w.+-]+|application/(?:[\w.+-]+\+)?(?:json|xml|yaml|x-yaml|toml|javascript|x-ndjson)")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)
# Encodings of pages; others that Python has, such as punycode, take for ever on long text.
_CHARSETS = re.compile(
    r"utf-?(?:8|16|16le|16be|32)|(?:us-)?ascii|latin-?1|iso-8859-\d{1,2}|(?:windows-|cp)\d{3,4}|gb(?:k|2312|18030)|big5"
    r"|shift[_-]jis|euc-(?:jp|kr)|koi8-[ru]",
    re.IGNORECASE,
)
_HEADERS = [
    ("User-Agent", "gradus (a model's tool that reads pages)"),
    ("Accept", "text/html, text/plain, application/json;q=0.9, text/*;q=0.8"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Connection", "close"),
]


def fetch_tool(resolve: Resolve = resolved, connect: Connect = connected) -> Tool:
    """The tool; resolve and connect stand in for the network in tests."""

    def answer(arguments: Mapping[str, Any], deadline: Deadline) -> str:
        url, page = _followed(arguments["url"].strip(), deadline, resolve, connect)
        title, text = _text_of(page)
        # In JSON one character may take several; what is shown is cut before, so that the JSON stays whole.
        shown = harmless(text)[:MOST_CHARACTERS]
        result = {"url": cut_address(url), "title": harmless(title)[:_MOST_TITLE_CHARACTERS], "text": shown}
        if page.is_cut or len(text) > len(shown):
            result["text"] += " ..."
        return json.dumps(result, ensure_ascii=False)

    return Tool(FETCH, answer)


@dataclass(frozen=True)
class _Page:
    """kind: its content type, without parameters. is_cut: the rest was not read."""

    status: int
    kind: str
    charset: str
    location: str
    body: bytes
    is_cut: bool


def _followed(url: str, deadline: Deadline, resolve: Resolve, connect: Connect) -> tuple[str, _Page]:
    """The address where redirects end, and the page there."""
    for _ in range(_MOST_REDIRECTS + 1):
        parsed = _checked(url)
        page = _asked(parsed, deadline, PublicNetwork(deadline, resolve, connect))
        if page.status in _REDIRECTS and page.location:
            try:
                url = str(parsed.join(page.location))
            except (httpx2.InvalidURL, ValueError):
                raise ToolError("the page leads to something that is no address") from None
            continue
        if page.status >= 300:
            raise ToolError(f"the server answered with status {page.status}")
        return str(parsed), page
    raise ToolError(f"more than {_MOST_REDIRECTS} redirects")


def _checked(url: str) -> httpx2.URL:
    """An address that may be fetched."""
    if len(url) > _MOST_URL_CHARACTERS:
        raise ToolError(f"address longer than {_MOST_URL_CHARACTERS} characters")
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        raise ToolError("this is no address; expected one such as https://example.org/page") from None
    if parsed.scheme not in _PORTS or not parsed.host:
        raise ToolError("only addresses that begin with http:// or https:// are fetched")
    if parsed.userinfo:
        raise ToolError("an address with a user name in it is not fetched")
    if parsed.port not in {None, _PORTS[parsed.scheme]}:
        raise ToolError(f"only the usual ports are fetched from, found {parsed.port}")
    return parsed


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _asked(url: httpx2.URL, deadline: Deadline, network: PublicNetwork) -> _Page:
    """One request, no redirect followed."""
    scheme, host = url.raw_scheme, url.raw_host
    target = httpcore2.URL(scheme=scheme, host=host, port=_PORTS[url.scheme], target=url.raw_path)
    headers = [("Host", url.netloc.decode("ascii")), *_HEADERS]
    try:
        with (
            httpcore2.ConnectionPool(ssl_context=_trust(), network_backend=network) as pool,
            pool.stream("GET", target, headers=headers) as response,
        ):
            return _read(response, deadline)
    except httpcore2.TimeoutException:
        raise ToolError(f"{url.host} did not answer in time") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, OSError) as error:
        # OSError: certificates among them, which httpcore does not always wrap.
        raise ToolError(f"no page from {url.host}: {str(error)[:150] or type(error).__name__}") from None


def _read(response: httpcore2.Response, deadline: Deadline) -> _Page:
    fields = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    kind, _, parameters = fields.get(b"content-type", "text/plain").partition(";")
    charset = re.search(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", parameters)
    page = (response.status, kind.strip().lower(), charset[1] if charset else "", fields.get(b"location", ""))
    if response.status >= 300:
        return _Page(*page, b"", is_cut=False)
    if page[1] not in _HTML and not _TEXT.fullmatch(page[1]):
        raise ToolError(f"no text but {page[1][:60]}")
    body, is_cut = _unpacked(response.iter_stream(), fields.get(b"content-encoding", "").strip().lower(), deadline)
    return _Page(*page, body, is_cut)


def _unpacked(pieces: Iterable[bytes], encoding: str, deadline: Deadline) -> tuple[bytes, bool]:
    """At most _MOST_BYTES of the body, and whether there was more: no bomb unpacks to more than that."""
    if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise ToolError(f"packed in a way that was not asked for ({encoding[:40]})")
    # 32: with the header of gzip or zlib, whichever is there.
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding not in {"", "identity"} else None
    found = bytearray()
    for piece in pieces:
        deadline.seconds_left()
        room = _MOST_BYTES - len(found)
        try:
            found += piece[:room] if unpacker is None else unpacker.decompress(piece, room)
        except zlib.error:
            raise ToolError("the page is damaged (it cannot be unpacked)") from None
        if len(found) >= _MOST_BYTES:
            return bytes(found), True
        if unpacker is not None and unpacker.eof:
            break  # what follows is no part of the page, and would be kept by the unpacker
    return bytes(found), False


def _text_of(page: _Page) -> tuple[str, str]:
    """(title, text)."""
    charset = page.charset
    if not charset and page.kind in _HTML and (found := _CHARSET.search(page.body[:2048])):
        charset = found[1].decode("ascii")
    try:
        text = page.body.decode(charset if _CHARSETS.fullmatch(charset) else "utf-8", "replace")
    except LookupError:  # of the form of a name, and none that Python knows
        text = page.body.decode("utf-8", "replace")
    return page_text(text, MOST_CHARACTERS) if page.kind in _HTML else ("", tidy_text(text))
