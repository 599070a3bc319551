"""A walk that keeps nothing: every stage is run as in any walk, in a folder that is thrown away at the end.

What earlier walks have finished is used where it lies and not changed; later stages take what earlier ones made within
the same dry run. Downloads that are there are used. Answers of remote models, which were paid for, are the one thing
that is kept, where every walk keeps them.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradus.core.artifact import Artifact
from gradus.core.comparison import named_measures
from gradus.core.devices import DEVICES_FILE
from gradus.core.errors import GradusError
from gradus.core.home import ANSWERS, ARTIFACTS, DRY_HOME, LOCK, RAW
from gradus.core.lock import exclusive_lock
from gradus.core.quantity import format_seconds
from gradus.roadmap.launched import Meeting
from gradus.roadmap.progress import Progress
from gradus.roadmap.run import WalkResult, walk
from gradus.roadmap.schema import Roadmap
from gradus.roadmap.status import artifact_path
from gradus.roadmap.table import text_table

_SHOWN_MEASURES = 6  # of a stage
_TELLING, _TOTALS = ("loss", "bpb", "validation_loss", "audit.clean"), (".total", ".acc", ".pass@1")
_BEGIN_SECONDS = 60.0  # until a dry run surely holds its lock


def dry_walk(
    roadmap: Roadmap,
    home: Path,
    progress: Progress,
    only: Sequence[str] = (),
    override: str | None = None,
    meeting: Meeting | None = None,
) -> WalkResult:
    """Walk as `walk` does and leave nothing of it; the artifacts of the result are there no more, their results are.

    Errors: as of `walk`.
    """
    with dry_home(roadmap, home) as folder:
        progress.line("dry run: nothing of it is kept, no checkpoint, artifact or report\n")
        result = walk(replace(roadmap, push=None, track=None), folder, progress, only, override, meeting, keeps=False)
        made = {name: a for name, a in result.artifacts.items() if not (folder / ARTIFACTS / a.path.name).is_symlink()}
    progress.line(_closing(made))
    return result


@contextmanager
def dry_home(roadmap: Roadmap, home: Path) -> Iterator[Path]:
    """A home inside the home, with links to what the roadmap's stages have finished; deleted at the end.

    Those of dry runs that were killed are deleted first.
    """
    is_fresh = not home.exists()
    home.mkdir(parents=True, exist_ok=True)
    sweep_dry_homes(home)
    folder = home.resolve() / f"{DRY_HOME}{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        with exclusive_lock(folder / LOCK, "another dry run has this folder"):
            try:
                _link(roadmap, home.resolve(), folder)
                yield folder
            finally:
                # While it is held: a dry run that begins would else delete it at the same time.
                shutil.rmtree(folder)
    finally:
        if is_fresh and not any(home.iterdir()):
            home.rmdir()


def _link(roadmap: Roadmap, home: Path, folder: Path) -> None:
    (folder / ARTIFACTS).mkdir()
    for stage in roadmap.stages:
        finished = artifact_path(home / ARTIFACTS, stage)
        here = folder / ARTIFACTS / finished.name
        if finished.exists() and not here.is_symlink():
            here.symlink_to(finished, target_is_directory=True)
    if (home / DEVICES_FILE).exists():
        (folder / DEVICES_FILE).symlink_to(home / DEVICES_FILE)
    # File by file, so that what is fetched now goes, and of what is there a link at most.
    for file in (home / RAW).rglob("*"):
        if file.is_file() and file.suffix != ".part":
            here = folder / RAW / file.relative_to(home / RAW)
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(file)
    # It need not be there yet: the first answer makes it.
    (folder / ANSWERS).symlink_to(home / ANSWERS)


def sweep_dry_homes(home: Path) -> None:
    """Delete the folders of dry runs that were killed; one that goes on holds its lock, or is just being made."""
    for folder in home.glob(f"{DRY_HOME}*"):
        try:
            is_new = time.time() - folder.stat().st_mtime < _BEGIN_SECONDS
            if is_new and not (folder / LOCK).is_file():
                continue
            with exclusive_lock(folder / LOCK, "in use"):
                # A process of the killed run may write its last file; the next sweep finds what is left then.
                shutil.rmtree(folder, ignore_errors=True)
        except (GradusError, FileNotFoundError):
            continue  # in use, or deleted by its own run meanwhile


def _closing(made: Mapping[str, Artifact]) -> str:
    """What each stage took and measured."""
    rows = [[name, format_seconds(a.manifest.seconds), _figures(a.results)] for name, a in made.items()]
    table = text_table(["stage", "took", "measured"], rows) if rows else "no stage was run: all are finished already"
    return f"\n{table}\n\nthe dry run is over; nothing was kept"


def _figures(results: Mapping[str, Any]) -> str:
    """Losses, bits per byte and totals by name; failing those, the first figures."""
    measures = named_measures(results, numbers=True)
    telling = [n for n in measures if n in _TELLING or (n.startswith(("probes", "tasks")) and n.endswith(_TOTALS))]
    shown = (telling or [name for name in measures if "." not in name])[:_SHOWN_MEASURES]
    return ", ".join(f"{name} {measures[name]['value']:.4g}" for name in shown)
