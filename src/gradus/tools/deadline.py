"""How long a tool call may take, and whether anybody still waits for it; shared by the threads that care."""

from __future__ import annotations

import threading
import time

from gradus.core.errors import ToolError


class Deadline:
    """So many seconds from now, or earlier where it is cancelled."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Nobody waits any more: whoever asks for the seconds left is told to end."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def seconds_left(self) -> float:
        """More than 0. Errors: ToolError once the time is over or the call is cancelled."""
        if self.is_cancelled:
            raise ToolError("cancelled")
        left = self._end - time.monotonic()
        if left <= 0:
            raise ToolError(f"it took longer than {self.seconds:g} s")
        return left
