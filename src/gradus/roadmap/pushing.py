"""The push beside a walk: a process of its own, started where the roadmap names a place, that can fail no walk.

It is told of the walk's end by its standard input, which the system closes however the walk ends. It then sends what
is left and ends by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradus.core.home import RUNS
from gradus.core.quantity import format_bytes, format_seconds
from gradus.core.secrets import redacted
from gradus.release.push import STATUS, read_status
from gradus.release.settings import PushSettings
from gradus.roadmap.progress import Progress
from gradus.roadmap.schema import Roadmap

LOG = "push.log"
_LOOK_SECONDS = 0.05
_START_SECONDS = 60.0  # it takes one or two, and many on a busy machine
# Processes that go on after their walk; Python warns of one that is forgotten while it runs.
_left_running: list[subprocess.Popen[bytes]] = []


class Pusher:
    """The process that pushes, and what it has to say."""

    def __init__(self, roadmap: Roadmap, push: PushSettings, home: Path, progress: Progress) -> None:
        self._roadmap, self._push, self._home, self._progress = roadmap, push, home, progress
        self._process: subprocess.Popen[bytes] | None = None
        self._told = ""

    @property
    def _run_dir(self) -> Path:
        return self._home / RUNS / self._roadmap.name

    def start(self) -> None:
        """Start it, and give it a moment to say that nothing can be sent (no package, no key)."""
        (self._run_dir / STATUS).unlink(missing_ok=True)
        task = {
            "home": str(self._home.resolve()),
            "roadmap": self._roadmap.name,
            "to": self._push.to,
            "every": int(self._push.every.value),
        }
        try:
            with open(self._run_dir / LOG, "ab") as log:
                # A session of its own, so that Ctrl-C does not reach it.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "gradus.release.push", json.dumps(task)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            self._warn(f"its process cannot be started: {error}")
            return
        self._progress.line(f"push     {self._push.to}, checkpoints every {self._push.every} ({self._run_dir / LOG})\n")
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and read_status(self._home, self._roadmap.name) is None:
            if self._process.poll() is not None:
                break
            time.sleep(_LOOK_SECONDS)
        self.look()

    def look(self) -> None:
        """Say what is wrong with it, each thing once."""
        if self._process is None:
            return
        status = read_status(self._home, self._roadmap.name) or {}
        problem = str(status.get("problem", ""))
        if self._process.poll() is not None:
            problem = f"the process that pushes has ended: {problem or self._last_words()}"
        if problem and problem != self._told:
            self._warn(problem)
        self._told = problem

    def end(self, wait_seconds: float) -> None:
        """Let it send what is left; wait a while, and say what is not there."""
        if self._process is None:
            self._progress.line(f"push     nothing of this walk is at {self._push.to}; send it: {self._command}")
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        until = time.monotonic() + wait_seconds
        while self._process.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        self._say_what_is_left(wait_seconds)

    def _say_what_is_left(self, waited_seconds: float) -> None:
        assert self._process is not None
        status = read_status(self._home, self._roadmap.name) or {}
        left = dict(status.get("waiting", {}))
        running = self._process.poll() is None
        if not running and self._process.returncode == 0:
            sent = f"{status.get('sent', 0)} sent now, {format_bytes(status.get('sent_bytes', 0))}"
            self._progress.line(f"push     everything is at {self._push.to} ({sent})")
            return
        self.look()
        names = ", ".join(list(left)[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        what = f"{len(left)} not at {self._push.to} yet ({format_bytes(sum(left.values()))}): {names}"
        if running:
            _left_running.append(self._process)
            after = f"after {format_seconds(waited_seconds)} " if waited_seconds else ""
            goes_on = f"process {self._process.pid} goes on sending ({self._run_dir / LOG})"
            self._progress.line(f"push     {after}{what}; {goes_on}" if left else f"push     {goes_on}")
        else:
            self._progress.line(f"push     {what if left else 'not everything was sent'}; send it: {self._command}")

    @property
    def _command(self) -> str:
        return f"gradus push {self._roadmap.name}"

    def _last_words(self) -> str:
        log = self._run_dir / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1] if lines else "no reason given"

    def _warn(self, text: str) -> None:
        self._progress.line(f"  warning: push: {redacted(text)}; training goes on")


@contextmanager
def pushing(roadmap: Roadmap, home: Path, progress: Progress) -> Iterator[Pusher | None]:
    """Push while the block runs; None where the roadmap names no place, which is said, or is a smoke run."""
    push = roadmap.push
    if push is None or roadmap.smoke:
        why = "no [push] in the roadmap" if push is None else "a smoke run is not pushed"
        progress.line(f"push     nowhere: what is made stays on this machine ({why})\n")
        yield None
        return
    pusher = Pusher(roadmap, push, home, progress)
    pusher.start()
    try:
        yield pusher
    except BaseException:
        pusher.end(0.0)
        raise
    pusher.end(push.wait_seconds)
