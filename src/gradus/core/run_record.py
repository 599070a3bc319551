"""The record that a walk writes about itself, runs/<roadmap>/roadmap.json: the roadmap, its stages, their artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gradus.core.errors import ArtifactError
from gradus.core.home import RUN_RECORD, RUNS


def read_run_record(run: Path) -> dict[str, Any]:
    """What the last walk wrote in a run's folder. Errors: ArtifactError where the folder holds no run."""
    file = run / RUN_RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{run}: no walked roadmap here ({RUN_RECORD} is missing); walk one first: gradus run FILE"
        ) from None
    except ValueError as error:
        raise ArtifactError(f"{file}: damaged ({error}); gradus run writes it again") from None
    stages = record.get("stages") if isinstance(record, dict) else None
    if not isinstance(stages, list) or "name" not in record or not all(map(_is_stage, stages)):
        raise ArtifactError(f"{file}: not the record of a walk; gradus run writes it again")
    return dict(record)


def _is_stage(entry: object) -> bool:
    return isinstance(entry, dict) and {"name", "artifact"} <= entry.keys()


def walked_runs(home: Path) -> list[str]:
    """Names of the runs of a home that have a record, in the order of the alphabet."""
    return sorted(path.parent.name for path in (home / RUNS).glob(f"*/{RUN_RECORD}"))
