"""Settings of training: optimizer, schedule, guard. Defaults are measured; see docs on training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gradus.core.settings import Settings

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Parallel = Literal["replicate", "shard", "hybrid"]
ActivationCheckpointing = Literal["none", "selective", "full"]


class OptimizerSettings(Settings):
    """What trains the matrices inside blocks, and the rest: embedding, head and norm weights.

    matrix_lr is in units of orthogonal updates: one step at rate 1 moves every singular value of a square
    matrix by 1. The other rates are AdamW's, per parameter. With matrix = "adamw" matrix_lr is AdamW's too; "adamw8bit"
    is AdamW that keeps its moments in 8 bits a value (`pip install "gradus[optim]"`). Rates of Adafactor, which keeps
    one number a row and a column, are relative to the size of a parameter's values.
    state: "fresh" begins with moments of zero, "warm" with those that the stage of `from` ended with; the schedule
    begins anew in either case. `optimizer = "warm"` is short for `optimizer = { state = "warm" }`.
    clip_norm: the length to which a longer gradient of all parameters together is scaled; `grad_norm` in the log is the
    length before.
    """

    state: Literal["fresh", "warm"] = "fresh"
    matrix: Literal["muon", "adamw", "adamw8bit", "adafactor"] = "muon"
    rest: Literal["adamw", "adamw8bit", "adafactor"] = "adamw"
    matrix_lr: float = Field(default=0.02, ge=0)
    embed_lr: float = Field(default=0.02, ge=0)
    head_lr: float = Field(default=0.004, ge=0)
    vector_lr: float = Field(default=0.005, ge=0)
    scalar_lr: float = Field(default=0.05, ge=0)  # of the numbers and gates that mix in what came before
    adapter_lr: float = Field(default=0.001, ge=0)  # of low-rank adapters
    balance_lr: float = Field(default=0.001, ge=0)  # how far a step moves a router's biases
    momentum: float = Field(default=0.95, ge=0, lt=1)
    momentum_start: float = Field(default=0.85, ge=0, lt=1)
    momentum_warmup_steps: int = Field(default=300, ge=0)
    variance_beta: float | None = Field(default=0.9, ge=0, lt=1)  # NorMuon; None: plain Muon
    beta1: float = Field(default=0.8, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-10, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)  # of matrices, times the current lr
    cautious: bool = True  # decay only where decay and update agree in sign
    clip_norm: float | None = Field(default=None, gt=0)


class ScheduleSettings(Settings):
    """Learning rate over the run, as a share of its peak. Fractions are of all steps.

    wsd: warm-up, flat, then linear decay over the last decay_fraction; cosine and linear decay from the end
    of the warm-up. All end at final_fraction of the peak. warmup_steps, where given, replaces
    warmup_fraction.
    """

    kind: Literal["wsd", "cosine", "linear"] = "wsd"
    warmup_fraction: float = Field(default=0.01, ge=0, le=1)
    warmup_steps: int | None = Field(default=None, ge=0)
    decay_fraction: float = Field(default=0.65, ge=0, le=1)
    final_fraction: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _phases_fit(self) -> ScheduleSettings:
        if self.kind == "wsd" and self.warmup_steps is None:
            total = self.warmup_fraction + self.decay_fraction
            if total > 1:
                raise ValueError(
                    f"warmup_fraction {self.warmup_fraction:g} and decay_fraction {self.decay_fraction:g} "
                    f"add up to {total:g}, more than the whole run"
                )
        return self


class GuardSettings(Settings):
    """Which steps are refused, and when refusing stops the run.

    A step is refused if its loss or gradient is not finite, or its loss lies more than spike_deviations
    standard deviations above the mean of the last `window` accepted steps (None: finite steps always count).
    """

    spike_deviations: float | None = Field(default=10.0, gt=0)
    window: int = Field(default=128, ge=2)
    min_history: int = Field(default=64, ge=2)
    skips_in_row: int = Field(default=10, ge=1)
    max_rollbacks: int = Field(default=3, ge=0)
