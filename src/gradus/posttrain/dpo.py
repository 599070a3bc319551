"""Preference optimisation: losses over pairs for the same training step as every other stage.

A batch holds pairs as neighbouring documents: 2i is the chosen answer with its prompt, 2i + 1 the rejected
one, targets only on the answers. The frozen model's log-probabilities of both are computed once, before
training, and travel in `batch.extra`. With log-ratios r = log pi(y|x) - log pi_ref(y|x) of chosen (c) and rejected (l)
and n tokens in an answer, the loss of a pair is

    sigmoid       -log sigma(beta (r_c - r_l))   DPO, Rafailov et al. 2023, eq. 7
    sigmoid_norm  -log sigma(beta (r_c / n_c - r_l / n_l))   the same by token; Tülu 3, Lambert et al. 2024, eq. 6
    ipo           (r_c / n_c - r_l / n_l - 1 / (2 beta))^2   IPO, Azar et al. 2023, eq. 17, by token as TRL has it
    robust        sigmoid with labels wrong at the rate e, unbiased   Chowdhury et al. 2024, eq. 12
    apo_zero      1 - sigma(beta r_c) + sigma(beta r_l)   APO, D'Oosterlinck et al. 2024, eq. 7
    apo_down      sigma(beta r_c) + 1 - sigma(beta (r_c - r_l))   the same, eq. 8
    simpo         -log sigma(beta (p_c / n_c - p_l / n_l) - gamma)   SimPO, Meng et al. 2024, eq. 6; p: log pi(y|x)

The likelihood term that can be added to each is Pang et al. 2024 (iterative RPO), eq. 1: the chosen answer's nats per
token. Values equal TRL's (tests/posttrain/test_trl.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gradus.data.loader import REFERENCE_LOGP, batch_of_documents
from gradus.data.shards import TokenStore
from gradus.model.batch import Batch
from gradus.model.sharing import share_prefixes
from gradus.model.transformer import Transformer
from gradus.posttrain.config import DPOSettings
from gradus.train.losses import Loss, token_logp
from gradus.train.parallel import World


def preference_loss(
    settings: DPOSettings, policy: Tensor, reference: Tensor | None, num_targets: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of each pair, without the likelihood term, and the reward of each answer.

    policy, reference: (2P,) log-probabilities in nats, chosen and rejected in turn; reference None where the loss has
    none. num_targets: (2P,) tokens of each answer. Returns (P,) and (2P,) beta x log-ratio, of "simpo" beta x the mean
    log-probability of a token.
    """
    beta, kind = settings.beta, settings.loss
    if reference is None:
        assert not settings.has_reference
        rewards = beta * (policy / num_targets)
        margin = rewards[0::2] - rewards[1::2]
        return -F.logsigmoid(margin - settings.gamma), rewards
    change = policy - reference  # (2P,) log-ratios
    rewards = beta * change
    chosen, rejected = rewards[0::2], rewards[1::2]
    margin = chosen - rejected  # (P,)
    if kind in ("sigmoid_norm", "ipo"):
        by_token = change / num_targets
        difference = by_token[0::2] - by_token[1::2]
        return (difference - 1 / (2 * beta)) ** 2 if kind == "ipo" else -F.logsigmoid(beta * difference), rewards
    if kind == "robust":
        wrong = settings.label_smoothing
        clean, flipped = F.logsigmoid(margin), F.logsigmoid(-margin)
        return -((1 - wrong) * clean - wrong * flipped) / (1 - 2 * wrong), rewards
    if kind == "apo_zero":
        return 1 - torch.sigmoid(chosen) + torch.sigmoid(rejected), rewards
    if kind == "apo_down":
        return torch.sigmoid(chosen) + 1 - torch.sigmoid(margin), rewards
    return -F.logsigmoid(margin), rewards


