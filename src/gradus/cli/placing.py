"""`gradus push` and `gradus pull`: between the command line and the release room."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import typer

from gradus.cli.walking import print_json, run_folder
from gradus.core.artifact import MANIFEST
from gradus.core.errors import ConfigError
from gradus.core.home import ARTIFACTS, RUNS
from gradus.core.quantity import format_bytes
from gradus.core.run_record import read_run_record
from gradus.core.secrets import redacted
from gradus.core.settings import load_settings
from gradus.release.settings import PushSettings


def push_home(name: str, home: Path, to: str | None, every: str | None, follow: bool, as_json: bool) -> None:
    """Send what there is of a walked roadmap, or one exported folder; exits with 1 where not everything is there."""
    if (Path(name).expanduser() / MANIFEST).is_file():
        _push_bundle(Path(name).expanduser(), to, every is not None or follow, as_json)
        return
    from gradus.release.place import open_place
    from gradus.release.push import Push

    run = run_folder(name, home)
    settings = _push_settings(run, to, every)
    stop = threading.Event()
    say = _say(as_json)
    push = Push(run.parent.parent, run.name, open_place(settings.to), int(settings.every.value), say)
    before = {number: signal.signal(number, _stopper(stop)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        done = push.run(stop, follow)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    state = push.state
    if as_json:
        print_json(vars(state))
    else:
        typer.echo(
            f"{state.place}: {state.sent} sent ({format_bytes(state.sent_bytes)})"
            + (f", {len(state.waiting) + len(state.refused)} not there yet" if not done else ", everything is there")
        )
        for parcel, reason in state.refused.items():
            typer.echo(f"  {parcel}: {reason}")
    if not done:
        sys.exit(1)


def _push_bundle(folder: Path, to: str | None, follows: bool, as_json: bool) -> None:
    """Send an exported folder to the root of a place."""
    from gradus.release.place import open_place
    from gradus.release.push_bundle import push_bundle

    if to is None:
        raise ConfigError(f"{folder} is an exported folder: say where it goes, --to hub:OWNER/NAME")
    if follows:
        raise ConfigError("--every and --follow are for roadmaps; an exported folder is sent once")
    place = open_place(to)
    went = push_bundle(folder, place, _say(as_json))
    if as_json:
        print_json({"place": place.address, "sent_bytes": went})
    else:
        typer.echo(f"{place.address}: everything is there ({format_bytes(went)} sent)")


def _stopper(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, frame: FrameType | None) -> None:
        stop.set()

    return handler


def _push_settings(run: Path, to: str | None, every: str | None) -> PushSettings:
    """The `[push]` table that the run was walked with, and what the command line says instead."""
    record = read_run_record(run)
    table = dict(record.get("push") or {})
    if to is not None:
        table["to"] = to
    if every is not None:
        table["every"] = every
    if "to" not in table:
        raise ConfigError(
            f'roadmap "{run.name}" names no place: give --to PLACE, or write [push] with to = "..." in the roadmap'
        )
    return load_settings(PushSettings, table, "push")


def pull_home(address: str, into: Path, roadmap: str | None, as_json: bool) -> None:
    """Bring a place's runs and artifacts into a home, and say how to go on."""
    from gradus.release.place import open_place
    from gradus.release.pull import pull
    from gradus.roadmap.status import link_stage

    place = open_place(address)
    pulled = pull(place, into, roadmap, _say(as_json))
    for name in pulled.roadmaps:
        run = into / RUNS / name
        record = read_run_record(run)
        for stage in record["stages"]:
            artifact = into / ARTIFACTS / stage["artifact"]
            if (artifact / MANIFEST).is_file():
                link_stage(run, stage["name"], artifact)
    if as_json:
        print_json(vars(pulled))
        return
    steps = "".join(f", {artifact.split('-')[0]} at step {step:,}" for artifact, step in pulled.checkpoints.items())
    typer.echo(f"{len(pulled.artifacts)} artifacts{steps} ({format_bytes(pulled.num_bytes)}) into {into}")
    for name in pulled.roadmaps:
        typer.echo(f"go on with: gradus run FILE   (the file of roadmap {name})")


def _say(as_json: bool) -> Callable[[str], None]:
    def say(text: str) -> None:
        typer.echo(redacted(text), err=as_json)

    return say
