"""Which rows a step trains on: a pure function of (generation, seed, step), for any number of ranks.

Rows are counted without end: step s takes rows [s x rows_per_step, (s + 1) x rows_per_step) of an unbroken
sequence of epochs. Each epoch is its own permutation of all rows, so every row comes once an epoch, and the
last step of an epoch is filled from the next. A rank takes every world-th row of the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.data.permutation import permutation_keys, permuted, unpermute
from gradus.data.row_mixture import RowMixture


@dataclass(frozen=True)
class RowOrder:
    """The order of `num_rows` rows.

    micro_rows: rows of one micro-batch, at most. generation: of the token shard set. mixture: by weight over sources,
    in the place of epochs over all rows. first_row: where step 0 begins in the endless sequence, for a run that
    continues another one.
    """

    num_rows: int
    seed: int
    rows_per_step: int
    micro_rows: int
    rank: int = 0
    world: int = 1
    generation: int = 1
    mixture: RowMixture | None = None
    first_row: int = 0

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise DataError("there are no rows to train on")
        if self.rows_per_step < 1 or self.micro_rows < 1:
            raise DataError(
                f"rows_per_step and micro_rows must be at least 1, found {self.rows_per_step} and {self.micro_rows}"
            )
        if not 0 <= self.rank < self.world:
            raise DataError(f"rank must be within 0..{self.world - 1}, found {self.rank}")
        if self.rows_per_step < self.world:
            raise DataError(
                f"{self.rows_per_step} rows a step cannot be shared by {self.world} processes; make the step larger "
                "(batch_tokens, or pairs_per_step of dpo), or start fewer processes"
            )

    def step_rows(self, step: int) -> NDArray[np.int64]:
        """(rows_per_step,) the rows of a step over all ranks, in order. step: from 0."""
        if step < 0:
            raise DataError(f"a step must be at least 0, found {step}")
        place = self.place(step) + np.arange(self.rows_per_step, dtype=np.int64)
        if self.mixture is not None:
            return self.mixture.rows(place, self.seed, self.generation)
        epochs, positions = np.divmod(place, self.num_rows)
        rows = np.empty_like(positions)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            rows[here] = permuted(positions[here], self.num_rows, *_epoch_names(self.seed, epoch, self.generation))
        return rows

    def micro_batches(self, step: int) -> list[NDArray[np.int64]]:
        """This rank's rows of a step, cut into micro-batches; at least one row."""
        return self.shared(self.step_rows(step))

    def shared(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """This rank's part of a step's rows, cut into micro-batches."""
        rows = rows[self.rank :: self.world]
        return [rows[start : start + self.micro_rows] for start in range(0, len(rows), self.micro_rows)]

    def place(self, step: int) -> int:
        """Where a step begins in the endless sequence of rows."""
        return self.first_row + step * self.rows_per_step

    def epochs_before(self, step: int) -> float:
        """Epochs over all rows that are complete, with the fraction, before a step begins."""
        return self.place(step) / self.num_rows

    def steps_for_epochs(self, epochs: float) -> int:
        """The fewest steps that hold so many epochs."""
        return max(1, int(np.ceil(epochs * self.num_rows / self.rows_per_step - 1e-9)))

    def step_of_row(self, row: int, epoch: int = 0) -> int:
        """The step that trains on a row in an epoch; without a mixture. Below 0 it came before `first_row`."""
        if self.mixture is not None:
            raise DataError("rows of a mixture come by source, not by epochs over all rows")
        keys = permutation_keys(*_epoch_names(self.seed, epoch, self.generation))
        position = int(unpermute(np.array([row]), self.num_rows, keys)[0])
        return (epoch * self.num_rows + position - self.first_row) // self.rows_per_step


def _epoch_names(seed: int, epoch: int, generation: int) -> tuple[int | str, ...]:
    # The first generation is not named, so that sets which nothing was appended to keep the order they always had.
    return ("rows", seed, epoch) if generation == 1 else ("rows", seed, epoch, generation)
