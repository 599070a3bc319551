"""Settings of learning from preferences. Torch-free, for plans and roadmaps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gradus.core.settings import Settings

PairLoss = Literal["sigmoid", "sigmoid_norm", "ipo", "robust", "apo_zero", "apo_down", "simpo"]


class DPOSettings(Settings):
    """loss: which function of a pair's log-probabilities, see posttrain.dpo.

    beta: how far the policy may leave its reference (in "ipo" the paper's tau, in "simpo" the scale of the mean
    log-probability, of which its authors take 2.0 to 2.5). sft_weight: so much of the likelihood term is added.
    label_smoothing: the share of pairs that are believed to be the wrong way round, for "robust". gamma: the margin
    that "simpo" asks for.
    """

    loss: PairLoss = "sigmoid"
    beta: float = Field(default=0.1, gt=0.0)
    sft_weight: float = Field(default=0.0, ge=0.0)
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    gamma: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _choices_have_meaning(self) -> DPOSettings:
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(f'label_smoothing has a meaning with loss = "robust" only, found loss = "{self.loss}"')
        if self.loss == "robust" and not self.label_smoothing:
            raise ValueError(
                'loss = "robust" needs label_smoothing, the share of pairs that may be the wrong way round'
            )
        if self.gamma and self.loss != "simpo":
            raise ValueError(f'gamma has a meaning with loss = "simpo" only, found loss = "{self.loss}"')
        return self

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares with a frozen model."""
        return self.loss != "simpo"
