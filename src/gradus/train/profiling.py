"""Profiles of some training steps, on request and on SIGUSR1, while the run goes on.

A profile is a trace that chrome://tracing and ui.perfetto.dev open, and a table of the most expensive operations.
Steps are watched from where their batches are asked for, so the training loop knows nothing of it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")

SIGNAL_STEPS = 20  # what a signal asks for, where the author has not said how many
_WARM_STEPS = 3  # the first steps load libraries and grow caches; they are no steps like the others
_TABLE_ROWS = 40


class StepProfiler:
    """Profiles `steps` steps: those after the first few where `at_once`, and again after each `request`.

    folder: where to; made when there is something to write. say: called with a sentence when a profile begins, is
    written or cannot be had.
    """

    def __init__(
        self, folder: Path, steps: int, *, at_once: bool, device: torch.device, say: Callable[[str], None]
    ) -> None:
        self._folder, self._steps, self._say, self._device = folder, steps, say, device
        self._wait = _WARM_STEPS if at_once else None
        self._requested = False
        self._profile: Any = None
        self._first = self._done = 0  # the step it began with, and how many have begun since

    def request(self) -> None:
        """Profile from the next step on; nothing where a profile is going on."""
        self._requested = True

    def watched(self, batches: Callable[[int], T]) -> Callable[[int], T]:
        """The same batches; asking for those of a step tells that the step before is over."""

        def ask(step: int) -> T:
            self._step_begins(step)
            return batches(step)

        return ask

    def _step_begins(self, step: int) -> None:
        if self._profile is not None and self._done == self._steps:
            self.end()
        if self._wait == 0:
            self._requested, self._wait = True, None
        elif self._wait is not None:
            self._wait -= 1
        if self._requested and self._profile is None:
            self._requested = False
            self._begin(step)
        self._done += 1

    def _begin(self, step: int) -> None:
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        begun = profile(activities=activities)
        try:
            begun.start()
        except RuntimeError as error:
            self._say(f"  no profile: {error}")
            return
        self._profile, self._first, self._done = begun, step, 0
        self._say(f"  profiling {self._steps} steps from step {step + 1}")

    def end(self) -> None:
        """Write what was profiled, if anything; also at the end of a run that has fewer steps."""
        if self._profile is None:
            return
        ended, self._profile = self._profile, None
        name = f"steps-{self._first + 1:06d}-{self._first + self._done:06d}"
        try:
            ended.stop()
            self._folder.mkdir(parents=True, exist_ok=True)
            trace = self._folder / f"{name}.json.gz"
            ended.export_chrome_trace(str(trace))
            key = "self_cuda_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
            table = ended.key_averages().table(sort_by=key, row_limit=_TABLE_ROWS)
            (self._folder / f"{name}.txt").write_text(table + "\n", encoding="utf-8")
        except (OSError, RuntimeError) as error:
            # A full disk costs the profile, never the run.
            self._say(f"  the profile could not be written: {error}")
        else:
            self._say(f"  profile: {trace} (open it at ui.perfetto.dev), {name}.txt")


@contextmanager
def on_signal(profiler: StepProfiler) -> Iterator[None]:
    """SIGUSR1 asks for a profile while the block runs, where the system has it and this is the main thread."""
    number = getattr(signal, "SIGUSR1", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(received: int, frame: FrameType | None) -> None:
        profiler.request()

    before = signal.signal(number, asked)
    try:
        yield
    finally:
        signal.signal(number, before)
