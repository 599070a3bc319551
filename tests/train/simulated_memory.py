"""Helper of test_sharded_memory: peak memory of one rank of many, without the memory and without the others.

simulated_memory.py RANKS KIND MICRO_BATCHES MODEL: a training step of a model (its table as JSON, V = 50257) as rank 0
of RANKS with activation checkpointing KIND, rows of 2,048 tokens.
Tensors have shapes alone and collectives do nothing; torch's FSDPMemTracker adds up what would be held. Prints JSON,
bytes.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from gradus.model.batch import Batch, Documents
from gradus.model.config import model_config
from gradus.model.rows import held
from gradus.model.transformer import build_model
from gradus.train.config import OptimizerSettings
from gradus.train.losses import token_logp
from gradus.train.optimizers import build_optimizer
from gradus.train.parallel import World
from gradus.train.sharding import prepare_model, sum_gradients_after

CONTEXT = 2048


def peak(tracker: FSDPMemTracker) -> int:
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def current(tracker: FSDPMemTracker) -> int:
    return tracker.get_tracker_snapshot("current")[torch.device("cpu")]["Total"]


def simulate(ranks: int, kind: str, micro_batches: int, table: dict[str, object]) -> dict[str, int]:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    world = World(0, ranks, init_device_mesh("cpu", (ranks,), mesh_dim_names=("shard",)))
    positions = torch.arange(CONTEXT)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build_model(
            model_config(table, 50257, CONTEXT),
            torch.Generator(),
            prepare=lambda model: prepare_model(model, world, activation_checkpointing=kind),
        )
        model.compute_dtype = torch.bfloat16
        optimizer = build_optimizer(model, OptimizerSettings(), world)
        tokens = torch.zeros(CONTEXT, dtype=torch.int64)
        batch = Batch(tokens, tokens, Documents([0, CONTEXT], positions))
        batch.__dict__["supervised"] = tokens
        tracker = FSDPMemTracker(model)
        state = sum(v.numel() * 4 for group in optimizer.groups for v in (*group.mean.values(), *group.square.values()))
        assert optimizer.muon is not None
        state += sum(4 * group.momentum.numel() for group in optimizer.muon.groups)
        tracker.track_inputs((tokens,))
        with tracker:
            for index in range(micro_batches):
                if index:
                    tracker.reset_mod_stats()
                sum_gradients_after(model, index + 1 == micro_batches)
                # token_logp, whose memory is that of the loss, reads no value back.
                (-token_logp(model, batch).sum()).backward()
            passes, after = peak(tracker), current(tracker)
            skip, one = torch.tensor(False), torch.tensor(1.0)
            optimizer.muon.step(0, 0.01, skip, one, torch.bfloat16)
    weights = sum(held(p).numel() * 4 for p in model.parameters())
    return {"weights": weights, "state": state, "passes": passes, "after": after, "peak": peak(tracker)}


if __name__ == "__main__":
    ranks, kind, micro_batches, table = sys.argv[1:]
    print(json.dumps(simulate(int(ranks), kind, int(micro_batches), json.loads(table))))
