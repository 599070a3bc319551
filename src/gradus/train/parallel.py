"""Replicated data parallelism: every process holds the whole model, gradients are summed once per step.

Processes are started by torchrun (or anything that sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). With one
process nothing is initialised and nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among `size`; the default is a single process."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, bit for bit the same on each.

        Tensors of one dtype travel together in one message.
        """
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for group in by_dtype.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            for tensor, part in zip(group, flat.split([t.numel() for t in group]), strict=True):  # type: ignore[no-untyped-call]
                tensor.copy_(part.view_as(tensor))

    def all_agree(self, ok: bool, device: torch.device) -> bool:
        """True if every process says so; also a barrier."""
        if self.size == 1:
            return ok
        failures = torch.tensor(0 if ok else 1, device=device)
        dist.all_reduce(failures)
        return int(failures) == 0


def join_world(device: torch.device) -> World:
    """The world that the launcher's environment describes; NCCL between GPUs, gloo otherwise.

    Call `leave_world` at the end.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size())


def leave_world() -> None:
    """End the connection to the other processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
