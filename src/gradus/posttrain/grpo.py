"""Group relative policy optimisation: a loss over sampled answers for the same training step as every other stage.

Sources. Advantages of a group of answers to one prompt: Shao et al. 2024 (DeepSeekMath), section 4.1.2; without the
division by the standard deviation: Liu et al. 2025 (Dr. GRPO), section 3. Clipping with two bounds, the mean over all
tokens of a step and leaving out groups without a difference: Yu et al. 2025 (DAPO), equations 8 to 12. The divergence
from the reference: Schulman 2020, "k3", as in DeepSeekMath, equation 4.

Departures: where DAPO samples anew until enough groups differ, the step goes on with the groups that do; and a group
that is left out counts in no denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from gradus.core.settings import Settings
from gradus.core.temperature import DrawingTemperature
from gradus.model.batch import Batch
from gradus.model.transformer import Transformer
from gradus.train.losses import Loss, supervised_hidden, target_logp, token_entropy, token_logp

ADVANTAGE = "advantage"
OLD_LOGP = "old_logp"
REFERENCE_LOGP = "reference_logp"
ENTROPY = "entropy"
STD_EPSILON = 1e-4  # as TRL has it; rewards are of the order of 1


class GRPOSettings(Settings):
    """epsilon_low, epsilon_high: how far below and above 1 the ratio of a token's probabilities still has a gradient.

    kl_beta: weight of the divergence from the model that training began with. denominator: "tokens" divides by all
    trained tokens of a step (DAPO), "constant" by answers x max_tokens (Dr. GRPO). max_tokens: of an answer.
    """

    epsilon_low: float = Field(default=0.2, gt=0.0, lt=1.0)
    epsilon_high: float = Field(default=0.28, gt=0.0)
    kl_beta: float = Field(default=0.0, ge=0.0)
    denominator: Literal["tokens", "constant"] = "tokens"
    max_tokens: int = Field(default=256, ge=1)
    temperature: DrawingTemperature = 1.0


def group_advantages(rewards: Sequence[float], scale: Literal["std", "none"]) -> list[float]:
    """Each answer's reward less the group's mean, divided by the standard deviation (n - 1) where `scale` says so.

    rewards: of one group, at least two. Where all are equal every advantage is 0.
    """
    n = len(rewards)
    mean = sum(rewards) / n
    centred = [reward - mean for reward in rewards]
    if all(reward == rewards[0] for reward in rewards):
        return [0.0] * n  # and not what rounding leaves of the mean
    if scale == "none":
        return centred
    std = (sum(value * value for value in centred) / (n - 1)) ** 0.5
    return [value / (std + STD_EPSILON) for value in centred]


def policy_terms(
    logp: Tensor, old_logp: Tensor, reference_logp: Tensor, advantage: Tensor, settings: GRPOSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of each token, (M,), and sums of what is watched over the tokens.

    All inputs are (M,): log-probabilities in nats under the policy, the policy that sampled and the reference, and the
    advantage of the answer that the token belongs to. Watched: kl (k3), ratio, ratio_distance (its distance from 1),
    clipped (tokens whose gradient the bounds cut off).
    """
    ratio = torch.exp(logp - old_logp)
    bounded = ratio.clamp(1 - settings.epsilon_low, 1 + settings.epsilon_high)
    losses = -torch.minimum(ratio * advantage, bounded * advantage)  # DAPO, equation 8
    behind = reference_logp - logp
    kl = torch.exp(behind) - behind - 1  # DeepSeekMath, equation 4
    if settings.kl_beta:
        losses = losses + settings.kl_beta * kl
    with torch.no_grad():
        too_low = (ratio < 1 - settings.epsilon_low) & (advantage < 0)
        too_high = (ratio > 1 + settings.epsilon_high) & (advantage > 0)
        watched = {
            "kl": kl.detach().sum(),
            "ratio": ratio.sum(),
            "ratio_distance": (ratio - 1).abs().sum(),
            "clipped": (too_low | too_high).float().sum(),
        }
    return losses, watched


def grpo_loss(settings: GRPOSettings) -> Loss:
    """The loss of one micro-batch of answers: (sum over tokens, what the sum is divided by, sums of metrics).

    Of `batch.extra`: advantage (documents,), and for each supervised token old_logp, reference_logp and entropy (M,).
    Metrics, as means over tokens: kl, ratio, ratio_distance (from 1), clipped, entropy of the policy that sampled.
    """

    def loss(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logp = token_logp(model, batch, settings.temperature)
        advantage = batch.extra[ADVANTAGE][batch.documents.index[batch.supervised]]
        losses, watched = policy_terms(logp, batch.extra[OLD_LOGP], batch.extra[REFERENCE_LOGP], advantage, settings)
        # Filled on the device: torch.tensor(number, device=...) would make the host wait for a GPU.
        num_tokens = torch.full((), len(logp), device=logp.device)
        count = num_tokens
        if settings.denominator == "constant" and len(logp):
            count = torch.full((), len(batch.documents.lengths) * settings.max_tokens, device=logp.device)
        watched["entropy"] = batch.extra[ENTROPY].sum()
        # The step divides every metric by the count of the loss; these are means over tokens in any case.
        scale = count / num_tokens.clamp(min=1)
        return losses.sum(), count, {name: value * scale for name, value in watched.items()}

    return loss


@torch.no_grad()
def with_policy(batch: Batch, model: Transformer, reference: Transformer, temperature: float) -> Batch:
    """The batch with the log-probabilities of the model as it is now, as the policy that sampled, and of the reference.

    They are computed here and not taken from the sampler, which adds up in another order with a cache and may compute
    in other blocks: ratios would differ from 1 before any update, and clipping would act on rounding.
    """
    hidden, targets = supervised_hidden(model, batch)
    softcap = model.config.softcap
    extra = batch.extra | {
        OLD_LOGP: target_logp(hidden, model.head_weight, targets, softcap, temperature),
        ENTROPY: token_entropy(hidden, model.head_weight, softcap, temperature),
        REFERENCE_LOGP: token_logp(reference, batch, temperature),
    }
    return batch.with_extra(extra)
