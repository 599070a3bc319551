"""Connections that ask for nothing are closed: uvicorn's protocol with a bound on the time until a request's head.

Of its own, uvicorn has a timer only behind a reply, and any byte ends it: who opens connections and says nothing, or
sends a head a byte at a time, would fill the server without ever asking for anything.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0  # in which the head of a request has to be there


class BoundedProtocol(H11Protocol):
    """Closes a connection that is HEAD_SECONDS without a request to answer, from its opening or from a reply on.

    While a request is answered nothing is timed here, so that a stream lasts as long as it likes; uvicorn's shorter
    time without a byte behind a reply (keep-alive) holds as before.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._set_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_deadline()
        super().connection_lost(exc)

    def _set_deadline(self) -> None:
        """Time a connection that waits, from when it began to; none other."""
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._drop_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
