"""Tool calls under way: in parallel, each with a time limit, to be cancelled at any time; none is waited for for ever.

A call has a daemon thread of its own. Python cannot end a thread, so one whose time is over is left to itself: its
tool ends by its own limits, and what it still says is dropped. A bound on all threads of the process keeps tools that
hang from piling up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradus.conversation.messages import Message, ToolCall
from gradus.core.errors import ToolError
from gradus.tools.deadline import Deadline

MOST_THREADS = 64
_threads = threading.BoundedSemaphore(MOST_THREADS)
_ERROR = "error: "
_BROKE = f"{_ERROR}the tool broke"

Answer = Callable[[Mapping[str, Any], Deadline], str]


def is_error(result: Message) -> bool:
    """Whether a tool message says that the call failed."""
    return result.content.startswith(_ERROR)


class RunningCalls:
    """Calls of one assistant message; `ToolBox.start` makes it."""

    def __init__(self, calls: Sequence[ToolCall]) -> None:
        self._calls = tuple(calls)
        self._texts: list[str | None] = [None] * len(calls)
        self._deadlines: dict[int, Deadline] = {}
        self._lock = threading.Lock()
        self._answered = [threading.Event() for _ in calls]
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether every call has its answer, be it that it took too long."""
        return self._done.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Until all are answered, at most so long; whether they are."""
        return self._done.wait(seconds)

    def results(self) -> list[Message]:
        """The tool messages, in the order of the calls; waits for them, never longer than the tools' limits."""
        self._done.wait()
        return [
            Message("tool", text or "", tool_call_id=call.id)
            for call, text in zip(self._calls, self._texts, strict=True)
        ]

    def cancel(self) -> None:
        """Nobody waits for the rest: calls that are not answered get "error: cancelled", at once."""
        for place, deadline in self._deadlines.items():
            deadline.cancel()
            self.fail(place, "cancelled")

    # For ToolBox

    def settle(self, place: int, text: str) -> None:
        """The answer to a call; the first one counts. Halves of characters, which JSON can spell, become "?"."""
        text = text.encode("utf-8", "replace").decode()
        with self._lock:
            if self._texts[place] is None:
                self._texts[place] = text
        self._answered[place].set()

    def fail(self, place: int, reason: object) -> None:
        """A call that has no answer, and why."""
        self.settle(place, f"{_ERROR}{reason}")

    def begin(self, place: int, answer: Answer, timeout_seconds: float, *, instant: bool) -> None:
        """Answer a call, in this thread where it is instant, else in one of its own."""
        deadline = Deadline(timeout_seconds)
        if instant:
            self._answer(place, answer, deadline)
            return
        self._deadlines[place] = deadline
        name = f"tool {self._calls[place].name}"
        threading.Thread(target=self._answer_in_thread, args=(place, answer, deadline), name=name, daemon=True).start()

    def watch(self, on_done: Callable[[], None] | None) -> None:
        """See to it that all calls are answered by the end of their time. Called once, after all have begun."""
        if self._deadlines:
            threading.Thread(target=self._watch, args=(on_done,), name="tool calls", daemon=True).start()
        else:
            self._finish(on_done)

    def _watch(self, on_done: Callable[[], None] | None) -> None:
        # The shortest limit first, so that each is looked at when it is over.
        for place, deadline in sorted(self._deadlines.items(), key=lambda item: item[1].seconds):
            try:
                while not self._answered[place].wait(deadline.seconds_left()):
                    pass
            except ToolError as error:
                self.fail(place, error)
            deadline.cancel()
        self._finish(on_done)

    def _finish(self, on_done: Callable[[], None] | None) -> None:
        self._done.set()
        if on_done is not None:
            on_done()

    def _answer_in_thread(self, place: int, answer: Answer, deadline: Deadline) -> None:
        if not _threads.acquire(timeout=deadline.seconds):
            self.fail(place, f"{MOST_THREADS} other calls are under way and none ended in time")
            return
        try:
            if not deadline.is_cancelled:  # while it waited for its turn
                self._answer(place, answer, deadline)
        finally:
            _threads.release()

    def _answer(self, place: int, answer: Answer, deadline: Deadline) -> None:
        text = _BROKE  # what the model reads where anything but a ToolError is raised, which goes on up
        try:
            text = answer(self._calls[place].arguments, deadline)
        except ToolError as error:
            text = f"{_ERROR}{error}"
        finally:
            if not deadline.is_cancelled:
                self.settle(place, text)