def answer_logps(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Each document's summed log-probability of its targets (2P,) fp32 in nats, and their number (2P,)."""
    per_token = token_logp(model, batch)
    owners = batch.documents.index[batch.supervised]
    num_documents = len(batch.documents.lengths)
    sums = torch.zeros(num_documents, dtype=per_token.dtype, device=per_token.device)
    # Not bincount: the host would wait for a GPU.
    counts = owners.new_zeros(num_documents).scatter_add_(0, owners, torch.ones_like(owners))
    return sums.index_add(0, owners, per_token), counts


def dpo_loss(settings: DPOSettings) -> Loss:
    """The loss of one micro-batch of pairs: (sum over pairs, number of pairs, sums of metrics over pairs).

    Metrics, see `pair_metrics`.
    """

    def loss(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        reference = batch.extra[REFERENCE_LOGP] if settings.has_reference else None
        policy, num_targets = answer_logps(model, batch)
        losses, rewards = preference_loss(settings, policy, reference, num_targets)
        total = losses.sum()
        if settings.sft_weight:
            total = total - settings.sft_weight * (policy[0::2] / num_targets[0::2]).sum()
        metrics = pair_metrics(rewards.detach(), policy.detach(), reference, num_targets)
        return total, torch.full((), len(losses), device=total.device), metrics

    return loss


def pair_metrics(rewards: Tensor, policy: Tensor, reference: Tensor | None, num_targets: Tensor) -> dict[str, Tensor]:
    """What to watch while preferences are learned, each summed over pairs.

    margin, accuracy (share of pairs whose margin is above 0), chosen_reward and rejected_reward; chosen_logp and
    rejected_logp in nats of an answer; chosen_tokens and rejected_tokens. Against the reference: chosen_change, nats
    per token that the chosen answers gained (below 0: lost); both_fall, the share of pairs where both answers became
    less likely; kl_estimate, the mean over both answers of log pi_ref - log pi, which estimates KL(reference || policy)
    in nats per answer where the answers are the reference's own.
    """
    margin = rewards[0::2] - rewards[1::2]
    metrics = {
        "margin": margin.sum(),
        "accuracy": (margin > 0).float().sum(),
        "chosen_reward": rewards[0::2].sum(),
        "rejected_reward": rewards[1::2].sum(),
        "chosen_logp": policy[0::2].sum(),
        "rejected_logp": policy[1::2].sum(),
        "chosen_tokens": num_targets[0::2].sum().float(),
        "rejected_tokens": num_targets[1::2].sum().float(),
    }
    if reference is None:
        return metrics
    change = policy - reference
    return metrics | {
        "chosen_change": (change[0::2] / num_targets[0::2]).sum(),
        "both_fall": ((change[0::2] < 0) & (change[1::2] < 0)).float().sum(),
        "kl_estimate": -change.sum() / 2,
    }


@torch.no_grad()
def reference_logps(
    model: Transformer,
    store: TokenStore,
    *,
    documents_per_batch: int = 64,
    world: World | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """The frozen model's log-probability of each document's answer, (documents,) float32, in store order.

    model: as it is before the first step, in the dtype that training computes in. world: the processes that call this
    together and share the work, unless the model is sharded. on_progress: called with (documents done, all documents).
    """
    world = world or World()
    device = model.device
    found = torch.zeros(store.num_documents, dtype=torch.float32)
    # A sharded model is gathered for every pass by all processes.
    rank, size = (0, 1) if world.is_sharded else (world.rank, world.size)
    for number, start in enumerate(range(0, store.num_documents, documents_per_batch)):
        documents = np.arange(start, min(start + documents_per_batch, store.num_documents))
        if number % size == rank:
            batch = share_prefixes(batch_of_documents(store, documents), device).to(device)
            found[documents] = answer_logps(model, batch)[0].cpu()
        if on_progress is not None:
            on_progress(int(documents[-1]) + 1, store.num_documents)
    if size > 1:
        world.sum_([found])
    logps: NDArray[np.float32] = found.numpy()
    return logps
