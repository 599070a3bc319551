"""Experiment trackers beside our own records: what a walk logs is sent to TensorBoard, Weights & Biases or trackio too.

metrics.jsonl stays the record. A tracker gets the same figures as they are written, under the stage's name; after a
return to an earlier step it is given the repeated steps again. Keys come from the trackers' own settings
(WANDB_API_KEY, WANDB_MODE=offline, TRACKIO_DIR), never from a roadmap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gradus.core.errors import GradusError, MissingPackageError
from gradus.core.fingerprint import digest
from gradus.core.settings import Settings

TrackerName = Literal["tensorboard", "wandb", "trackio"]
TENSORBOARD_FOLDER = "tensorboard"  # in runs/<roadmap>/, a folder for each stage

Track = Callable[[str, int, Mapping[str, Any]], None]
"""Takes a stage's name, a step, and figures by name; what is no finite number is passed over."""


class TrackSettings(Settings):
    """The `[track]` table: experiment trackers that a walk logs to besides its own records.

    to: trackers by name; "tensorboard" writes to runs/<roadmap>/tensorboard. project: what the run belongs to in wandb
    and trackio, None for "gradus".
    """

    to: tuple[TrackerName, ...] = Field(min_length=1)
    project: str | None = Field(default=None, min_length=1)


@contextmanager
def tracking(
    settings: TrackSettings | None,
    name: str,
    run_dir: Path,
    config: Mapping[str, Any],
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Track]:
    """One function that logs to all trackers while the block runs; to none where settings is None.

    name: of the roadmap. config: what the run was made with, as JSON. say: is told of a tracker that fails later, which
    then gets no more while the walk goes on. Errors: MissingPackageError, GradusError where a tracker refuses to begin.
    """
    with ExitStack() as stack:
        project = settings.project or "gradus" if settings else ""
        chosen = dict.fromkeys(settings.to) if settings else {}
        sinks = {of: stack.enter_context(TRACKERS[of](project, name, run_dir, config)) for of in chosen}

        def track(stage: str, step: int, figures: Mapping[str, Any]) -> None:
            numbers = {key: float(value) for key, value in figures.items() if key != "step" and _is_number(value)}
            for tracker, sink in list(sinks.items()):
                try:
                    sink(stage, step, numbers)
                except Exception as error:  # noqa: BLE001  (whatever it is, hours of training are not lost for it)
                    del sinks[tracker]
                    say(f"  warning: {tracker} failed and gets no more of this walk: {error}")

        yield track


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@contextmanager
def _tensorboard(project: str, name: str, run_dir: Path, config: Mapping[str, Any]) -> Iterator[Track]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError("tensorboard", "tracking") from error
    writers: dict[str, Any] = {}
    newest: dict[str, int] = {}

    def log(stage: str, step: int, figures: Mapping[str, float]) -> None:
        if stage not in writers or step < newest[stage]:
            if stage in writers:
                writers[stage].close()
            # Events of an interrupted walk from this step on are hidden: they are logged again.
            writers[stage] = SummaryWriter(run_dir / TENSORBOARD_FOLDER / stage, purge_step=step)
        newest[stage] = step
        for key, value in figures.items():
            writers[stage].add_scalar(key, value, step)

    try:
        yield log
    finally:
        for writer in writers.values():
            writer.close()


@contextmanager
def _wandb(project: str, name: str, run_dir: Path, config: Mapping[str, Any]) -> Iterator[Track]:
    try:
        import wandb
    except ImportError as error:
        raise MissingPackageError("wandb", "tracking") from error
    try:
        # One run for all walks of a roadmap in this home, so that a resumed walk goes on in it.
        identity = f"{name}-{digest(str(run_dir.resolve()))[:10]}"
        run = wandb.init(project=project, name=name, id=identity, resume="allow", dir=str(run_dir), config=dict(config))
    except wandb.Error as error:
        fix = "log in with `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline to send later"
        raise GradusError(f"wandb: {error}; {fix}") from error
    known: set[str] = set()

    def log(stage: str, step: int, figures: Mapping[str, float]) -> None:
        if stage not in known:
            known.add(stage)
            # Each stage counts its own steps; wandb's own counter only goes up, and a resumed stage goes back.
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        run.log({f"{stage}/{key}": value for key, value in figures.items()} | {f"{stage}/step": step})

    try:
        yield log
    finally:
        run.finish()


@contextmanager
def _trackio(project: str, name: str, run_dir: Path, config: Mapping[str, Any]) -> Iterator[Track]:
    try:
        import trackio
    except ImportError as error:
        raise MissingPackageError("trackio", "tracking") from error
    trackio.init(project=project, name=name, resume="allow", config=dict(config))

    def log(stage: str, step: int, figures: Mapping[str, float]) -> None:
        trackio.log({f"{stage}/{key}": value for key, value in figures.items()} | {f"{stage}/step": step})

    try:
        yield log
    finally:
        trackio.finish()


Tracker = Callable[[str, str, Path, Mapping[str, Any]], AbstractContextManager[Track]]
TRACKERS: dict[TrackerName, Tracker] = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
