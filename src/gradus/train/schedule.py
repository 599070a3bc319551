"""Learning rate by global step: a pure function, so a resumed run needs no scheduler state. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradus.train.config import ScheduleSettings


@dataclass(frozen=True)
class Schedule:
    """`schedule(step)` is the share of the peak rate that step `step` (from 0) of `steps` trains with."""

    settings: ScheduleSettings
    steps: int

    @property
    def warmup_steps(self) -> int:
        if self.settings.warmup_steps is not None:
            return min(self.settings.warmup_steps, self.steps)
        return round(self.settings.warmup_fraction * self.steps)

    def __call__(self, step: int) -> float:
        s = self.settings
        warmup = self.warmup_steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        begin = warmup
        if s.kind == "wsd":
            begin = max(warmup, self.steps - round(s.decay_fraction * self.steps))
        if step < begin:
            return 1.0
        # 0 at the first step of the decay, 1 one past the last.
        progress = (step - begin) / max(1, self.steps - begin)
        progress = min(1.0, progress)
        left = 0.5 * (1 + math.cos(math.pi * progress)) if s.kind == "cosine" else 1 - progress
        return s.final_fraction + (1 - s.final_fraction) * left
