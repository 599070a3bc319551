"""A training run small enough for tests: one layer, 32 channels, batches that are a function of the step."""

from __future__ import annotations

from functools import partial

import torch

from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model
from gradus.train.config import OptimizerSettings, ScheduleSettings
from gradus.train.optimizers import Optimizer, build_optimizer
from gradus.train.parallel import World
from gradus.train.schedule import Schedule
from gradus.train.sharding import prepare_model

VOCAB = 40


def model_and_optimizer(
    seed: int = 0,
    *,
    world: World | None = None,
    wrapping: dict[str, object] | None = None,
    width: int = 32,
    device: torch.device | str = "cpu",
    **changes: object,
) -> tuple[Transformer, Optimizer]:
    """wrapping: what `prepare_model` is asked for. changes: of the optimizer's settings."""
    world = world or World()
    config = model_config({"depth": 1, "width": width, "head_dim": 16}, vocab_size=VOCAB, context=64)
    prepare = partial(prepare_model, world=world, **(wrapping or {}))
    model = build_model(config, torch.Generator().manual_seed(seed), device, prepare=prepare)
    settings = {"weight_decay": 0.1, "momentum_warmup_steps": 20} | changes
    return model, build_optimizer(model, OptimizerSettings(**settings), world)


def documents_of_step(step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Six documents of uneven lengths and masks: tokens count up in a stride, so there is something to learn."""
    generator = torch.Generator().manual_seed(1000 + step)
    found = []
    for _ in range(6):
        length = int(torch.randint(4, 24, (1,), generator=generator))
        start, stride = torch.randint(1, VOCAB, (2,), generator=generator).tolist()
        stream = (start + stride * torch.arange(length + 1)) % VOCAB
        targets = stream[1:].clone()
        targets[torch.rand(length, generator=generator) < 0.4] = IGNORE
        found.append((stream[:-1], targets))
    return found


def batch(documents: list[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
    tokens, targets = (torch.cat(parts) for parts in zip(*documents, strict=True))
    return Batch(tokens, targets, Documents.of_lengths([len(tokens) for tokens, _ in documents]))


def batches(step: int) -> list[Batch]:
    """Two micro-batches of uneven size."""
    documents = documents_of_step(step)
    return [batch(documents[:2]), batch(documents[2:])]


def schedule(steps: int) -> Schedule:
    return Schedule(ScheduleSettings(warmup_steps=3, decay_fraction=0.5), steps)


def poisoned(model: Transformer) -> None:
    """Make the model's loss NaN from now on."""
    with torch.no_grad():
        model.norm.fill_(torch.nan)
