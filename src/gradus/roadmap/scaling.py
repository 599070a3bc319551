"""`scaling = "auto"` of a pretraining stage: its step, rates and weight decay by the horizon law. Torch-free."""

from __future__ import annotations

from typing import TypeVar

from gradus.core.errors import ConfigError
from gradus.core.quantity import Quantity
from gradus.model.config import WIDTH_PER_DEPTH, ModelConfig, derived_sizes
from gradus.model.cost import multiplied_parameters
from gradus.roadmap.estimate import steps_of
from gradus.roadmap.training import TrainingSettings
from gradus.train.horizon import REFERENCE_DEPTH, HorizonLaw, horizon_law

_FAR = 10.0  # weight decay grows as the horizon shrinks; from here on the law is a guess
_Settings = TypeVar("_Settings", bound=TrainingSettings)


def stage_law(horizon: Quantity, config: ModelConfig, epoch_tokens: float, mean_context: float) -> HorizonLaw:
    """The law for a stage's horizon; ConfigError where the horizon is in steps, whose tokens it is to say."""
    if horizon.unit == "steps":
        raise ConfigError(
            f'scaling = "auto" sets the tokens of a step, so a horizon of {horizon} says too little; '
            'expected one in another unit, such as "12 tokens/param"'
        )
    tokens = steps_of(horizon, 1, config, epoch_tokens, mean_context)
    return horizon_law(tokens, multiplied_parameters(_reference(config)))


def law_settings(settings: _Settings, law: HorizonLaw) -> _Settings:
    """A stage's settings with what the law says in them; what was written for the optimizer is the reference's."""
    update = {"batch_tokens": law.batch_tokens, "optimizer": law.optimizer(settings.optimizer)}
    return settings.model_copy(update=update)


def law_note(law: HorizonLaw) -> str:
    """What the law chose, for the plan."""
    text = (
        f"scaling: {law.batch_tokens:,} tokens a step, rates x {law.rate_scale:.3g}, "
        f"weight decay x {law.decay_scale:.3g}"
    )
    if law.decay_scale > _FAR:
        text += "; the run is far shorter than those the law was fitted on"
    return text


def _reference(config: ModelConfig) -> ModelConfig:
    """The dial's model at the reference depth, of the same make and vocabulary, without experts."""
    width = WIDTH_PER_DEPTH * REFERENCE_DEPTH
    sizes = {"depth": REFERENCE_DEPTH, "width": width} | derived_sizes(width, gated=config.is_gated)
    dense = {"num_experts": None, "expert_width": None, "shared_experts": 0, "dense_layers": 0}
    return config.model_copy(update=sizes | dense)
