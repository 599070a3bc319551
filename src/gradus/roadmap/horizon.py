"""How long to train, in any of its terms: steps, tokens, epochs, FLOPs, tokens per parameter."""

from __future__ import annotations

import math

from gradus.core.quantity import Quantity, format_count


def horizon_steps(
    horizon: Quantity, batch_tokens: int, *, parameters: float, flops_per_token: float, epoch_tokens: float
) -> int:
    """Optimizer steps of a horizon, at least one; a step that has begun is made whole.

    parameters: those that tokens are multiplied by, matrices and head; flops_per_token: of a training step.
    """
    if horizon.unit == "steps":
        return max(1, round(horizon.value))
    tokens_each = {"tokens": 1.0, "epochs": epoch_tokens, "flops": 1 / flops_per_token, "tokens/param": parameters}
    return max(1, math.ceil(horizon.value * tokens_each[horizon.unit] / batch_tokens))


def horizon_text(steps: int, tokens: float, flops: float | None, parameters: float | None) -> str:
    """One horizon in all its terms: "500 steps = 2.05 M tokens = 1.2e+13 FLOPs = 2.3 tokens/param"."""
    parts = [f"{steps:,} steps", f"{format_count(tokens)} tokens"]
    if flops is not None:
        parts.append(f"{flops:.3g} FLOPs")
    if parameters:
        parts.append(f"{tokens / parameters:.3g} tokens/param")
    return " = ".join(parts)
