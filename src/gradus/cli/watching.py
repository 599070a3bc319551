"""`gradus watch`: a walk in the terminal as it goes on, of any process, from its files."""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradus.cli.walking import run_folder, stopping
from gradus.core.errors import ArtifactError, ConfigError
from gradus.core.quantity import format_bytes, format_count, format_seconds
from gradus.core.terminal import harmless
from gradus.roadmap.watching import StageNow, TrainingNow, WalkNow, Watcher, newest_run

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY_SECONDS = 1.0
_CURVE_LINES = 7
_SAMPLES, _SAMPLE_CHARACTERS = 4, 160
# Dots of a braille character by (row, column); 4 rows of 2.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800
_ROOMY_COLUMNS = 60  # which the table of stages takes in whole
_MARKS = {"done": "✓", "working": "▶", "waiting": "·", "damaged": "✕"}
_STYLES = {"running": "bold green", "finished": "bold green", "gate failed": "bold red", "stopped": "bold yellow"}


def watch(name: str | None, home: Path, *, page: bool, port: int, once: bool) -> None:
    """Follow a walk until it is finished or the user stops it; one look where standard output is no terminal.

    name: a roadmap's name, its folder or its file; None takes the run that was written to last.
    """
    folder = watched_folder(name, home)
    if page:
        from gradus.cli.watch_page import serve_page

        with stopping():
            serve_page(folder, port)
        return
    watcher = Watcher(folder)
    from rich.console import Console

    console = Console(highlight=False)
    if once or not sys.stdout.isatty():
        console.print(screen(watcher.look(), console.width))
        return
    from rich.live import Live

    with stopping(), Live(console=console, screen=False, auto_refresh=False, vertical_overflow="crop") as live:
        now = watcher.look()
        while True:
            live.update(screen(now, console.width), refresh=True)
            if now.state == "finished":
                return
            time.sleep(EVERY_SECONDS)
            # Between two looks a new walk may be writing the record.
            try:
                now = watcher.look()
            except ArtifactError:
                continue


def watched_folder(name: str | None, home: Path) -> Path:
    """The run folder that a name, a folder or a roadmap's file means. Errors: ConfigError."""
    if name is None:
        return newest_run(home)
    file = Path(name)
    if file.suffix == ".toml" and file.is_file():
        try:
            name = str(tomllib.loads(file.read_text(encoding="utf-8-sig")).get("name", file.stem))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: not TOML: {error}") from error
    return run_folder(name, home)


def screen(now: WalkNow, width: int) -> RenderableType:
    """The look as rich draws it: head, stages, the training stage with its curve, abilities, samples."""
    from rich.console import Group
    from rich.text import Text

    head = Text.assemble((now.name, "bold"), "  ", (now.state, _STYLES[now.state]), "  ", (_sign_of_life(now), "dim"))
    parts: list[RenderableType] = [head, Text(""), _stage_table(now.stages, width)]
    if now.training is not None:
        parts += [Text(""), *_training_lines(now.training, min(width, 100) - 12)]
    if now.abilities:
        parts += [Text("")]
        for name, measure in now.abilities.items():
            low, high = measure.get("lower", measure["value"]), measure.get("upper", measure["value"])
            parts.append(Text(f"  {name}: {measure['value']:.1%} of {measure.get('n', '?')} [{low:.1%}, {high:.1%}]"))
    for gate in now.gates:
        passed = bool(gate["passed"])
        word = "passed" if passed else "FAILED"
        parts.append(Text(f"  gate {word}: {harmless(str(gate['text']))}", style="green" if passed else "red"))
    if now.training is not None:
        parts += _sample_lines(now.training)
    if now.state in ("stopped", "gate failed"):
        parts += [Text(""), Text(_what_next(now), style="yellow")]
    return Group(*parts)


def _sign_of_life(now: WalkNow) -> str:
    quiet = "" if now.quiet_seconds is None else f"last written {format_seconds(max(now.quiet_seconds, 0.1))} ago"
    return f"process {now.pid}, {quiet}" if now.pid else quiet


def _what_next(now: WalkNow) -> str:
    if now.state == "gate failed":
        return 'a gate failed; everything is kept, and gradus run with --override "reason" goes on past it'
    return "no process of this machine walks it; what it saved is kept, and the same gradus run goes on from there"


