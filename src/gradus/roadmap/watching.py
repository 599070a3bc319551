"""A walk as it goes on, read from its files alone: running in this or another process, finished, or dead.

Nothing is locked and nothing written. Files may grow, end in half a line, be cut back by a resumed stage or replaced;
what cannot be read now is read at the next look.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from gradus.core.artifact import SCRATCH
from gradus.core.errors import ConfigError
from gradus.core.gate import without_items
from gradus.core.home import LEDGER, LOCK, RUN_RECORD, RUNS
from gradus.core.run_record import read_run_record, walked_runs
from gradus.roadmap.metrics import METRICS, SAMPLES
from gradus.roadmap.place import CLOCK
from gradus.roadmap.report_measures import counting_lines
from gradus.roadmap.report_stages import StageView, stage_view

# What telemetry is called, in the order in which it is shown.
TELEMETRY = (
    "mfu", "cpu_fraction", "memory_bytes", "machine_memory_fraction", "cpu_celsius", "gpu_busy_fraction",
    "gpu_memory_bytes", "gpu_celsius", "gpu_watts",
)  # fmt: skip

WalkState = Literal["running", "finished", "gate failed", "stopped"]


_MOST_LINES = 8192
_NEWEST_LINES = 256  # which are never thinned: telemetry is looked for in them
_MOST_LOSSES = 1024
_PIECE_BYTES = 1 << 20
Lines = list[dict[str, Any]]


def keep_gates(lines: Lines, line: dict[str, Any]) -> None:
    """Of a ledger, the verdicts."""
    if line.get("event") == "gate":
        lines.append(line)


def keep_newest_step(lines: Lines, line: dict[str, Any]) -> None:
    """Of samples, those of the last step."""
    if lines and line.get("step") != lines[-1].get("step"):
        lines.clear()
    lines.append(line)


def keep_thinned(lines: Lines, line: dict[str, Any]) -> None:
    """Of metrics, those that still count; of a long run's older ones every second, fourth, ... and the last evaluation.

    So memory is bounded, and what is drawn is the same to the eye.
    """
    if line.get("event") == "rollback":
        lines[:], _ = counting_lines([*lines, line])
        return
    lines.append(line)
    if len(lines) > _MOST_LINES:
        older = lines[:-_NEWEST_LINES]
        evaluated = next((one for one in reversed(older) if one.get("event") == "evaluate"), None)
        older = [one for place, one in enumerate(older) if place % 2 == 0 or one is evaluated]
        lines[:] = [*older, *lines[-_NEWEST_LINES:]]


class FollowedLines:
    """A file of JSON lines that others write: `read` takes up what is new, and begins again where it was replaced.

    keep: puts a new line to those that are kept, of a file that may be longer than memory.
    """

    def __init__(self, path: Path, keep: Callable[[Lines, dict[str, Any]], None] = list.append) -> None:
        self.path, self._keep = path, keep
        self.lines: Lines = []
        self._inode, self._offset, self._rest = 0, 0, b""

    def read(self) -> bool:
        """Take up whole new lines; whether there were any, or the file is another one now."""
        try:
            with open(self.path, "rb") as file:
                facts = os.fstat(file.fileno())
                replaced = facts.st_ino != self._inode or facts.st_size < self._offset
                if replaced:
                    self.lines, self._offset, self._rest = [], 0, b""
                self._inode = facts.st_ino
                file.seek(self._offset)
                found = False
                while piece := file.read(_PIECE_BYTES):
                    found = self._take(piece) or found
        except (FileNotFoundError, NotADirectoryError):
            changed, self.lines, self._inode, self._offset, self._rest = bool(self.lines), [], 0, 0, b""
            return changed
        return replaced or found

    def _take(self, piece: bytes) -> bool:
        self._offset += len(piece)
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for text in whole:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # torn by a kill and written on behind
            if isinstance(line, dict):
                self._keep(self.lines, line)
        return bool(whole)


@dataclass(frozen=True)
class StageNow:
    """A stage: done, working, waiting or damaged; seconds it took or has taken so far, and was predicted to."""

    name: str
    kind: str
    state: str
    seconds: float | None
    predicted_seconds: float | None


@dataclass(frozen=True)
class TrainingNow:
    """The training stage that is worked on, or was last: its newest figures and its loss by step.

    steps: how many the plan expects, None where it does not say. eta_seconds: at the present rate.
    """

    stage: str
    step: int
    steps: int | None
    figures: Mapping[str, float]
    telemetry: Mapping[str, float]
    evaluated: Mapping[str, float]
    losses: Sequence[float]
    eta_seconds: float | None
    samples: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class WalkNow:
    """A look at a walk. quiet_seconds: since anything was last written; pid: of the process that walks, if it lives."""

    name: str
    state: WalkState
    pid: int | None
    quiet_seconds: float | None
    stages: tuple[StageNow, ...]
    training: TrainingNow | None
    abilities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gates: tuple[Mapping[str, Any], ...] = ()

    @property
    def working(self) -> StageNow | None:
        """The stage that is being made."""
        return next((stage for stage in self.stages if stage.state == "working"), None)


class Watcher:
    """Looks at a run folder again and again; what was read before is not read again."""

    def __init__(self, run_folder: Path) -> None:
        """Errors: ArtifactError where the folder holds no walked roadmap."""
        read_run_record(run_folder)
        self.folder = run_folder
        self._files: dict[Path, FollowedLines] = {}

    def look(self) -> WalkNow:
        """The walk as it stands. Errors: ArtifactError where its record is gone or damaged."""
        record = read_run_record(self.folder)
        views = [stage_view(self.folder, stage) for stage in record["stages"]]
        ledger = self._lines(self.folder / LEDGER, keep_gates)
        gates = _last_gates(ledger, views)
        pid = walking_process(self.folder)
        done = all(view.state == "done" for view in views)
        # A smoke run goes on past failed gates.
        stops = not record.get("smoke")
        failed = stops and any(gate["passed"] is False and "override" not in gate for gate in gates)
        state: WalkState = "running" if pid else "gate failed" if failed else "finished" if done else "stopped"
        return WalkNow(
            name=str(record["name"]),
            state=state,
            pid=pid,
            quiet_seconds=self._quiet_seconds(views),
            stages=tuple(_stage_now(view) for view in views),
            training=self._training(views, running=pid is not None),
            abilities=_abilities(views),
            gates=tuple(gates),
        )

    def _lines(self, path: Path, keep: Callable[[Lines, dict[str, Any]], None]) -> Lines:
        followed = self._files.setdefault(path, FollowedLines(path, keep))
        followed.read()
        return followed.lines

    def _training(self, views: Sequence[StageView], *, running: bool) -> TrainingNow | None:
        """Of the stage at work where it trains, else of the last that did."""
        for view in sorted(views, key=lambda own: own.state == "working")[::-1]:
            metrics = view.file(METRICS)
            if metrics is None:
                continue
            lines = self._lines(metrics, keep_thinned)
            trained = [line for line in lines if line.get("event") == "train" and _is_number(line.get("step"))]
            if trained:
                samples = self._lines(metrics.with_name(SAMPLES), keep_newest_step)
                evaluated = [line for line in lines if line.get("event") == "evaluate"]
                now = _training_now(view, trained, evaluated, samples)
                return now if running else replace(now, eta_seconds=None)
        return None

    def _quiet_seconds(self, views: Sequence[StageView]) -> float | None:
        files = [self.folder / LEDGER, self.folder / RUN_RECORD]
        for view in views:
            if view.state == "working" and view.folder is not None:
                files += [view.folder / METRICS, view.folder / SCRATCH / CLOCK]
        times = [written for path in files if (written := _written_at(path)) is not None]
        return max(0.0, time.time() - max(times)) if times else None


def walking_process(run_folder: Path) -> int | None:
    """The process of this machine that walks the roadmap; None where none does.

    The lock itself is not tried: a walk that begins at that moment would be refused. The number in its file counts
    where that process has the file open, which it has while it holds the lock, or, where the system does not tell,
    where the process is older than the lock.
    """
    lock = run_folder / LOCK
    try:
        pid, written = int(lock.read_text(encoding="ascii")), lock.stat().st_mtime
        process = psutil.Process(pid)
        try:
            holds = str(lock.resolve()) in {file.path for file in process.open_files()}
        except psutil.AccessDenied:
            # The clock that processes are told by is rounded, and may be off by a second.
            holds = process.create_time() <= written + 2.0
    except (OSError, ValueError, psutil.Error):
        return None
    return pid if holds else None


def newest_run(home: Path) -> Path:
    """The run folder whose ledger was written to last. Errors: ConfigError where there is none."""
    found = [home / RUNS / name for name in walked_runs(home)]
    if not found:
        raise ConfigError(f"{home / RUNS}: nothing has been walked here yet; walk a roadmap first: gradus run FILE")
    return max(found, key=lambda f: max(_written_at(p) or 0.0 for p in f.iterdir() if not p.is_symlink()))


def _written_at(path: Path) -> float | None:
    """When a file was written, None where there is none: one that is being written may be moved between two looks."""
    try:
        return path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stage_now(view: StageView) -> StageNow:
    predicted = dict(view.record.get("predicted") or {}).get("seconds")
    seconds = view.artifact.manifest.seconds if view.artifact is not None else None
    if view.state == "working" and view.folder is not None:
        try:
            seconds = float(json.loads((view.folder / SCRATCH / CLOCK).read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError):
            seconds = None
    return StageNow(view.name, str(view.record.get("kind", "")), view.state, seconds, predicted)


def _training_now(
    view: StageView,
    trained: Sequence[Mapping[str, Any]],
    evaluated: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
) -> TrainingNow:
    last = trained[-1]
    predicted = dict(view.record.get("predicted") or {})
    steps = view.results.get("steps") or predicted.get("steps")
    rate, tokens = last.get("tokens_per_second"), last.get("tokens")
    eta = None
    if view.state == "working" and rate and tokens and steps and last["step"] > 0:
        # Tokens of a step are about the same throughout; those that the plan states may count another way.
        eta = max(0.0, tokens * (steps / last["step"] - 1)) / rate
    newest = max((line["step"] for line in samples if _is_number(line.get("step"))), default=None)
    return TrainingNow(
        stage=view.name,
        step=int(last["step"]),
        steps=int(steps) if steps else None,
        figures={k: v for k, v in last.items() if k not in TELEMETRY and _is_number(v)},
        telemetry={name: last_known for name in TELEMETRY if (last_known := _last_known(trained, name)) is not None},
        evaluated={k: v for k, v in (evaluated[-1] if evaluated else {}).items() if _is_number(v) and "/" not in k},
        losses=_losses(trained),
        eta_seconds=eta,
        samples=[line for line in samples if line.get("step") == newest] if newest is not None else [],
    )


def _losses(trained: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of every line, or of a long run at even distances of steps, however its older lines were thinned."""
    told = [line for line in trained if _is_number(line.get("loss"))]
    if len(told) > _MOST_LOSSES:
        steps = [line["step"] for line in told]
        first, last = steps[0], steps[-1]
        wanted = [first + (last - first) * place / (_MOST_LOSSES - 1) for place in range(_MOST_LOSSES)]
        told = [told[min(bisect_left(steps, step), len(told) - 1)] for step in wanted]
    return [float(line["loss"]) for line in told]


