"""Where a stage computes: its threads, its device, and the other processes that work on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradus.core.errors import ConfigError, TrainingError
from gradus.roadmap.device_limits import model_problem
from gradus.roadmap.place import MachineSettings, Place

if TYPE_CHECKING:
    import torch

    from gradus.model.config import ModelConfig
    from gradus.model.transformer import Transformer
    from gradus.train.config import OptimizerSettings
    from gradus.train.parallel import World


_GPUS = frozenset({"cuda", "mps"})  # types of devices


@dataclass(frozen=True)
class Session:
    """Where a training stage computes: this process among all, its device, and how."""

    world: World
    device: torch.device
    machine: MachineSettings

    @property
    def decoding_device(self) -> torch.device:
        """Where a finished model is asked: on the host where the device is XLA, which compiles for every length."""
        import torch

        return torch.device("cpu") if self.device.type == "xla" else self.device

    def prepare(self, model: Transformer) -> None:
        """Wrap and shard a model as `[machine]` says."""
        from gradus.train.sharding import can_compile, prepare_model

        if self.device.type == "xla" and (problem := model_problem(model.config)):
            raise ConfigError(f'[machine] device = "xla": {problem}')
        kind, compile = self.machine.activation_checkpointing, self.machine.compile
        if compile == "auto":
            compile = kind != "selective" and can_compile(self.device)
        prepare_model(
            model,
            self.world,
            activation_checkpointing=kind,
            compile=compile,
            offload_from=self.device if self.machine.offload else None,
        )

    def distance_to_host(self, config: ModelConfig, dtype: torch.dtype, optimizer: OptimizerSettings) -> float | None:
        """What `check_against_host` finds of a GPU, whose memory is as before afterwards; None without a GPU."""
        from gradus.train.host_check import check_against_host

        if self.device.type not in _GPUS:
            return None
        away = check_against_host(config, self.device, dtype, optimizer)
        _open(self.device)
        return away


def decoding_device(place: Place) -> torch.device:
    """Where a stage of one process asks a finished model: on a GPU where `[machine]` takes one, else on the host."""
    import torch

    device = _asked_device(place)
    if device.type not in _GPUS:
        return torch.device("cpu")
    _open(device)
    return device


def _asked_device(place: Place) -> torch.device:
    """The device of this process, as `[machine]` says."""
    import torch

    name = place.machine.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    # Of several machines each counts its GPUs, and its processes, by itself.
    local_rank = int(os.environ.get("LOCAL_RANK", place.rank))
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def _open(device: torch.device) -> None:
    if device.type == "cuda":
        _open_cuda(device)
    else:
        _open_mps()


def _open_cuda(device: torch.device) -> None:
    """Make a GPU this process's own, without what an earlier stage left in its memory.

    Errors: TrainingError where there is no such GPU.
    """
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.index >= found:
        raise TrainingError(
            f"[machine] process {device.index} of this machine needs a CUDA device of its own, and torch sees {found}; "
            f'set processes to at most {found}, or device = "cpu"'
            if found
            else '[machine] device = "cuda": torch sees no CUDA device here; set device = "cpu", or "auto"'
        )
    torch.cuda.set_device(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)  # a stage states its own


def _open_mps() -> None:
    """Look whether there is an Apple GPU, and empty its memory of what an earlier stage left.

    Errors: TrainingError where there is none.
    """
    import torch

    from gradus.model.mps import mps_problem

    if problem := mps_problem():
        raise TrainingError(f'[machine] device = "mps": {problem}; set device = "cpu", or "auto"')
    torch.mps.empty_cache()


@contextmanager
def training_session(place: Place) -> Iterator[Session]:
    """Threads, device and the other processes, as `[machine]` says."""
    import torch

    from gradus.model.xla import open_xla
    from gradus.train.parallel import join_world, leave_world

    threads = torch.get_num_threads()
    if place.machine.threads is None and place.world_size > 1:
        # Two processes with all cores each wait for each other's threads: 25 times slower (EXPERIMENTS.md).
        torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", place.world_size))))
    device = _asked_device(place)
    if device.type == "xla":
        device = open_xla()
    elif device.type in _GPUS:
        _open(device)
    elif place.machine.offload:
        raise TrainingError(
            "[machine] offload = true moves a GPU's weights to the host, and there is no CUDA device here; leave it out"
        )
    world = join_world(device, place.machine.parallel)
    try:
        yield Session(world, device, place.machine)
    finally:
        leave_world()
        torch.set_num_threads(threads)
