"""The stages of a run as the report sees them: done, being made, waiting or damaged, and where each lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradus.core.artifact import SCRATCH, Artifact, open_artifact
from gradus.core.errors import ArtifactError
from gradus.core.home import ARTIFACTS, WORK_SUFFIX

State = Literal["done", "working", "waiting", "damaged"]


@dataclass(frozen=True)
class StageView:
    """One stage of the run's record, with its artifact or the folder where it is being made, if any.

    note: in words, why there is no artifact.
    """

    record: Mapping[str, Any]
    state: State
    folder: Path | None = None
    artifact: Artifact | None = None
    note: str = ""

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def results(self) -> Mapping[str, Any]:
        """What the finished stage measured; empty before."""
        return self.artifact.results if self.artifact is not None else {}

    def file(self, name: str) -> Path | None:
        """A file that the stage left or has so far; None where there is none of that name."""
        path = self.folder / name if self.folder is not None else None
        return path if path is not None and path.is_file() else None


def stage_view(run_folder: Path, record: Mapping[str, Any]) -> StageView:
    """Find what a stage left: under the run folder's link, or by name in the artifacts beside runs/."""
    link = run_folder / str(record["name"])
    expected = str(record["artifact"])
    linked = link.resolve() if link.is_dir() else None
    # runs/ may be a link to a folder elsewhere: the artifacts lie beside the link.
    homes = [path.parent.parent for path in (run_folder.absolute(), run_folder.resolve())]
    folder = next((home for home in homes if (home / ARTIFACTS).is_dir()), homes[-1]) / ARTIFACTS / expected
    if linked is not None and linked.name == expected:
        folder = linked
    if folder.is_dir():
        try:
            return StageView(record, "done", folder, open_artifact(folder, verify=False))
        except ArtifactError as error:
            return StageView(record, "damaged", note=str(error))
    work = folder.with_name(folder.name + WORK_SUFFIX)
    if work.is_dir() and any(path.name != SCRATCH for path in work.iterdir()):
        return StageView(record, "working", work, note="not finished; what it has so far is shown")
    if linked is not None:
        return StageView(record, "waiting", note="its settings or inputs have changed since it last ran")
    return StageView(record, "waiting", note="has not run yet")
