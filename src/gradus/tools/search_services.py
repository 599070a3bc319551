"""Search on the web by a service: Tavily, Brave or a SearXNG of one's own, behind the function that web_search calls.

A reply that is no list of results is an error, never an empty success; so is an empty one that a SearXNG gives because
its engines did not answer. What a service found is data and goes on as it is, without the markup around it.
Sources: the services' API references; Tavily's also its client, tavily-python 0.8.
"""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2
from pydantic import Field, field_validator, model_validator

from gradus.core.errors import ToolError
from gradus.core.files import expand_path
from gradus.core.secrets import hidden_in, read_secret, redacted
from gradus.core.settings import Settings
from gradus.core.terminal import harmless
from gradus.tools.deadline import Deadline
from gradus.tools.endpoint_settings import check_key_is_safe, checked_address, checked_variable
from gradus.tools.search_index import Hit
from gradus.tools.web_search import Search

_MOST_BYTES = 1 << 22  # of a reply
_MOST_ATTEMPTS = 3
_MOST_WAIT_SECONDS = 4.0  # that a service may ask for before it is given up
_WAIT_SECONDS = 1.0
_BRAVE_MOST_WORDS = 50  # of a query; more are refused
_TAG = re.compile(r"</?[a-zA-Z][^>]{0,200}>")


class SearchServiceSettings(Settings):
    """service: which. base_url: of a SearXNG, or in place of the service's own address.

    key_variable: the environment variable that holds the key, where it is another than the service's usual one;
    key_file: a file of mode 0600 that does. timeout_seconds: of one attempt.
    """

    service: Literal["tavily", "brave", "searxng"]
    base_url: str | None = None
    key_variable: str | None = None
    key_file: str | None = None
    timeout_seconds: float = Field(default=10.0, gt=0.0)

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, base_url: str | None) -> str | None:
        return None if base_url is None else checked_address(base_url, "http://localhost:8888")

    @field_validator("key_variable")
    @classmethod
    def _names_no_key(cls, name: str | None) -> str | None:
        return checked_variable(name)

    @model_validator(mode="after")
    def _fits_together(self) -> SearchServiceSettings:
        if self.key_variable is not None and self.key_file is not None:
            raise ValueError("give either key_variable or key_file")
        if self.service == "searxng" and self.base_url is None:
            raise ValueError('a SearXNG has an address of its own; give base_url, such as "http://localhost:8888"')
        if self.base_url is not None and (self.service != "searxng" or self.key_variable or self.key_file):
            check_key_is_safe(self.base_url)
        return self


@dataclass(frozen=True)
class _Service:
    """How a service is asked: its address, its key's usual variable, the request, and the hits of its reply."""

    base_url: str
    key_variable: str | None
    request: Callable[[str, int, str | None], dict[str, Any]]
    hits: Callable[[Mapping[str, Any]], list[Hit]]


def search_service(settings: SearchServiceSettings, folder: Path) -> Search:
    """The search of a service; threads may share it. folder: where a relative key_file starts.

    Errors: ConfigError for a key that is not there.
    """
    service = _SERVICES[settings.service]
    variable = settings.key_variable or (None if settings.key_file else service.key_variable)
    key = read_secret(variable, expand_path(settings.key_file, folder) if settings.key_file else None)
    base_url = settings.base_url or service.base_url
    client = httpx2.Client(headers={"Accept": "application/json", "User-Agent": "gradus"})

    def search(query: str, limit: int, deadline: Deadline) -> Sequence[Hit]:
        request = service.request(query, limit, key)
        url = base_url + request.pop("path")
        reply = _reply(client, url, request, settings, deadline)
        try:
            return service.hits(reply)[:limit]
        except (KeyError, TypeError, AttributeError):
            raise ToolError(f"{settings.service} gave no list of results") from None

    return search


