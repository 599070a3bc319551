"""Losses as pure functions: (model, batch) -> (sum, count, metrics). A sum over counted tokens, never a mean.

The step divides once by the count over all micro-batches and ranks, so k micro-batches equal one batch. The
head is computed for supervised tokens only, in blocks, and the cross-entropy's gradient is worked out in
the forward pass from the same block of logits, which then need not be kept (Liger kernel, Hsu et al. 2024,
does the same).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradus.model.batch import IGNORE, Batch
from gradus.model.config import LOGITS_ON_CPU, LOGITS_ON_GPU
from gradus.model.experts import Routing, balance
from gradus.model.mps import mm_into
from gradus.model.transformer import Transformer

Loss = Callable[[Transformer, Batch], tuple[Tensor, Tensor, dict[str, Tensor]]]

_LEAST_PROBABILITY = 1e-37  # a token that is less likely counts as 85 nats


def next_token_loss(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Negative log-likelihood of every supervised target, in nats: (sum (), count () int64, metrics).

    What balances experts has a gradient but adds 0 to the value: the loss of any model is its likelihood. It is
    worked out by micro-batch. Metrics, only of experts and in training, are those of `model.experts.balance`.
    """
    routing: list[Routing] = []
    hidden, targets = supervised_hidden(model, batch, routing)
    total = cross_entropy_sum(hidden, model.head_weight, targets, model.config.softcap)
    if batch.has_fixed_shapes:
        count = (targets != IGNORE).sum()
    else:
        count = torch.full((), targets.shape[0], dtype=torch.int64, device=total.device)
    if not routing or not torch.is_grad_enabled():
        return total, count, {}
    auxiliary, push, metrics = balance(model.config, routing, batch.num_computed)
    extra = count * auxiliary + push
    return total + (extra - extra.detach()), count, {name: count * value for name, value in metrics.items()}


def token_logp(model: Transformer, batch: Batch, temperature: float = 1.0) -> Tensor:
    """Log-probability of every supervised target, (M,) fp32 in nats, differentiable, in token order.

    `batch.supervised` are their places and `batch.documents.index[batch.supervised]` their documents. temperature: by
    which logits are divided, as in sampling.
    """
    hidden, targets = supervised_hidden(model, batch)
    return target_logp(hidden, model.head_weight, targets, model.config.softcap, temperature)


def supervised_hidden(model: Transformer, batch: Batch, routing: list[Routing] | None = None) -> tuple[Tensor, Tensor]:
    """Hidden states (M, width) and targets (M,) of the supervised tokens; routing as in `Transformer.forward`.

    On XLA of all N tokens, with IGNORE as the target of those that do not count.
    """
    hidden = model(batch.tokens, batch.documents, routing)
    if batch.has_fixed_shapes or batch.supervised.shape == batch.tokens.shape:
        return hidden, batch.targets
    return hidden.index_select(0, batch.supervised), batch.targets.index_select(0, batch.supervised)


def cross_entropy_sum(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None) -> Tensor:
    """Sum over tokens of -log softmax(logits)[target], () fp32. Logits are hidden weight^T, or c tanh of them / c.

    hidden: (M, D); weight: (V, D), cast to the dtype of hidden; targets: (M,), on XLA IGNORE where none counts;
    softcap: c.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _CrossEntropySum.apply(hidden, weight, targets, softcap)  # type: ignore[no-any-return,no-untyped-call]
    return -target_logp(hidden, weight, targets, softcap).sum()


def target_logp(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None, temperature: float = 1.0
) -> Tensor:
    """log softmax(logits / temperature)[target] per token, (M,) fp32; the backward recomputes the logits.

    On XLA a target may be IGNORE, which gives 0.
    """
    targets, counted = _counted(targets)
    found: Tensor = _TargetLogp.apply(hidden, weight, targets, softcap, temperature)  # type: ignore[no-untyped-call]
    return found if counted is None else found * counted


@torch.no_grad()
def token_entropy(hidden: Tensor, weight: Tensor, softcap: float | None = None, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature) per token, (M,) fp32 in nats."""
    cast = weight.to(hidden.dtype)
    out = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
    for rows in _blocks(hidden, weight):
        logits = _tempered(_capped(F.linear(hidden[rows], cast).float(), softcap)[0], temperature)
        logp = torch.log_softmax(logits, -1)
        out[rows] = -(logp.exp() * logp).sum(-1)
    return out