def _last_known(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Telemetry is not read at every step."""
    return next((line[name] for line in lines[::-1][:50] if _is_number(line.get(name))), None)


def _abilities(views: Sequence[StageView]) -> dict[str, Mapping[str, Any]]:
    """The total of each suite and task by STAGE SUITE, of finished evaluations."""
    found: dict[str, Mapping[str, Any]] = {}
    for view in views:
        for group, key in (("probes", "total"), ("tasks", "acc")):
            measured = view.results.get(group)
            for name, suite in measured.items() if isinstance(measured, Mapping) else ():
                total = suite.get(key) if isinstance(suite, Mapping) else None
                if isinstance(total, Mapping) and _is_number(total.get("value")):
                    found[f"{view.name} {name}"] = without_items(total)
    return found


def _last_gates(ledger: Sequence[Mapping[str, Any]], views: Sequence[StageView]) -> list[Mapping[str, Any]]:
    """The newest verdict on each gate of each stage as it is now."""
    found: dict[str, Mapping[str, Any]] = {}
    wanted = {view.name: view.record for view in views}
    for line in ledger:
        record = wanted.get(str(line.get("stage")), {})
        of_now = line.get("event") == "gate" and line.get("fingerprint") == record.get("fingerprint")
        if of_now and line.get("gate") in record.get("gates", []):
            found[f"{line['stage']} {json.dumps(line['gate'], sort_keys=True)}"] = line
    return list(found.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
