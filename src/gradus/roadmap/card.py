"""The card that closes a walk: what the model can do, and how to talk to it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.core.artifact import Artifact
from gradus.core.home import DRY_HOME, MODEL_FOLDER, usual_home
from gradus.core.quantity import format_seconds
from gradus.roadmap.schema import Roadmap
from gradus.roadmap.table import text_table

_BAR_WIDTH = 20


def closing_card(roadmap: Roadmap, artifacts: Mapping[str, Artifact], report: Path | None, home: Path = Path()) -> str:
    """Probe results by category where a stage measured them, times, the report and the chat command.

    home: where the next commands have to look for what was made.
    """
    made = [(s.name, artifacts[s.name]) for s in roadmap.stages if s.name in artifacts]
    total = sum(a.manifest.seconds for _, a in made)
    lines = ["", f"{roadmap.name}: {len(made)} stages, {format_seconds(total)} of work"]
    probes = next((a.results["probes"] for _, a in reversed(made) if _is_table(a.results.get("probes"))), None)
    if probes is not None:
        lines += ["", "what it can do", *_probe_lines(probes)]
    if report is not None:
        lines += ["", f"report   {report}"]
    if any((a.path / MODEL_FOLDER).is_dir() for _, a in made):
        where = _home_option(home)
        lines += [
            f"talk     {shlex.join(['gradus', 'chat', '--model', roadmap.name, *where])}",
            f"page     {shlex.join(['gradus', 'serve', roadmap.name, *where])}",
        ]
    return "\n".join(lines)


def run_command(roadmap: Roadmap, home: Path, only: Sequence[str] = ()) -> str:
    """The command that goes on with a walk, or with some stages of it, to be typed as it stands."""
    options = [
        *(word for name in only for word in ("--only", name)),
        *(["--smoke"] if roadmap.smoke else []),
        *_home_option(home),
    ]
    return shlex.join(["gradus", "run", str(roadmap.path), *roadmap.overrides, *options])


def _home_option(home: Path) -> list[str]:
    """Nothing where commands look there without being told. Of a dry run's folder, which does not stay, the home."""
    if home.name.startswith(DRY_HOME):
        home = home.parent
    return [] if home.resolve() == usual_home().resolve() else ["--home", str(home)]


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _probe_lines(probes: Mapping[str, Any]) -> list[str]:
    """One table: categories down, suites across; the total last."""
    suites = {name: _categories(suite) for name, suite in probes.items() if _is_table(suite) and "total" in suite}
    if not suites and "total" in probes:
        suites = {"probes": _categories(probes)}
    categories = dict.fromkeys(c for suite in suites.values() for c in suite if c != "total")
    rows = [[c, *(_score(suite.get(c)) for suite in suites.values())] for c in [*categories, "total"]]
    return ["  " + line for line in text_table(["", *suites], rows).splitlines()]


def _categories(suite: Mapping[str, Any]) -> dict[str, Any]:
    """Measures by category with the total, whether categories stand beside it or in a table of their own."""
    inner = suite.get("categories", {})
    beside = {name: value for name, value in suite.items() if _is_table(value) and "value" in value}
    return {**beside, **inner}


def _score(measure: Any) -> str:
    """A bar, the share, and how many of how many."""
    if not _is_table(measure) or "value" not in measure:
        return ""
    value = float(measure["value"])
    full = round(value * _BAR_WIDTH)
    count = ""
    if "n" in measure:
        successes = int(measure.get("successes", round(value * measure["n"])))
        count = f"  {successes}/{measure['n']}"
    return f"{'█' * full}{'░' * (_BAR_WIDTH - full)} {value:6.1%}{count}"
