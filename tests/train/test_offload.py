"""Weights on the host: the same training; a GPU holds little more than what it computes with."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
import torch.distributed as dist
from test_fit import assert_same_training, trained
from torch.distributed.device_mesh import init_device_mesh
from warm_start import WarmStart

from gradus.core.errors import TrainingError
from gradus.core.settings import check_settings
from gradus.model.config import model_config
from gradus.model.cost import parameters, sharded_memory
from gradus.roadmap.place import MachineSettings, Place
from gradus.roadmap.session import training_session
from gradus.roadmap.stage import Stage, StageSettings
from gradus.train.config import GuardSettings
from gradus.train.guard import Guard
from gradus.train.losses import next_token_loss
from gradus.train.parallel import World
from gradus.train.step import train_step


def test_two_ranks_that_offload_equal_one_process(warm: WarmStart, tmp_path: Path) -> None:
    """On a processor there is nothing to move; what is shown is that every part works on weights that lie elsewhere."""
    expected = trained(warm, tmp_path / "one", 1, 40)
    found = trained(warm, tmp_path / "two", 2, 40, "shard", "offload=yes")
    assert_same_training(found, expected, last=40)


@pytest.mark.parametrize(
    "table", [{"offload": True}, {"offload": True, "processes": 2}, {"offload": True, "parallel": "shard"}]
)
def test_without_sharding_there_is_nothing_to_offload(table: dict[str, object]) -> None:
    _, problems = check_settings(MachineSettings, table)
    assert 'expected processes of at least 2 and parallel = "shard" or "hybrid", found ' in problems[0].text


def test_without_a_gpu_it_is_refused(tmp_path: Path) -> None:
    machine = MachineSettings(offload=True, processes=2, parallel="shard", device="cpu")
    stage = Stage("base", "pretrain", StageSettings(), 1, "0" * 64, {})
    place = Place(stage, tmp_path, tmp_path, tmp_path, machine=machine)
    with pytest.raises(TrainingError, match=r"there is no CUDA device here; leave it out"), training_session(place):
        pass


def test_the_plan_of_a_gpu_leaves_out_what_is_on_the_host() -> None:
    config = model_config({"depth": 30, "width": 3072, "num_heads": 24, "mlp_width": 12288}, 50257, 2048)
    here, away = (sharded_memory(config, 2048, 8, "full", offload=offload) for offload in (False, True))
    assert asdict(away)["optimizer"] == 0
    assert here.total - away.total > 4 * parameters(config).total / 8
    # Embedding, head and two layers are gathered all the same.
    assert away.weights > 4 * 2 * 50257 * 3072


@pytest.fixture
def one_gpu() -> Iterator[World]:
    """A world of one process with a mesh of one GPU."""
    torch.cuda.set_device(0)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    yield World(0, 1, init_device_mesh("cuda", (1,), mesh_dim_names=("shard",)))
    dist.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_weights_of_the_host_as_its_own(one_gpu: World) -> None:
    device, losses = torch.device("cuda", 0), []
    for offload_from in (None, device):
        model, optimizer = tiny.model_and_optimizer(
            world=one_gpu, wrapping={"offload_from": offload_from}, device=device
        )
        guard, found = Guard(GuardSettings(), device), []
        for step in range(8):
            batches = [batch.to(device) for batch in tiny.batches(step)]
            result = train_step(
                model, optimizer, batches, next_token_loss, step=step, lr_scale=1.0, guard=guard, world=one_gpu
            )
            found.append(float(result.loss_sum))
        losses.append(found)
        assert {p.device.type for p in model.parameters()} == {"cpu" if offload_from else "cuda"}
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
