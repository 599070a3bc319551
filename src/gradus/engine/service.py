"""The engine as a service: one thread decodes for everybody, requests join and leave at every step.

Whoever asks gets typed events from that thread, `Done` or `Failed` last: nobody waits for ever. What goes wrong in
one request ends that request alone; what goes wrong in the model's step ends all that are live, and the thread goes on
with a new batch; where that cannot be had, as on a device that broke, the service is over.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import GenerationError, GradusError
from gradus.engine.batching import DecodeBatch
from gradus.engine.continuation import Beginning, Continuation, Continued
from gradus.engine.decoding import GreedyStream
from gradus.engine.engine import Engine
from gradus.engine.exactness import exact_row_tile
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.openmp import release_workers
from gradus.engine.prefix_cache import PrefixCache
from gradus.engine.sampling import Sampling
from gradus.engine.slots import CHUNK_TOKENS
from gradus.engine.turn import Reply, Request, StreamEvent, Turn

PREFIX_BYTES = 2**29

IDLE_SECONDS = 60.0
"""After which slots that grew give their memory back; what is kept for the next turn stays."""

T = TypeVar("T")


class QueueFullError(GenerationError):
    """As many requests wait as may."""


class ServiceClosedError(GenerationError):
    """The service takes no more requests."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer cannot be finished: its last event.

    error: why, a GradusError where the request itself ran into a bound (a schema that outgrew the grammar); only then
    num_prompt_tokens and num_tokens, what was read and sampled for it, are told, since what breaks here is no client's
    to pay for.
    """

    error: Exception
    num_prompt_tokens: int = 0
    num_tokens: int = 0


ServiceEvent = StreamEvent | Continued | Failed
"""What a request is told: of a `Request` a StreamEvent, of a `Beginning` a TextDelta or at last Continued."""

Deliver = Callable[[ServiceEvent], None]


@dataclass(frozen=True)
class ServiceStats:
    """num_live, num_waiting: requests now; the rest counts from the start.

    num_requests: taken; num_finished, num_cancelled, num_failed: how they ended; num_sampled_tokens, num_prompt_tokens:
    of all that got a slot; num_cached_tokens: of those prompts, found read. cache_bytes: memory of the slots' keys and
    values, all slots being as long as the longest was; most_cache_bytes: what that may grow to; prefix_bytes: memory of
    what was read and answered before.
    """

    num_slots: int
    num_live: int
    num_waiting: int
    num_requests: int
    num_finished: int
    num_cancelled: int
    num_failed: int
    num_sampled_tokens: int
    num_prompt_tokens: int
    num_cached_tokens: int
    cache_bytes: int
    most_cache_bytes: int
    prefix_bytes: int


class Ticket:
    """A request that was taken."""

    def __init__(self, service: EngineService, served: _Served) -> None:
        self._service, self._served = service, served

    def cancel(self) -> None:
        """Nobody wants the rest; from any thread, more than once. `Done` still comes, "cancelled" its reason."""
        self._served.unwanted = True
        self._service.wake()

    @property
    def num_cached_tokens(self) -> int:
        """Of the prompt, those that were found read."""
        return self._served.num_cached_tokens


class EngineService:
    """Answers requests until it is closed.

    Only its own thread touches the model; the engine is not to be used otherwise meanwhile.
    """

    def __init__(
        self, engine: Engine, *, num_slots: int = 8, max_waiting: int = 64, prefix_bytes: int = PREFIX_BYTES
    ) -> None:
        """num_slots: requests decoded at once; max_waiting: requests that may wait for one.

        prefix_bytes: memory for what was read and answered, so that the next prompt that begins alike begins sooner; 0
        for none. In fp32, without experts, what a request is answered depends on itself and num_slots alone.
        """
        self.engine = engine
        self.num_slots = num_slots
        self.max_waiting = max_waiting
        self._prefixes = PrefixCache(prefix_bytes)
        self._row_tile = exact_row_tile(engine.decoder, num_slots)
        self._reads_again = self._row_tile is not None and prefix_bytes > 0  # else answers are kept as written, or not
        self._changed = threading.Condition()
        # Guarded by `_changed`:
        self._waiting: deque[_Served] = deque()
        self._live: list[_Served] = []
        self._closing = False
        self._broken_by: Exception | None = None
        self._stirred = False  # something happened that the thread has not looked at
        self._counts = dict.fromkeys(("requests", "finished", "cancelled", "failed", "sampled", "prompt", "cached"), 0)
        # Of the thread alone: conversations that ended, and the one that it reads again.
        self._ended: deque[tuple[Reply, str]] = deque(maxlen=num_slots)
        self._again: GreedyStream | None = None
        self._batch = self._new_batch()
        release_workers()  # of who built the model and now only waits; the service's thread has its own
        self._thread = threading.Thread(target=self._run, name="gradus-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request | Beginning, deliver: Deliver, account: str = "") -> Ticket:
        """Queue a request; `deliver` is called from the service's thread with its events, and is not to block.

        request: a conversation to answer, or tokens to go on from. account: who asks; what was read before is found by
        the same one alone, so that how soon an answer comes tells nobody what others asked. Raises what `Engine.check`
        raises, QueueFullError and ServiceClosedError; then `deliver` is never called. It reads the prompt, which takes
        milliseconds where that is long: not for an event loop's own thread.
        """
        self._admit()
        if isinstance(request, Beginning):
            context = self.engine.context
            served = _Served(Continuation(request, self.engine.tokenizer, context), deliver, account)
        else:
            served = _Served(self.engine.open_turn(request, on_results=self.wake), deliver, account)
        with self._changed:
            self._admit()
            self._waiting.append(served)
            self._counts["requests"] += 1
        self.wake()
        return Ticket(self, served)

    def stats(self) -> ServiceStats:
        with self._changed:
            counts = self._counts
            sampled = sum(served.num_sampled for served in self._live)
            cached = sum(served.num_cached_tokens for served in self._live)
            return ServiceStats(
                num_slots=self.num_slots,
                num_live=len(self._live),
                num_waiting=len(self._waiting),
                num_requests=counts["requests"],
                num_finished=counts["finished"],
                num_cancelled=counts["cancelled"],
                num_failed=counts["failed"],
                num_sampled_tokens=counts["sampled"] + sampled,
                num_prompt_tokens=counts["prompt"],
                num_cached_tokens=counts["cached"] + cached,
                cache_bytes=self._batch.slots.num_bytes,
                most_cache_bytes=self._batch.slots.most_bytes,
                prefix_bytes=self._prefixes.num_bytes,
            )

    def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more requests, wait so long for those that were taken, cancel the rest; returns when all ended."""
        deadline = time.monotonic() + drain_seconds
        with self._changed:
            self._closing = True
            while (self._waiting or self._live) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            for served in (*self._waiting, *self._live):
                served.unwanted = True
        self.wake()
        self._thread.join()

    def wake(self) -> None:
        """Have the thread look at what changed."""
        with self._changed:
            self._stirred = True
            self._changed.notify_all()

    @property
    def is_broken(self) -> bool:
        """Whether its thread ended without being told to: it answers nothing until it is started anew."""
        return self._broken_by is not None

    @property
    def _is_over(self) -> bool:
        return self._closing and self._is_idle

    @property
    def _is_idle(self) -> bool:
        return not self._waiting and not self._live

    def _admit(self) -> None:
        if self._broken_by is not None:
            kind = type(self._broken_by).__name__
            raise ServiceClosedError(f"the engine broke ({kind}) and takes no more requests; start it again")
        if self._closing:
            raise ServiceClosedError("the service is shutting down and takes no more requests")
        # Who finds a free slot waits only for the thread to look.
        if len(self._waiting) + len(self._live) >= self.num_slots + self.max_waiting:
            raise QueueFullError(
                f"{len(self._waiting)} requests wait for one of {self.num_slots} slots, as many as may; "
                "try again in a while"
            )

    def _new_batch(self) -> DecodeBatch:
        engine = self.engine
        return DecodeBatch(
            engine.decoder,
            self.num_slots,
            engine.tokenizer.vocab_size,
            row_tile=self._row_tile,
            prefixes=self._prefixes if self._prefixes.max_bytes else None,
        )

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 (told to everybody: nobody is there to serve them)
            with self._changed:
                self._closing, self._broken_by = True, error
            for served in (*self._waiting, *self._live):
                served.fail(error)
            self._settle()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._stirred and not self._is_over:
                    idle_seconds = IDLE_SECONDS if self._batch.slots.is_grown and not self._live else None
                    if not self._changed.wait(idle_seconds) and not self._stirred:
                        self._batch = self._new_batch()  # the grown one's memory goes back
                if self._is_over:
                    return
                self._stirred = False
                taken = (*self._waiting, *self._live)
            for served in taken:
                if served.unwanted:
                    served.cancel()
            self._settle()
            self._read_again()
            with self._changed:
                entering = [self._waiting.popleft() for _ in range(min(self._batch.num_free, len(self._waiting)))]
                self._live += entering
                self._counts["prompt"] += sum(len(served.prompt_ids) for served in entering)
            self._advance(entering)
            self._settle()
            can_read_again = self._ended and self._is_idle
            if self._batch.can_step or (self._waiting and self._batch.num_free) or can_read_again:
                self.wake()

    def _read_again(self) -> None:
        """While nobody asks, have an exact batch read what it answered, so that the next turn finds that too.

        In chunks, as any prompt: what was sampled was worked out in other products.
        """
        if not self._is_idle:
            if self._again is not None:
                self._again.finished = True
                self._batch.drop_finished()
                self._again = None
        elif self._ended and not self._batch.num_live:
            reply, account = self._ended.pop()
            ids = (*reply.prompt_ids, *reply.ids[:-1])  # nothing was read of the last one
            whole = len(ids) - len(ids) % CHUNK_TOKENS
            if whole > len(reply.prompt_ids) - len(reply.prompt_ids) % CHUNK_TOKENS:
                self._again = GreedyStream(ids[:whole], 1)
                self._batch.enter(self._again, account)

    def _advance(self, entering: Sequence[_Served]) -> None:
        """One step of the model for everybody."""
        try:
            for served in entering:
                self._batch.enter(served, served.account)
            self._batch.step()
        except Exception as error:  # noqa: BLE001 (told to all whose step it was, and the thread goes on)
            for served in self._live:
                served.fail(error)
            self._batch, self._again = self._new_batch(), None

    def _settle(self) -> None:
        """Deliver what happened; what is over leaves."""
        with self._changed:
            taken = (*self._live, *self._waiting)
        for served in taken:
            served.deliver_events()
        with self._changed:
            over = [served for served in (*self._live, *self._waiting) if served.finished]
            if not over:
                return
            self._live = [served for served in self._live if not served.finished]
            self._waiting = deque(served for served in self._waiting if not served.finished)
            for served in over:
                if served.ending == "finished" and isinstance(served.turn, Turn) and self._reads_again:
                    self._ended.append((served.turn.reply(), served.account))
                self._counts[served.ending] += 1
                self._counts["sampled"] += served.num_sampled
                self._counts["cached"] += served.num_cached_tokens
            self._changed.notify_all()


