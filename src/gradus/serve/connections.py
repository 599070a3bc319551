"""Connections that ask for nothing, or take nothing, are closed: uvicorn's protocol with bounds on both.

Of its own, uvicorn has a timer only behind a reply, and any byte ends it: who opens connections and says nothing, sends
a head a byte at a time, or asks and reads no reply, would fill the server.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0  # in which the head of a request has to be there
STALL_SECONDS = 60.0  # after which a client that takes nothing is given up


class BoundedProtocol(H11Protocol):
    """Closes a connection that is HEAD_SECONDS without a request to answer, from its opening or from a reply on, or
    STALL_SECONDS with something to take and takes nothing of it.

    While a request is answered nothing else is timed here, so that a stream lasts as long as it likes; uvicorn's
    shorter time without a byte behind a reply (keep-alive) holds as before.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Else what is below uvicorn's usual 64 KiB could wait unseen, for ever, also behind `close`.
        transport.set_write_buffer_limits(high=0)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._set_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_deadline()
        self._drop_stalled()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._drop_stalled()
        super().resume_writing()

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

    def _watch(self, num_bytes: int) -> None:
        """Look again later, when less than this has to wait."""
        self._drop_stalled()
        self._stalled = self.loop.call_later(STALL_SECONDS, self._look, num_bytes)

    def _look(self, before: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now < before:
            self._watch(now)
        else:
            self.transport.abort()

    def _drop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