def _stage_table(stages: Sequence[StageNow], width: int) -> RenderableType:
    """A row for each stage; where there is little room, without kinds and without what was planned."""
    from rich.table import Table
    from rich.text import Text

    is_narrow = width < _ROOMY_COLUMNS
    table = Table(box=None, show_header=False, padding=(0, 1 if is_narrow else 2, 0, 0))
    for _ in range(3 if is_narrow else 5):
        table.add_column(no_wrap=True)
    styles = {"done": "green", "working": "bold cyan", "waiting": "dim", "damaged": "red"}
    for stage in stages:
        style = styles[stage.state]
        took = "" if stage.seconds is None else format_seconds(max(stage.seconds, 0.01))
        planned = stage.predicted_seconds
        expected = f"of about {format_seconds(planned)}" if planned and stage.state != "done" else ""
        name = f"  {_MARKS[stage.state]} {stage.name}"
        row = (name, stage.state, took) if is_narrow else (name, stage.kind, stage.state, took, expected)
        table.add_row(*(Text(cell, style=style) for cell in row))
    return table


def _training_lines(training: TrainingNow, width: int) -> list[RenderableType]:
    from rich.text import Text

    figures = training.figures
    of = f"/{training.steps:,}" if training.steps else ""
    parts = [f"step {training.step:,}{of}"]
    if "loss" in figures:
        parts.append(f"loss {figures['loss']:.4f}")
    parts += [f"{name} {value:.4g}" for name, value in training.evaluated.items() if name not in ("step", "tokens")]
    if "lr" in figures:
        parts.append(f"lr {figures['lr']:.2e}")
    if "tokens_per_second" in figures:
        parts.append(f"{format_count(figures['tokens_per_second'])} tok/s")
    if figures.get("skipped"):
        parts.append(f"{figures['skipped']:.0f} skipped")
    if training.eta_seconds is not None:
        parts.append(f"about {format_seconds(max(training.eta_seconds, 0.1))} left")
    lines: list[RenderableType] = [Text.assemble((training.stage, "bold"), "  ", "  ".join(parts))]
    if training.telemetry:
        lines.append(Text("  " + "  ".join(telemetry_text(k, v) for k, v in training.telemetry.items()), style="dim"))
    curve = braille(training.losses, max(20, width), _CURVE_LINES)
    for number, line in enumerate(curve):
        label = {0: f"{max(_finite(training.losses)):.3g}", len(curve) - 1: f"{min(_finite(training.losses)):.3g}"}
        lines.append(Text.assemble((f"{label.get(number, ''):>8} ", "dim"), (line, "cyan")))
    return lines


def telemetry_text(name: str, value: float) -> str:
    """A figure of the machine with its unit, which its name tells."""
    words = name.rsplit("_", 1)[0].replace("_", " ")
    if name.endswith("_bytes"):
        return f"{words} {format_bytes(value)}"
    if name.endswith("_fraction"):
        return f"{words} {value:.0%}"
    units = {"celsius": "°C", "watts": "W"}
    unit = units.get(name.rsplit("_", 1)[-1])
    return f"{words} {value:.0f} {unit}" if unit else f"{name} {value:.3g}"


def _sample_lines(training: TrainingNow) -> list[RenderableType]:
    from rich.text import Text

    if not training.samples:
        return []
    lines: list[RenderableType] = [Text(""), Text(f"samples at step {training.samples[0]['step']:,}", style="bold")]
    for sample in training.samples[:_SAMPLES]:
        prompt, said = str(sample.get("prompt", "")), str(sample.get("text", sample.get("answer", "")))
        lines.append(Text.assemble("  ", (_one_line(prompt), "cyan"), " ", _one_line(said)))
    return lines


def _one_line(text: str) -> str:
    line = " ".join(harmless(text).split())
    return line if len(line) <= _SAMPLE_CHARACTERS else line[:_SAMPLE_CHARACTERS] + "…"


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if abs(value) < float("inf")]


def braille(values: Sequence[float], width: int, height: int) -> list[str]:
    """A curve as `height` lines of `width` braille characters, the first value left, the largest on top.

    More values than there are columns of dots are averaged, fewer drawn out; what is not finite is left out. [] for
    fewer than two.
    """
    shown = _finite(values)
    if len(shown) < 2:
        return []
    columns = 2 * width
    means = []
    for column in range(columns):
        first = column * len(shown) // columns
        part = shown[first : max(first + 1, (column + 1) * len(shown) // columns)]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    top = 4 * height - 1
    rows = [round((high - mean) / (high - low) * top) if high > low else top // 2 for mean in means]
    cells = [[0] * width for _ in range(height)]
    before = rows[0]
    for column, row in enumerate(rows):
        # From the height before to this one, so that a steep curve stays a line.
        for dot in range(min(before, row) + (before < row), max(before, row) + (before <= row)):
            cells[dot // 4][column // 2] |= _DOTS[dot % 4][column % 2]
        before = row
    return ["".join(chr(_BRAILLE | cell) for cell in line) for line in cells]