def _reply(
    client: httpx2.Client, url: str, request: dict[str, Any], settings: SearchServiceSettings, deadline: Deadline
) -> Mapping[str, Any]:
    """The decoded body of a good reply; a failure that may pass is tried again while there is time."""
    method = "POST" if "json" in request else "GET"
    fault, wait = "", 0.0
    for attempt in range(_MOST_ATTEMPTS):
        if attempt:
            if deadline.seconds_left() < 2 * wait:
                break
            time.sleep(wait)
        seconds = min(settings.timeout_seconds, deadline.seconds_left())
        try:
            with client.stream(method, url, timeout=seconds, **request) as response:
                body = _bounded(response, deadline)
        except httpx2.TimeoutException:
            fault, wait = f"no answer within {seconds:.0f} s", 0.0
            continue
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            fault, wait = f"no connection ({redacted(str(error))})", _WAIT_SECONDS
            continue
        status = response.status_code
        if status == 200:
            return _decoded(body, settings.service)
        fault = f"refused with status {status}{_told(body)}{_HINTS.get((settings.service, status), '')}"
        wait = _asked_wait(response.headers.get("Retry-After"))
        if not (status in {408, 429} or status >= 500) or wait > _MOST_WAIT_SECONDS:
            break
    raise ToolError(f"the search failed: {settings.service}: {fault}")


_HINTS = {
    ("searxng", 403): '; its settings.yml must list "json" among search.formats',
    ("tavily", 401): "; the key is wrong",
    ("tavily", 432): "; the plan's limit is reached",
    ("brave", 422): "; the key or the query is wrong",
}


def _asked_wait(value: str | None) -> float:
    try:
        return max(_WAIT_SECONDS, float(value or 0))
    except ValueError:  # a date
        return _WAIT_SECONDS


def _bounded(response: httpx2.Response, deadline: Deadline) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():
        deadline.seconds_left()
        body += piece
        if len(body) > _MOST_BYTES:
            raise ToolError("the search failed: its reply is too large")
    return bytes(body)


def _decoded(body: bytes, service: str) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ToolError(f"the search failed: {service}: the reply is no JSON object")
    return dict(hidden_in(found))


def _told(body: bytes) -> str:
    """What a refusal says, in brackets."""
    try:
        found = json.loads(body)
        detail = found.get("detail", found.get("error", ""))
        text = detail.get("error", detail.get("detail", "")) if isinstance(detail, dict) else detail
    except (ValueError, RecursionError, AttributeError):
        return ""
    return f" ({redacted(str(text))[:200]})" if text else ""


# The services


def _tavily_request(query: str, limit: int, key: str | None) -> dict[str, Any]:
    return {
        "path": "/search",
        "json": {"query": query, "max_results": limit, "search_depth": "basic"},
        "headers": {"Authorization": f"Bearer {key}"},
    }


def _tavily_hits(reply: Mapping[str, Any]) -> list[Hit]:
    return _hits(reply["results"], "content", is_markup=False)


def _brave_request(query: str, limit: int, key: str | None) -> dict[str, Any]:
    words = " ".join(query.split()[:_BRAVE_MOST_WORDS])
    return {
        "path": "/res/v1/web/search",
        "params": {"q": words, "count": str(limit), "result_filter": "web"},
        "headers": {"X-Subscription-Token": str(key)},
    }


def _brave_hits(reply: Mapping[str, Any]) -> list[Hit]:
    # Without a page that fits, a reply of type "search" has no part "web".
    if reply["type"] != "search":
        raise KeyError("type")
    return _hits(reply["web"]["results"] if "web" in reply else [], "description", is_markup=True)


def _searxng_request(query: str, limit: int, key: str | None) -> dict[str, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return {"path": "/search", "params": {"q": query, "format": "json"}, "headers": headers}


def _searxng_hits(reply: Mapping[str, Any]) -> list[Hit]:
    hits = _hits(reply["results"], "content", is_markup=True)
    silent = reply.get("unresponsive_engines") or []
    if not hits and silent:
        names = ", ".join(str(entry[0] if isinstance(entry, list) else entry) for entry in silent[:5])
        raise ToolError(f"the search failed: searxng: its engines did not answer ({names})")
    return hits


def _hits(results: Sequence[Mapping[str, Any]], text_key: str, *, is_markup: bool) -> list[Hit]:
    found = []
    for number, result in enumerate(results, start=1):
        texts = [str(result.get(key) or "") for key in ("title", text_key)]
        title, text = (html.unescape(_TAG.sub("", part)) for part in texts) if is_markup else texts
        found.append(Hit(harmless(title), harmless(str(result["url"])), harmless(text), number))
    return found


_SERVICES = {
    "tavily": _Service("https://api.tavily.com", "TAVILY_API_KEY", _tavily_request, _tavily_hits),
    "brave": _Service("https://api.search.brave.com", "BRAVE_SEARCH_API_KEY", _brave_request, _brave_hits),
    "searxng": _Service("", None, _searxng_request, _searxng_hits),
}
