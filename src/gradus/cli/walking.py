"""`gradus run`, `plan` and `report`: between the command line and the roadmap room."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.home import RUN_RECORD
from gradus.roadmap.plan import choose_device, plan_json, plan_roadmap, plan_text
from gradus.roadmap.schema import load_roadmap

EXIT_INTERRUPTED = 130


def run_roadmap(
    file: Path,
    overrides: Sequence[str],
    home: Path,
    *,
    only: str | None,
    smoke: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Load and walk; exits with 130 where the user stops it."""
    from gradus.roadmap.progress import QuietProgress, live_progress
    from gradus.roadmap.run import walk

    roadmap = load_roadmap(file, overrides, smoke, home)
    with stopping():
        result = walk(roadmap, home, QuietProgress() if as_json else live_progress(), only, reason)
    if as_json:
        print_json(
            {
                "roadmap": roadmap.name,
                "run": str(result.run_dir),
                "report": str(result.report) if result.report else None,
                "stages": {
                    name: {
                        "artifact": str(a.path),
                        "fingerprint": a.fingerprint,
                        "seconds": a.manifest.seconds,
                        "results": a.results,
                    }
                    for name, a in result.artifacts.items()
                },
            }
        )


def print_plan(file: Path, overrides: Sequence[str], home: Path, *, device: str, smoke: bool, as_json: bool) -> None:
    """The plan as a table or as JSON."""
    roadmap = load_roadmap(file, overrides, smoke, home)
    chosen = choose_device(device, roadmap.machine, home)
    planned = plan_roadmap(roadmap, chosen, home / "artifacts")
    if as_json:
        print_json(plan_json(roadmap, planned, chosen))
    else:
        typer.echo(plan_text(roadmap, planned, chosen))


def print_report(name: str, home: Path, out: Path | None) -> None:
    """Write a run's report and say where it is."""
    from gradus.roadmap.report import write_report

    typer.echo(write_report(run_folder(name, home), out))


def run_folder(name: str, home: Path) -> Path:
    """runs/<name>, or the folder itself. Errors: ConfigError with the nearest name."""
    for folder in (home / "runs" / name, Path(name)):
        if (folder / RUN_RECORD).is_file():
            return folder
    known = sorted(path.parent.name for path in (home / "runs").glob(f"*/{RUN_RECORD}"))
    hint = did_you_mean(name, known) or (f"; there are {', '.join(known)}" if known else "; none was walked yet")
    raise ConfigError(f'no run "{name}" in {home / "runs"}{hint}')


def print_json(data: dict[str, Any]) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))


@contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C and a polite kill end the command with exit code 130, after what the walk has to say."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)
