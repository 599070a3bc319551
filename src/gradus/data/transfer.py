"""HTTP that outlives a bad connection: retries with backoff, and a token that goes to one server alone.

What is tried again: refused and dropped connections, silence, 408, 425, 429 and 5xx, bodies cut short. The wait
doubles from one second to a minute with jitter; Retry-After and RateLimit (IETF draft-ietf-httpapi-ratelimit-headers)
are obeyed. A transfer that advances may go on for ever; one that does not gives up after `MOST_FAILURES` in a row.
Messages never hold a header, or the query of an address, which may be a signature.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from gradus.core.errors import DataError
from gradus.core.quantity import format_bytes, format_seconds

MOST_FAILURES = 8
_FIRST_WAIT_SECONDS = 1.0
_MOST_WAIT_SECONDS = 60.0
# A server that asks for a longer pause than this is not waited for.
_MOST_ASKED_SECONDS = 900.0
# To connect, and between two pieces of an answer.
_TIMEOUT_SECONDS = (10.0, 60.0)
_MOST_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
_DROPPED = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
_sleep = time.sleep  # tests do not wait


class StatusError(DataError):
    """A server's refusal. status: the HTTP status; code: the Hub's X-Error-Code, or ''."""

    def __init__(self, message: str, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class UnreachableError(DataError):
    """A server that could not be reached, or that failed every time."""


class Patience:
    """How often something failed in a row, and how long to wait before it is tried again."""

    def __init__(
        self, what: str, most_failures: float = MOST_FAILURES, sleep: Callable[[float], object] | None = None
    ) -> None:
        """sleep: what to wait with, for one who may be woken."""
        self._what = what
        self._most = most_failures
        self._sleep = sleep
        self._failures = 0

    def advanced(self) -> None:
        """Something arrived: earlier failures no longer count."""
        self._failures = 0

    def failed(self, problem: str, asked_seconds: float | None = None) -> None:
        """Wait, or raise UnreachableError where it failed too often. asked_seconds: the pause a server asks for."""
        self._failures += 1
        if asked_seconds is not None and asked_seconds > _MOST_ASKED_SECONDS:
            raise UnreachableError(
                f"{self._what}: {problem}; the server asks to wait {format_seconds(asked_seconds)}: run the same "
                "command again then"
            )
        if self._failures > self._most:
            times = "" if self._failures == 1 else f", {self._failures} times in a row"
            raise UnreachableError(
                f"{self._what}: {problem}{times}; check the connection and run the same command again"
            )
        wait = min(_FIRST_WAIT_SECONDS * 2.0 ** (self._failures - 1), _MOST_WAIT_SECONDS)
        (self._sleep or _sleep)(max(asked_seconds or 0.0, wait * random.uniform(0.75, 1.25)))


class Connection:
    """A session with HTTP servers, of one thread and process.

    token: sent to `token_origin` ("https://host:port") and nowhere else, whatever redirects say.
    """

    def __init__(
        self, token: str | None = None, token_origin: str | None = None, most_failures: int = MOST_FAILURES
    ) -> None:
        self._session = requests.Session()
        # Else the session takes a password for the host from ~/.netrc.
        self._session.auth = _no_authentication
        self._token = token
        self._token_origin = token_origin
        self._most_failures = most_failures

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the session's sockets."""
        self._session.close()

    def patience(self, what: str) -> Patience:
        """Patience for one transfer, as much as this connection has."""
        return Patience(what, self._most_failures)

    def send(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[requests.Response, str]:
        """One attempt at a GET: (the answer with its body unread, the address it came from).

        Errors: StatusError for a refusal, DroppedError for what is worth another attempt, DataError for an
        address that is none.
        """
        try:
            response, at = self._follow(url, {"Accept-Encoding": "identity", **(headers or {})})
        except _DROPPED as error:
            if isinstance(error, ValueError):  # an address without a scheme or with a bad one
                raise DataError(f"{plain_address(url)}: not an address that can be fetched") from None
            raise DroppedError(drop_reason(error)) from None
        status = response.status_code
        if status in {200, 206}:
            return response, at
        code = response.headers.get("X-Error-Code", "")
        asked = _asked_seconds(response.headers)
        response.close()
        if status in {408, 425, 429} or status >= 500:
            raise DroppedError(f"the server answered {status}", asked)
        raise StatusError(f"{plain_address(url)}: the server answered {status}", status, code)

    def _follow(self, url: str, headers: Mapping[str, str]) -> tuple[requests.Response, str]:
        at = url
        for _ in range(_MOST_REDIRECTS):
            sent = dict(headers)
            if self._token is not None and origin(at) == self._token_origin:
                sent["Authorization"] = f"Bearer {self._token}"
            response = self._session.get(at, headers=sent, stream=True, timeout=_TIMEOUT_SECONDS, allow_redirects=False)
            if response.status_code not in _REDIRECTS:
                return response, at
            at = urljoin(at, response.headers.get("Location", ""))
            response.close()
        raise DataError(f"{plain_address(url)}: redirected more than {_MOST_REDIRECTS} times")

    def fetch(self, url: str, what: str, most_bytes: int) -> tuple[bytes, requests.Response]:
        """A whole small body and its answer. Errors: StatusError, UnreachableError; DataError where it is larger."""
        patience = self.patience(what)
        while True:
            try:
                response, _ = self.send(url)
                with response:
                    return read_body(response, what, most_bytes), response
            except DroppedError as error:
                patience.failed(str(error), error.asked_seconds)

    def fetch_json(self, url: str, what: str, most_bytes: int = 1 << 28) -> tuple[Any, str | None]:
        """(the JSON value, the address of the next page or None)."""
        body, response = self.fetch(url, what, most_bytes)
        try:
            value = json.loads(body)
        except ValueError:
            raise DataError(f"{what}: {plain_address(url)} did not answer with JSON; is it a Hub?") from None
        following = response.links.get("next", {}).get("url")
        return value, urljoin(url, following) if following else None


class DroppedError(Exception):
    """An attempt that failed in a way worth another one; asked_seconds: the pause the server asked for."""

    def __init__(self, problem: str, asked_seconds: float | None = None) -> None:
        super().__init__(problem)
        self.asked_seconds = asked_seconds


def read_body(response: requests.Response, what: str, most_bytes: int) -> bytes:
    """The whole body. Errors: DroppedError where it is cut short, DataError where it is larger than `most_bytes`."""
    pieces, size = [], 0
    read = body_reader(response)
    while piece := read(1 << 20):
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise DataError(f"{what}: {plain_address(response.url)} has more than {format_bytes(most_bytes)}")
    return b"".join(pieces)


def body_reader(response: requests.Response) -> Callable[[int], bytes]:
    """A function that reads at most so many bytes of the body, b"" at its end; DroppedError where it is cut short."""

    def read(size: int) -> bytes:
        try:
            return bytes(response.raw.read(size, decode_content=False))
        except _DROPPED as error:
            raise DroppedError(drop_reason(error)) from None

    return read


def drop_reason(error: BaseException) -> str:
    """Why an attempt failed, in words that hold nothing of the request."""
    names = {type(e).__name__ for e in _causes(error)}
    if names & {"NameResolutionError", "gaierror"}:
        return "the server's name cannot be resolved"
    if names & {"ConnectTimeout", "ConnectTimeoutError", "ReadTimeout", "ReadTimeoutError", "TimeoutError"}:
        return "the server was silent for too long"
    if names & {"SSLError", "SSLCertVerificationError"}:
        return "no secure connection to the server could be made"
    if names & {"ConnectionRefusedError", "NewConnectionError"}:
        return "the server cannot be reached"
    if names & {"IncompleteRead", "ChunkedEncodingError"}:
        return "the answer was cut short"
    return f"the connection was dropped ({type(error).__name__})"


def _causes(error: BaseException) -> list[BaseException]:
    """The error and everything wrapped in it."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < 16:
        at = waiting.pop()
        found.append(at)
        inner = [at.__cause__, at.__context__, getattr(at, "reason", None), *at.args]
        waiting += [e for e in inner if isinstance(e, BaseException) and e not in found]
    return found


def _asked_seconds(headers: Mapping[str, str]) -> float | None:
    """The pause that an answer asks for: Retry-After (seconds or a date), else the reset of RateLimit."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            return None
    reset = re.search(r"\br=0\b.*\bt=(\d+)", headers.get("RateLimit", "").replace(" ", ""))
    return float(reset[1]) if reset else None


def origin(url: str) -> str:
    """Scheme, host and port, such as "https://example.org:443"."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or {'http': 80, 'https': 443}.get(parts.scheme, 0)}"


def plain_address(url: str) -> str:
    """An address for messages: without user, query and fragment."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _no_authentication(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
