"""What is refused before any path is looked at, what is allowed to pages of other sites, and what is counted of all.

A server without keys trusts whoever reaches it, so it answers only to names of its own: a web page that has its own
name point at the loopback address (DNS rebinding) sends that as Host, and a page of another site sends its Origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradus.serve.errors import ApiError, error_response

if TYPE_CHECKING:
    from gradus.serve.app import State

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_COUNTED = (
    "/", "/health", "/metrics", "/config.json", "/tokenize", "/v1/models", "/v1/chat/completions", "/v1/completions",
    "/v1/responses",
)  # fmt: skip


class Guard:
    """Middleware around everything."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin if origin in self._state.settings.origins else None

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._state.metrics.responded(_known_path(scope["path"]), message["status"])
                out = MutableHeaders(scope=message)
                out.append("X-Content-Type-Options", "nosniff")
                if allowed is not None:
                    out.append("Access-Control-Allow-Origin", allowed)
                    out.append("Vary", "Origin")
                    out.append("Access-Control-Expose-Headers", "Retry-After")
            await send(message)

        if scope["method"] == "OPTIONS" and allowed is not None:
            permits = {
                "Access-Control-Allow-Methods": "GET, POST",
                # Whichever it would send: clients in browsers have headers of their own (openai's x-stainless-*).
                "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "Content-Type"),
                "Access-Control-Max-Age": "600",
            }
            await Response(status_code=204, headers=permits)(scope, receive, counted)
            return
        try:
            fault = None if self._state.needs_key else self._fault(headers, origin, allowed)
        except ApiError as error:
            fault = error
        if fault is not None:
            await error_response(fault)(scope, receive, counted)
            return
        await self._app(scope, receive, counted)

    def _fault(self, headers: Headers, origin: str | None, allowed: str | None) -> ApiError | None:
        """Why a server without keys does not look at a request, None where it does."""
        names = (*LOOPBACK, *self._state.settings.hosts)
        host = host_name(headers.get("host", ""))
        if host not in names:
            return ApiError(
                421,
                f"this server does not answer to the name {host[:100]!r}: start it with --allow-host, or with keys",
                code="unknown_host",
            )
        if origin is not None and allowed is None and host_name(origin.partition("://")[2]) != host:
            return ApiError(
                403,
                f"pages of {origin[:100]!r} may not use this server: start it with --allow-origin",
                code="unknown_origin",
            )
        return None


def host_name(host: str) -> str:
    """The name in a Host header or an address's network part, without its port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _known_path(path: str) -> str:
    """A path as a label: those that there are, never what a client made up."""
    if path.startswith("/v1/models/"):
        return "/v1/models/NAME"
    return path if path in _COUNTED else "other"
