"""`gradus run`, `plan` and `report`: between the command line and the roadmap room."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.home import ARTIFACTS, RUN_RECORD, RUNS
from gradus.core.run_record import walked_runs
from gradus.roadmap.plan import choose_device, own_device, plan_roadmap
from gradus.roadmap.plan_text import plan_json, plan_text
from gradus.roadmap.schema import load_roadmap

EXIT_INTERRUPTED = 130


def run_roadmap(
    file: Path,
    overrides: Sequence[str],
    home: Path,
    *,
    only: Sequence[str],
    smoke: bool,
    reason: str | None,
    as_json: bool,
    dry_run: bool = False,
) -> None:
    """Load and walk, or follow the process that does; exits with 130 where the user stops it."""
    from gradus.roadmap.dry_run import dry_walk
    from gradus.roadmap.launched import follow_walk, is_launched, join_meeting, launched_overrides, leading
    from gradus.roadmap.progress import QuietProgress, live_progress
    from gradus.roadmap.run import walk

    with stopping(), ExitStack() as stack:
        meeting = None
        if is_launched():
            overrides = launched_overrides(file, overrides)
            meeting = join_meeting(home)
            if not meeting.is_main:
                follow_walk(meeting, file, home)
                return
            stack.enter_context(leading(meeting))
        roadmap = load_roadmap(file, overrides, smoke, home)
        go = dry_walk if dry_run else walk
        result = go(roadmap, home, QuietProgress() if as_json else live_progress(), only, reason, meeting)
    if as_json:
        print_json(
            {
                "roadmap": roadmap.name,
                "run": None if dry_run else str(result.run_dir),
                "report": str(result.report) if result.report else None,
                "stages": {
                    name: {
                        "artifact": str(a.path) if a.path.is_dir() else None,
                        "fingerprint": a.fingerprint,
                        "seconds": a.manifest.seconds,
                        "results": a.results,
                    }
                    for name, a in result.artifacts.items()
                },
            }
        )


def calibrate_machine(file: Path, overrides: Sequence[str], home: Path, *, smoke: bool, as_json: bool) -> None:
    """Measure this machine by a short run of the roadmap's stages, and say what was found."""
    from gradus.core.devices import DEVICES_FILE
    from gradus.roadmap.calibrate import calibrate
    from gradus.roadmap.progress import QuietProgress, live_progress

    roadmap = load_roadmap(file, overrides, smoke, home)
    with stopping():
        rates = calibrate(roadmap, home, QuietProgress() if as_json else live_progress())
    if not as_json:
        typer.echo(f"\nmeasured: {', '.join(rates)}; written to {home / DEVICES_FILE}\n")


def print_plan(
    file: Path, overrides: Sequence[str], home: Path, *, devices: Sequence[str], smoke: bool, as_json: bool
) -> None:
    """The plan for each device, or for this machine, as tables or as JSON."""
    roadmap = load_roadmap(file, overrides, smoke, home)
    names = devices or [own_device(roadmap.machine, home)]
    plans = [plan_roadmap(roadmap, choose_device(name, roadmap.machine, home), home / ARTIFACTS) for name in names]
    if as_json:
        found = [plan_json(roadmap, plan) for plan in plans]
        typer.echo(json.dumps(found[0] if len(found) == 1 else found, indent=1, ensure_ascii=False))
    else:
        typer.echo(plan_text(roadmap, plans))


def print_report(names: Sequence[str], home: Path, out: Path | None, compare: bool) -> None:
    """Write a run's report, or the page of two runs, and say where it is."""
    from gradus.roadmap.report import write_comparison, write_report

    expected = 2 if compare else 1
    if len(names) != expected:
        fix = "gradus report --compare FIRST SECOND" if compare else "one run, or --compare with two"
        raise ConfigError(f"expected {'two runs' if compare else 'one run'}, found {len(names)}; give {fix}")
    folders = [run_folder(name, home) for name in names]
    typer.echo(write_comparison(folders[0], folders[1], out) if compare else write_report(folders[0], out))


def run_folder(name: str, home: Path) -> Path:
    """runs/<name>, or the folder itself. Errors: ConfigError with the nearest name."""
    for folder in (home / RUNS / name, Path(name)):
        if (folder / RUN_RECORD).is_file():
            return folder
    known = walked_runs(home)
    hint = did_you_mean(name, known) or (f"; there are {', '.join(known)}" if known else "; none was walked yet")
    raise ConfigError(f'no run "{name}" in {home / RUNS}{hint}')


def print_json(data: dict[str, Any]) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))


@contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C and a polite kill end the command with exit code 130, after what the walk has to say.

    SIGUSR1, which asks for a profile of training steps, ends nothing.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def nothing_to_profile(number: int, frame: FrameType | None) -> None:
        typer.echo("  no stage is training now, so there is nothing to profile", err=True)

    handlers: dict[str, Any] = {"SIGTERM": interrupt, "SIGUSR1": nothing_to_profile}
    numbers = {name: getattr(signal, name) for name in handlers if hasattr(signal, name)}
    before = {number: signal.signal(number, handlers[name]) for name, number in numbers.items()}
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
