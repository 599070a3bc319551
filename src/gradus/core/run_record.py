"""What a walk writes about itself: roadmap.json in its folder of runs/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gradus.core.errors import ArtifactError
from gradus.core.home import RUN_RECORD


def run_record(run_folder: Path) -> dict[str, Any]:
    """What the last walk wrote about itself; its `stages` is a list of tables with `name` and `artifact`.

    Errors: ArtifactError where the folder holds no run, or its record cannot be read.
    """
    file = run_folder / RUN_RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{run_folder}: no walked roadmap here ({RUN_RECORD} is missing); walk one first: gradus run FILE"
        ) from None
    except ValueError as error:
        raise ArtifactError(f"{file}: damaged ({error}); gradus run writes it again") from None
    if not isinstance(record, dict) or "name" not in record or not _are_stages(record.get("stages")):
        raise ArtifactError(f"{file}: not the record of a walk; gradus run writes it again")
    return record


def _are_stages(stages: Any) -> bool:
    return isinstance(stages, list) and all(
        isinstance(one, dict) and {"name", "artifact"} <= one.keys() for one in stages
    )
