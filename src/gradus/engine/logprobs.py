"""Log-probabilities of sampled tokens and of the likeliest ones beside them, as the model itself has them.

That is before temperature, penalties, top-k, top-p, min-p and constraints: what was sampled may be improbable to the
model, and what a constraint forbade stands among the likeliest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Of one sampled token. logprob: in nats; top: the likeliest tokens and theirs, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprobs(
    logits: Tensor, tokens: Sequence[int | None], num_top: Sequence[int | None]
) -> list[TokenLogprobs | None]:
    """What each row is told. logits: (B, V); num_top: likeliest tokens of each row, None where nothing is asked for."""
    rows = [row for row, number in enumerate(num_top) if number is not None]
    found: list[TokenLogprobs | None] = [None] * len(tokens)
    if not rows:
        return found
    logp = torch.log_softmax(logits[rows].float(), dim=-1)
    most = min(max(number or 0 for number in num_top), logits.shape[1])
    # Stable, so that ties fall to the lower token id, as argmax has it.
    values, order = torch.sort(logp, dim=-1, descending=True, stable=True)
    best, best_values = order[:, :most].tolist(), values[:, :most].tolist()
    for place, row in enumerate(rows):
        token = tokens[row]
        assert token is not None
        top = zip(best[place][: num_top[row]], best_values[place][: num_top[row]], strict=True)
        found[row] = TokenLogprobs(token, float(logp[place, token]), tuple(top))
    return found
