"""The horizon law: how large a step, what rates and what weight decay a run of so many tokens wants. Torch-free.

Fitted by nanochat on depths up to 26, from a reference run of depth 12 on 12 tokens for each parameter in matrices and
head: tokens of a step grow with the horizon's power 0.383 (Power Lines, Bergsma et al. 2025), rounded to a power
of two; rates with the square root of the step; weight decay with that and against the horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradus.train.config import OptimizerSettings

REFERENCE_DEPTH = 12
REFERENCE_TOKENS_PER_PARAMETER = 12.0
REFERENCE_BATCH_TOKENS = 2**19
_EXPONENT = 0.383
_RATES = ("matrix_lr", "embed_lr", "head_lr", "vector_lr", "scalar_lr")


@dataclass(frozen=True)
class HorizonLaw:
    """batch_tokens: of one step; rate_scale, decay_scale: what to multiply the reference's rates and decay with."""

    batch_tokens: int
    rate_scale: float
    decay_scale: float

    def optimizer(self, reference: OptimizerSettings) -> OptimizerSettings:
        """The settings for this run, from those of the reference."""
        rates = {name: getattr(reference, name) * self.rate_scale for name in _RATES}
        return reference.model_copy(update=rates | {"weight_decay": reference.weight_decay * self.decay_scale})


def horizon_law(tokens: float, reference_parameters: int) -> HorizonLaw:
    """The law for a run on `tokens`; reference_parameters: in matrices and head of the model at depth 12."""
    reference_tokens = REFERENCE_TOKENS_PER_PARAMETER * reference_parameters
    wanted = REFERENCE_BATCH_TOKENS * (tokens / reference_tokens) ** _EXPONENT
    batch_tokens = 2 ** round(math.log2(wanted))
    rate_scale = math.sqrt(batch_tokens / REFERENCE_BATCH_TOKENS)
    return HorizonLaw(batch_tokens, rate_scale, rate_scale * reference_tokens / tokens)
