"""What a walk shows while it works: live bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from gradus.core.quantity import format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_EVERY_SECONDS = 10.0
Item = TypeVar("Item")


class Task(Protocol):
    """One piece of work whose advance is shown."""

    def update(
        self,
        done: float | None = None,
        *,
        advance: float | None = None,
        info: str = "",
        total: float | None = None,
    ) -> None:
        """Set how much is done (or advance by so much) and the figures shown beside it."""


Tick = Callable[[], None]


class Progress(Protocol):
    """Lines and tasks; see `live_progress`. tick: called at each update, so that a place can keep its clock."""

    tick: Tick | None

    def task(self, description: str, total: float | None = None, unit: str = "") -> Any:
        """A context manager that gives a Task and ends it."""

    def line(self, text: str) -> None:
        """One line of text above whatever is live."""


class QuietProgress:
    """Shows nothing."""

    def __init__(self) -> None:
        self.tick: Tick | None = None

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        yield _QuietTask(self)

    def line(self, text: str) -> None:
        """Say nothing."""


class _QuietTask:
    def __init__(self, progress: QuietProgress) -> None:
        self._progress = progress

    def update(
        self,
        done: float | None = None,
        *,
        advance: float | None = None,
        info: str = "",
        total: float | None = None,
    ) -> None:
        if self._progress.tick is not None:
            self._progress.tick()


class PlainProgress:
    """One line at the start, every ten seconds and at the end of a task: for logs and pipes."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.tick: Tick | None = None
        self._stream = stream

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        task = _PlainTask(self, description, total, unit)
        yield task
        task.finish()

    def line(self, text: str) -> None:
        """Write the text and flush, so that a log shows it at once."""
        print(text, file=self._stream or sys.stdout, flush=True)


class _PlainTask:
    def __init__(self, progress: PlainProgress, description: str, total: float | None, unit: str) -> None:
        self._progress, self._description, self._total, self._unit = progress, description, total, unit
        self._done = 0.0
        self._info = ""
        self._began = self._shown = time.monotonic()
        self._first: tuple[float, float] | None = None  # when something was done first, and how much

    def update(
        self,
        done: float | None = None,
        *,
        advance: float | None = None,
        info: str = "",
        total: float | None = None,
    ) -> None:
        self._done = done if done is not None else self._done + (advance or 0.0)
        self._total = total if total is not None else self._total
        self._info = info or self._info
        if self._first is None:
            self._first = (time.monotonic(), self._done)
        if self._progress.tick is not None:
            self._progress.tick()
        if time.monotonic() - self._shown >= PLAIN_EVERY_SECONDS:
            self._shown = time.monotonic()
            self._show(self._time_left())

    def finish(self) -> None:
        self._show(f" in {format_seconds(time.monotonic() - self._began)}")

    def _time_left(self) -> str:
        """By the rate since the first update: what a resumed task begins with was done by an earlier walk."""
        if not self._total or self._first is None or not self._first[1] < self._done < self._total:
            return ""
        since, before = self._first
        rate = (self._done - before) / (time.monotonic() - since)
        return f", about {format_seconds((self._total - self._done) / rate)} left"

    def _show(self, ending: str) -> None:
        unit = f" {self._unit}" if self._unit else ""
        of = f"/{format_count(self._total)}" if self._total else ""
        count = f" {format_count(self._done)}{of}{unit}" if self._done or self._total else ""
        info = f"  {self._info}" if self._info else ""
        self._progress.line(f"  {self._description}{count}{ending}{info}")


class LiveProgress:
    """rich bars on a terminal: description, bar, counts, figures, time left."""

    def __init__(self, console: Console) -> None:
        self.tick: Tick | None = None
        self._console = console

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[count]}"),
            TextColumn("[dim]{task.fields[info]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
        )
        with bars:
            task = _LiveTask(self, bars, bars.add_task(description, total=total, count="", info=""), unit)
            yield task
            task.finish()

    def line(self, text: str) -> None:
        """Print above the bars; the text is taken as it is, without markup."""
        self._console.print(text, markup=False, highlight=False)


class _LiveTask:
    def __init__(self, progress: LiveProgress, bars: Any, task_id: Any, unit: str) -> None:
        self._progress, self._bars, self._id, self._unit = progress, bars, task_id, unit
        self._done = 0.0
        self._info = ""

    def update(
        self,
        done: float | None = None,
        *,
        advance: float | None = None,
        info: str = "",
        total: float | None = None,
    ) -> None:
        self._done = done if done is not None else self._done + (advance or 0.0)
        self._info = info or self._info
        if total is not None:
            self._bars.update(self._id, total=total)
        known = self._bars.tasks[self._bars.task_ids.index(self._id)].total
        count = format_count(self._done) + (f"/{format_count(known)}" if known else "")
        unit = f" {self._unit}" if self._unit else ""
        self._bars.update(self._id, completed=self._done, count=count + unit, info=self._info)
        if self._progress.tick is not None:
            self._progress.tick()

    def finish(self) -> None:
        known = self._bars.tasks[self._bars.task_ids.index(self._id)].total
        self._bars.update(self._id, completed=known or self._done or 1, total=known or self._done or 1)


def live_progress() -> Progress:
    """Live bars where standard output is a terminal, plain lines where it is not."""
    if sys.stdout.isatty():
        from rich.console import Console

        return LiveProgress(Console())
    return PlainProgress()


def counted(items: Iterable[Item], task: Task, every: int = 64) -> Iterator[Item]:
    """The items unchanged, their number shown on the task as they pass."""
    number = 0
    for item in items:
        yield item
        number += 1
        if number % every == 0:
            task.update(number)
    task.update(number)
