"""What a stage's checkpoints were measured at, and which of them is the best: noted by training, read by pull too."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from gradus.core.errors import ArtifactError
from gradus.core.home import MEASURES_FILE


def noted_measures(checkpoints: Path) -> dict[int, float]:
    """The measure of each step in a folder of checkpoints, none where nothing was noted. Errors: ArtifactError."""
    file = checkpoints / MEASURES_FILE
    try:
        return {int(step): float(measure) for step, measure in json.loads(file.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{file}: not what training notes there ({error}); delete it, and the best is found anew"
        ) from error


def best_step(checkpoints: Path, steps: Collection[int]) -> int | None:
    """Of some steps the one with the lowest measure, the later of equal ones. Errors: ArtifactError."""
    found = {step: measure for step, measure in noted_measures(checkpoints).items() if step in steps}
    return min(found, key=lambda step: (found[step], -step), default=None)
