"""From the engine's thread to the event loop: requests in, their events out, cancelled when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.types import Receive

from gradus.core.errors import GenerationError
from gradus.engine.continuation import Beginning, Continued
from gradus.engine.service import EngineService, Failed, ServiceEvent, Ticket
from gradus.engine.turn import Done, Request
from gradus.serve.tally import Tally

_SETTLE_SECONDS = 30.0  # a cancelled answer ends at the engine's next step

Result = TypeVar("Result")


class ClientGoneError(Exception):
    """Nobody is there to take the reply."""


class CutOffError(GenerationError):
    """The engine ended an answer that somebody waits for: the server ends, or another model takes its place."""


class Answers:
    """The events of several requests as they come, each with the number of its request."""

    def __init__(self, tally: Tally) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, ServiceEvent]] = asyncio.Queue()
        self._tickets: list[Ticket] = []
        self._num_open = 0
        self._unwanted = False
        self._tally = tally

    def submit(self, service: EngineService, requests: Sequence[Request | Beginning], account: str) -> None:
        """Queue the requests; for a thread, since their prompts are encoded here. Raises what the service does."""
        for place, request in enumerate(requests):
            ticket = service.submit(request, self._deliver_to(place), account)
            self._num_open += 1
            self._tickets.append(ticket)
            if self._unwanted:
                self.cancel()

    def _deliver_to(self, place: int) -> Callable[[ServiceEvent], None]:
        def deliver(event: ServiceEvent) -> None:
            self._loop.call_soon_threadsafe(self._events.put_nowait, (place, event))

        return deliver

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self._unwanted = True
        for ticket in list(self._tickets):
            ticket.cancel()

    async def next(self, wait_seconds: float) -> tuple[int, ServiceEvent] | None:
        """The next event; None where none came in that time. Raises what an answer failed by."""
        try:
            async with asyncio.timeout(wait_seconds):
                place, event = await self._events.get()
        except TimeoutError:
            return None
        self._tally.heard()
        if isinstance(event, Failed):
            self._num_open -= 1
            if event.num_prompt_tokens:
                self._tally.ended(place, event.num_prompt_tokens, event.num_tokens)
            raise event.error
        if isinstance(event, Done | Continued):
            self._num_open -= 1
            end = event.reply if isinstance(event, Done) else event
            self._tally.ended(place, end.num_prompt_tokens, end.num_tokens)
            if end.finish_reason == "cancelled" and not self._unwanted:
                raise CutOffError("the answer was cut off: the server ends, or another model takes its place")
        return place, event

    @property
    def are_whole(self) -> bool:
        return self._num_open == 0

    async def settle(self) -> None:
        """Wait for the ends of cancelled answers: what they took is counted all the same."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _SETTLE_SECONDS
        while not self.are_whole and loop.time() < until:
            try:
                await self.next(until - loop.time())
            except Exception:  # noqa: BLE001, S112 (whatever it failed by, nobody is there to be told)
                continue


@asynccontextmanager
async def answers_of(
    service: EngineService, requests: Sequence[Request | Beginning], tally: Tally, account: str = ""
) -> AsyncIterator[Answers]:
    """The answers in the making; however the block ends, the engine works on none of them afterwards.

    account: who asks, and alone finds again what was read for it.
    """
    answers = Answers(tally)
    try:
        await asyncio.to_thread(answers.submit, service, requests, account)
        yield answers
    finally:
        answers.cancel()
        await answers.settle()


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work returns; it is cancelled when the client goes away. Errors: ClientGoneError."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