class _Served:
    """A turn or continuation in the batch, whose own failures end it alone; a TokenStream."""

    def __init__(self, turn: Turn | Continuation, deliver: Deliver, account: str) -> None:
        self.turn = turn
        self.account = account
        self.prompt_ids: Sequence[int] = turn.prompt_ids
        self.sampling: Sampling = turn.sampling
        self.num_logprobs = turn.num_logprobs
        self.num_cached_tokens = 0
        self.unwanted = False
        self._deliver = deliver
        self._failure: Exception | None = None
        self._is_deaf = False

    @property
    def forced(self) -> deque[int]:
        return self.turn.forced

    @property
    def num_sampled(self) -> int:
        return self.turn.num_sampled

    @property
    def finished(self) -> bool:
        return self.turn.finished or self._failure is not None

    @property
    def ending(self) -> str:
        """How it is counted, once finished."""
        if self._failure is not None:
            return "failed"
        return "cancelled" if self.turn.finish_reason == "cancelled" else "finished"

    def waits(self) -> bool:
        return bool(self._guarded(self.turn.waits))

    def allowed(self) -> NDArray[np.bool_] | None:
        return self._guarded(self.turn.allowed)

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        self._guarded(lambda: self.turn.push(token, logprobs))

    def run_out(self) -> None:
        self._guarded(self.turn.run_out)

    def cancel(self) -> None:
        self._guarded(self.turn.cancel)

    def fail(self, error: Exception) -> None:
        """End it with this error, which is none of its own, unless it is over."""
        self._fail(Failed(error))

    def _fail(self, last: Failed) -> None:
        if not self.finished:
            self.deliver_events()
            self._failure = last.error
            self._tell(last)

    def deliver_events(self) -> None:
        for event in self.turn.take_events():
            self._tell(event)

    def _guarded(self, act: Callable[[], T]) -> T | None:
        """What the turn says; None once it is over, be it by this."""
        if self.finished:
            return None
        try:
            return act()
        except GradusError as error:
            self._fail(Failed(error, len(self.prompt_ids), self.num_sampled))
            return None
        except Exception as error:  # noqa: BLE001 (told to whose request it is)
            self.fail(error)
            return None

    def _tell(self, event: ServiceEvent) -> None:
        if self._is_deaf:
            return
        try:
            self._deliver(event)
        except Exception as error:  # noqa: BLE001 (who cannot listen is told no more)
            self._is_deaf = True
            self._failure = self._failure or error