def _capped(logits: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """c tanh(logits / c) and its slope 1 - tanh^2; the logits themselves and None where there is no cap."""
    if softcap is None:
        return logits, None
    bent = torch.tanh(logits / softcap)
    return softcap * bent, 1 - bent.square()


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature; at 1, as nearly always, the logits themselves and not a copy of them."""
    return logits if temperature == 1.0 else logits / temperature


def _blocks(hidden: Tensor, weight: Tensor) -> list[slice]:
    """The rows of hidden (M, D) whose logits, of weight (V, D), are in memory at a time."""
    num_tokens = hidden.shape[0]
    rows = max(1, (LOGITS_ON_CPU if hidden.device.type == "cpu" else LOGITS_ON_GPU) // weight.shape[0])
    return [slice(start, min(start + rows, num_tokens)) for start in range(0, num_tokens, rows)]


def _counted(targets: Tensor) -> tuple[Tensor, Tensor | None]:
    """Targets that can be looked up, and on XLA 1 where one counts and 0 where it is IGNORE, (M,); None elsewhere."""
    if targets.device.type != "xla":
        return targets, None
    return targets.clamp(min=0), (targets != IGNORE).to(torch.float32)


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
        cast = weight.to(hidden.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        is_head_trained = ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if is_head_trained else None
        places = torch.arange(hidden.shape[0], device=hidden.device)
        targets, counted = _counted(targets)
        for rows in _blocks(hidden, weight):
            logits, slope = _capped(F.linear(hidden[rows], cast), softcap)
            probabilities = torch.softmax(logits, -1)
            here = places[: len(probabilities)], targets[rows]
            if logits.dtype == torch.float16:
                # What is less likely than e^-17 is zero in fp16, and would count as if it were impossible.
                logp = logits[here].float() - logits.float().logsumexp(-1)
            else:
                # In bf16 each term carries a rounding of 2^-9 relative to the probability; their sum does not.
                logp = probabilities[here].float().clamp_(min=_LEAST_PROBABILITY).log_()
            probabilities[here] -= 1  # now the gradient of the logits
            if counted is not None:
                logp *= counted[rows]
                probabilities *= counted[rows, None]
            total -= logp.sum()
            if slope is not None:
                probabilities *= slope
            mm_into(grad_hidden[rows], probabilities, cast)
            if grad_weight is not None:
                grad_weight += probabilities.T @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad.device.type == "cpu" and float(grad) == 1.0:  # a plain sum, the usual case; reading it is free here
            return grad_hidden, grad_weight, None, None
        scaled_weight = None if grad_weight is None else grad_weight * grad
        return grad_hidden * grad.to(grad_hidden.dtype), scaled_weight, None, None


class _TargetLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, temperature: float
    ) -> Tensor:
        cast = weight.to(hidden.dtype)
        out = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        for rows in _blocks(hidden, weight):
            logits = _tempered(_capped(F.linear(hidden[rows], cast).float(), softcap)[0], temperature)
            out[rows] = logits.gather(1, targets[rows, None])[:, 0] - logits.logsumexp(-1)
        ctx.save_for_backward(hidden, weight, targets)
        ctx.softcap, ctx.temperature = softcap, temperature
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden, weight, targets = ctx.saved_tensors
        cast = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        places = torch.arange(hidden.shape[0], device=hidden.device)
        for rows in _blocks(hidden, weight):
            logits, slope = _capped(F.linear(hidden[rows], cast), ctx.softcap)
            d_logits = torch.softmax(_tempered(logits, ctx.temperature), -1)
            d_logits[places[: len(d_logits)], targets[rows]] -= 1
            if slope is not None:
                d_logits *= slope
            d_logits *= (-grad[rows, None] / ctx.temperature).to(hidden.dtype)
            mm_into(grad_hidden[rows], d_logits, cast)
            if grad_weight is not None:
                grad_weight += d_logits.T @ hidden[rows]
        return grad_hidden, grad_weight, None, None, None
