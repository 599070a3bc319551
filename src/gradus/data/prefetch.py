"""Batches made ahead in a background thread, for any pure function of the step.

What comes out is what the function gives: a step out of turn (a rollback, a resume) only drops what was made ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """`batches(step)`, while the `ahead` steps after it are made; ends with its `with` block.

    Errors: what `batches` raises for a step is raised where that step is asked for.
    """

    def __init__(self, batches: Callable[[int], T], ahead: int = 4) -> None:
        self._batches, self._ahead = batches, ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._first = 0  # the step of the first future
        self._made: deque[Future[T]] = deque()

    def __call__(self, step: int) -> T:
        if step != self._first:
            self._drop()
            self._first = step
        while len(self._made) <= self._ahead:
            self._made.append(self._pool.submit(self._batches, step + len(self._made)))
        self._first += 1
        return self._made.popleft().result()

    def _drop(self) -> None:
        for future in self._made:
            future.cancel()
        self._made.clear()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *reason: object) -> None:
        self._drop()
        self._pool.shutdown()
