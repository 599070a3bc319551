"""The guard: decides on the device whether a step counts, from what accepted steps looked like.

Only accepted losses enter the history, so that one bad step costs exactly one step: a refused value never
moves the mean it is judged by. The decision and all counters live on the device; nothing here waits for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradus.train.config import GuardSettings


class Guard:
    """History of accepted losses and counts of refused steps; all of it is part of a checkpoint."""

    def __init__(self, settings: GuardSettings, device: torch.device) -> None:
        self.settings = settings
        self.history = torch.zeros(settings.window, device=device)
        self.accepted = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_in_row = torch.zeros((), dtype=torch.int64, device=device)
        self._places = torch.arange(settings.window, device=device)

    def judge(self, loss: Tensor, grad_norm: Tensor, is_empty: Tensor) -> Tensor:
        """Whether to skip this step, () bool; records the verdict. loss, grad_norm: () of the whole step.

        is_empty: () bool, nothing counts in it. It is passed over, neither refused nor part of the history.
        """
        loss = loss.detach().float()
        skip = ~(torch.isfinite(loss) & torch.isfinite(grad_norm))
        if self.settings.spike_deviations is not None:
            skip = skip | self._is_spike(loss)
        here = self._places == self.accepted % self.settings.window
        is_accepted = ~(skip | is_empty)
        self.history = torch.where(here & is_accepted, loss, self.history)
        self.accepted = self.accepted + is_accepted.long()
        self.skipped = self.skipped + skip.long()
        self.skipped_in_row = torch.where(skip, self.skipped_in_row + 1, torch.zeros_like(self.skipped_in_row))
        return ~is_accepted

    def _is_spike(self, loss: Tensor) -> Tensor:
        assert self.settings.spike_deviations is not None
        known = self._places < self.accepted
        count = known.sum().clamp(min=1)
        mean = self.history.sum() / count  # unused places are zero
        variance = torch.where(known, self.history - mean, 0.0).square().sum() / count
        limit = mean + self.settings.spike_deviations * variance.sqrt()
        return (self.accepted >= self.settings.min_history) & (loss > limit)

    def forget_row(self) -> None:
        """Begin to count refused steps in a row anew: other data comes now."""
        self.skipped_in_row = torch.zeros_like(self.skipped_in_row)

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        return {
            "history": self.history,
            "accepted": self.accepted,
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`. A changed window starts with an empty history."""
        device = self.history.device
        if state["history"].shape == self.history.shape:
            self.history = state["history"].to(device)
            self.accepted = state["accepted"].to(device)
        self.skipped = state["skipped"].to(device)
        self.skipped_in_row = state["skipped_in_row"].to(device)
