"""Helper of test_sharded_families: one model trained a few steps by one process and by two that share it by rows.

Arguments: the model's table as JSON, with "lora" where adapters are trained in place of its weights, a kind of
activation checkpointing, and the folder that gets the losses of both as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial

import tiny_training as tiny
import torch
from processes import forked, free_port, succeeded

from gradus.model.config import LoraSettings, model_config
from gradus.model.lora import add_adapters, init_adapters
from gradus.model.transformer import Transformer, build_model
from gradus.train.config import GuardSettings, OptimizerSettings
from gradus.train.guard import Guard
from gradus.train.losses import next_token_loss
from gradus.train.optimizers import build_optimizer
from gradus.train.parallel import join_world, leave_world
from gradus.train.sharding import prepare_model
from gradus.train.step import train_step

STEPS = 6


def losses(table: dict[str, object], rank: int, size: int, port: int, wrapping: str) -> list[float]:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank)
    )
    world = join_world(torch.device("cpu"), "shard")
    lora = LoraSettings(**table.pop("lora")) if "lora" in table else None
    config = model_config({"depth": 2, "width": 32, "head_dim": 16} | table, vocab_size=tiny.VOCAB, context=64)

    def prepare(model: Transformer) -> None:
        if lora is not None:
            add_adapters(model, lora)
        prepare_model(model, world, activation_checkpointing=wrapping)

    model = build_model(config, torch.Generator().manual_seed(0), prepare=prepare)
    if lora is not None:
        init_adapters(model, torch.Generator().manual_seed(1))
    settings = OptimizerSettings(weight_decay=0.1, balance_lr=0.02, adapter_lr=0.02)
    optimizer = build_optimizer(model, settings, world)
    guard = Guard(GuardSettings(), torch.device("cpu"))
    found = []
    for step in range(STEPS):
        documents = tiny.documents_of_step(step)
        mine = [documents] if size == 1 else [documents[:2]] if rank == 0 else [documents[2:4], documents[4:]]
        batches = [tiny.batch(part) for part in mine]
        result = train_step(
            model, optimizer, batches, next_token_loss, step=step, lr_scale=1.0, guard=guard, world=world
        )
        found.append(float(result.loss_sum / result.count))
    leave_world()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    table, wrapping, told = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]

    def work(rank: int, size: int, port: int) -> None:
        found = losses(table, rank, size, port, wrapping if size == 2 else "none")
        if rank == 0:
            with open(f"{told}/{size}.json", "w") as file:
                json.dump(found, file)

    assert succeeded(forked(partial(work, 0, 1, free_port())))
    port = free_port()
    assert succeeded(*[forked(partial(work, rank, 2, port)) for rank in range(2)])
