"""Direct preference optimisation: a loss over pairs for the same training step as every other stage.

A batch holds pairs as neighbouring documents: 2i is the chosen answer with its prompt, 2i + 1 the rejected
one, targets only on the answers. The frozen model's log-probabilities of both are computed once, before
training, and travel in `batch.extra`. Source: Rafailov et al. 2023, eq. 7; the likelihood term that can be
added is Pang et al. 2024 (iterative RPO), eq. 1: the chosen answer's nats per token.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from gradus.core.settings import Settings
from gradus.data.loader import REFERENCE_LOGP, batch_of_documents
from gradus.data.shards import TokenStore
from gradus.model.batch import Batch
from gradus.model.transformer import Transformer
from gradus.train.losses import Loss, token_logp


class DPOSettings(Settings):
    """beta scales the log-ratios; sft_weight adds that much of the likelihood term."""

    beta: float = Field(default=0.1, gt=0.0)
    sft_weight: float = Field(default=0.0, ge=0.0)


def preference_loss(policy: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """-log sigmoid of each pair's margin.

    policy, reference: (2P,) log-probabilities in nats, chosen and rejected in turn. Returns the loss (P,) in
    nats and the reward margin (P,), beta x (log-ratio of chosen - log-ratio of rejected).
    """
    rewards = beta * (policy - reference)  # (2P,)
    margin = rewards[0::2] - rewards[1::2]  # (P,)
    return -F.logsigmoid(margin), margin


def answer_logps(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Each document's summed log-probability of its targets (2P,) fp32 in nats, and their number (2P,)."""
    per_token = token_logp(model, batch)
    owners = batch.documents.index[batch.supervised]
    num_documents = len(batch.documents.lengths)
    sums = torch.zeros(num_documents, dtype=per_token.dtype, device=per_token.device)
    counts = torch.bincount(owners, minlength=num_documents)
    return sums.index_add(0, owners, per_token), counts


def dpo_loss(settings: DPOSettings) -> Loss:
    """The loss of one micro-batch of pairs: (sum over pairs, number of pairs, sums of metrics over pairs).

    Metrics: margin, accuracy (pairs whose margin is above 0), chosen_reward, rejected_reward, chosen_logp,
    rejected_logp.
    """

    def loss(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        reference = batch.extra[REFERENCE_LOGP]
        policy, num_targets = answer_logps(model, batch)
        losses, margin = preference_loss(policy, reference, settings.beta)
        total = losses.sum()
        if settings.sft_weight:
            total = total - settings.sft_weight * (policy[0::2] / num_targets[0::2]).sum()
        with torch.no_grad():
            rewards = settings.beta * (policy - reference)
            metrics = {
                "margin": margin.sum(),
                "accuracy": (margin > 0).float().sum(),
                "chosen_reward": rewards[0::2].sum(),
                "rejected_reward": rewards[1::2].sum(),
                "chosen_logp": policy[0::2].sum(),
                "rejected_logp": policy[1::2].sum(),
            }
        return total, torch.tensor(len(losses), device=total.device), metrics

    return loss


@torch.no_grad()
def reference_logps(
    model: Transformer,
    store: TokenStore,
    *,
    documents_per_batch: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """The frozen model's log-probability of each document's answer, (documents,) float32, in store order.

    model: as it is before the first step, in the dtype that training computes in. on_progress: called with
    (documents done, all documents).
    """
    device = model.device
    found = np.zeros(store.num_documents, dtype=np.float32)
    for start in range(0, store.num_documents, documents_per_batch):
        documents = np.arange(start, min(start + documents_per_batch, store.num_documents))
        batch = batch_of_documents(store, documents).to(device)
        found[documents] = answer_logps(model, batch)[0].cpu().numpy()
        if on_progress is not None:
            on_progress(int(documents[-1]) + 1, store.num_documents)
    return found
