"""A stage that begins with the optimizer state of the stage of `from`: found, taken over, told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gradus.core.errors import ArtifactError, ConfigError, TrainingError
from gradus.core.quantity import format_count
from gradus.roadmap.models import ModelReference, training_state
from gradus.roadmap.place import Place

if TYPE_CHECKING:
    from gradus.train.optimizers import Optimizer


def carry_over(optimizer: Optimizer, parent: ModelReference | None, place: Place) -> None:
    """Take over the state that the parent's optimizer ended with; a checkpoint of this stage later replaces it.

    Errors: ConfigError without a parent; TrainingError where its state is gone, damaged, or of another optimizer.
    """
    from gradus.train.checkpoint import open_checkpoint

    fresh = 'or write optimizer = "fresh", which begins with moments of zero'
    if parent is None:
        raise ConfigError(f'optimizer = "warm" takes over the state of `from`; name that stage, {fresh}')
    try:
        checkpoint = open_checkpoint(training_state(parent), verify=False)  # the walk has checked every byte
        checkpoint.carry_over(optimizer)
    except ArtifactError as error:
        raise TrainingError(
            f'optimizer = "warm": {error}; train with the optimizer of {parent.label}, {fresh}'
        ) from None
    place.progress.line(
        f"  optimizer state of {parent.label} after {checkpoint.step:,} steps taken over "
        f"({format_count(state_bytes(checkpoint.path))}B); the schedule begins anew"
    )


def state_bytes(checkpoint: Path) -> int:
    """Size of the optimizer's state in a checkpoint, in one file or several."""
    from gradus.train.checkpoint import OPTIMIZER_FILE

    return sum(file.stat().st_size for file in checkpoint.glob(f"{Path(OPTIMIZER_FILE).stem}*.safetensors"))
