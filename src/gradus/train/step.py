"""One training step: the same plain function for pretraining, fine-tuning and preference optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradus.model.batch import Batch
from gradus.model.mps import sum_dtype
from gradus.model.transformer import Transformer
from gradus.model.xla import varying
from gradus.train.guard import Guard
from gradus.train.losses import Loss
from gradus.train.optimizers import Optimizer, total_norm
from gradus.train.parallel import World
from gradus.train.precision import LossScale
from gradus.train.sharding import idle_batch_loss, sum_gradients_after


@dataclass(frozen=True)
class StepResult:
    """What one step did, over all micro-batches and ranks; every tensor is () on the device.

    loss_sum, count and the metric sums leave the division to the reader; skipped is a bool. computed: the tokens with
    those that documents share counted once.
    """

    loss_sum: Tensor
    count: Tensor
    tokens: Tensor
    computed: Tensor
    metrics: dict[str, Tensor]
    grad_norm: Tensor
    skipped: Tensor


def train_step(
    model: Transformer,
    optimizer: Optimizer,
    micro_batches: Sequence[Batch],
    loss: Loss,
    *,
    step: int,
    lr_scale: float,
    guard: Guard,
    world: World,
    loss_scale: LossScale | None = None,
) -> StepResult:
    """Sum the loss over micro-batches and ranks, divide the gradient once, update unless the guard refuses.

    A step in which nothing counts updates nothing either: momentum alone is no reason to move.

    step: the global step, from 0; lr_scale: share of the peak learning rates; loss_scale: for fp16. Never waits for the
    device.
    """
    optimizer.zero_grad()
    device = model.device
    kind = sum_dtype(device)
    loss_sum = torch.zeros((), dtype=kind, device=device)
    count = torch.zeros((), dtype=kind, device=device)
    metrics: dict[str, Tensor] = {}
    # Sharded parameters are gathered by all processes together: one with fewer micro-batches keeps step.
    passes = world.most(len(micro_batches)) if world.is_sharded else len(micro_batches)
    for index, batch in enumerate(micro_batches):
        if world.is_sharded:
            sum_gradients_after(model, index + 1 == passes)
        batch_sum, batch_count, batch_metrics = loss(model, batch)
        scaled = batch_sum if loss_scale is None else batch_sum * loss_scale.scale
        scaled.backward()  # type: ignore[no-untyped-call]
        loss_sum += batch_sum.detach()
        count += batch_count
        for name, value in batch_metrics.items():
            metrics[name] = metrics.get(name, 0) + value.detach().to(kind)
    for index in range(len(micro_batches), passes):
        sum_gradients_after(model, index + 1 == passes)
        idle_batch_loss(model).backward()  # type: ignore[no-untyped-call]
    num_tokens = varying(sum(batch.num_tokens for batch in micro_batches), device, kind)
    num_computed = varying(sum(batch.num_computed for batch in micro_batches), device, kind)
    # Filled on the device: torch.tensor(number, device=...) would make the host wait for a GPU.
    tokens = torch.zeros((), dtype=kind, device=device) + num_tokens
    computed = torch.zeros((), dtype=kind, device=device) + num_computed
    gradients = optimizer.gradients()
    sums = [loss_sum, count, tokens, computed, *metrics.values()]
    # Micro-batches have added up locally; ranks add up here, once. Sharded gradients have been summed on their way.
    world.sum_(sums if world.is_sharded else [*gradients, *sums])
    divisor = count.clamp(min=1).float()
    grad_norm = total_norm(gradients).to(device)  # gradients of an offloaded model are on the host
    if world.is_sharded:
        square = grad_norm.square()
        world.sum_over_sharers_([square])
        grad_norm = square.sqrt()
    # The loss is the mean over the count; gradients carry the loss scale besides.
    grad_divisor = divisor if loss_scale is None else divisor * loss_scale.scale
    grad_norm = grad_norm / grad_divisor
    if (most := optimizer.settings.clip_norm) is not None:
        # Pascanu et al. 2013, algorithm 1, as one more divisor; what is reported is the norm before.
        grad_divisor = grad_divisor * (grad_norm / most).clamp(min=1)
    skipped = guard.judge(loss_sum / divisor, grad_norm, count == 0)
    optimizer.step(step, lr_scale, skipped, grad_divisor)
    if loss_scale is not None:
        loss_scale.update(grad_norm)
    return StepResult(loss_sum, count, tokens, computed, metrics, grad_norm, skipped)
