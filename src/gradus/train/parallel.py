"""The processes that train together: each takes part of the rows of a step, and sums are over all of them.

Processes are started by torchrun (or anything that sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). With one
process nothing is initialised and nothing is sent. How the model lies on them is one of three:

replicate  every process holds the whole model; gradients are summed once per step.
shard      every process holds its rows of each parameter (torch's FSDP2); sharding.py.
hybrid     the processes of one machine share the model by rows, machines replicate it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.constants import default_pg_timeout

from gradus.core.errors import TrainingError
from gradus.core.machine import LOOPBACK
from gradus.train.config import Parallel

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class World:
    """This process among `size`; the default is a single process.

    mesh: how parameters are sharded, None where every process holds them whole: one dimension, or two of which the
    first replicates.
    """

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = field(default=None, compare=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether a process holds only some rows of each parameter."""
        return self.mesh is not None

    @property
    def sharers(self) -> int:
        """Processes that divide one copy of the state among them: all of them, or in hybrid those of a machine."""
        return self.size if self.mesh is None else self.mesh.size(self.mesh.ndim - 1)

    @property
    def sharer(self) -> int:
        """This process's number among its sharers."""
        return self.rank if self.mesh is None else self.mesh.get_local_rank(self.mesh.ndim - 1)

    @property
    def sharer_group(self) -> Any:
        """The sharers as torch knows them; None for all processes."""
        return None if self.mesh is None else self.mesh.get_group(self.mesh.ndim - 1)

    @property
    def holds_first_copy(self) -> bool:
        """Whether what this process holds is part of the copy that is written to the disk."""
        return self.rank < self.sharers

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, bit for bit the same on each.

        Tensors of one dtype travel together in one message.
        """
        if self.size > 1:
            _sum_together(tensors, None)

    def sum_over_sharers_(self, tensors: Sequence[Tensor]) -> None:
        """Like `sum_`, over the processes that hold one copy together."""
        if self.is_sharded:
            _sum_together(tensors, self.sharer_group)

    def most(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        # On the host: a GPU that is still computing need not be waited for.
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def all_agree(self, ok: bool) -> bool:
        """True if every process says so; also a barrier."""
        return self.most(0 if ok else 1) == 0


def _sum_together(tensors: Sequence[Tensor], group: Any) -> None:
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for members in by_dtype.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in members])
        dist.all_reduce(flat, group=group)
        for tensor, part in zip(members, flat.split([t.numel() for t in members]), strict=True):  # type: ignore[no-untyped-call]
            tensor.copy_(part.view_as(tensor))


def join_world(device: torch.device, parallel: Parallel = "replicate") -> World:
    """The world that the launcher's environment describes; NCCL between GPUs, gloo otherwise.

    With one process there is nothing to share, whatever `parallel` says. Call `leave_world` at the end.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        # Small numbers on the host travel by gloo in any case.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if os.environ.get("MASTER_ADDR") == LOOPBACK and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            rank = int(os.environ["RANK"])
            dist.init_process_group(backend, store=_store_of_this_machine(rank, size), rank=rank, world_size=size)
        else:
            dist.init_process_group(backend)
    rank, size = dist.get_rank(), dist.get_world_size()
    return World(rank, size, _mesh(device, parallel, size))


def _store_of_this_machine(rank: int, size: int) -> Any:
    """The store in which the processes of one machine find each other, out of reach of others.

    torch's own listens at every address of the machine, and gloo at that of its name: anyone in the same network could
    take part. Errors: TrainingError where the port is taken.
    """
    port = int(os.environ["MASTER_PORT"])
    names = {name for _, name in socket.if_nameindex()}
    if loopback := next((name for name in ("lo", "lo0") if name in names), None):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    listening = None
    if rank == 0:
        with socket.socket() as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                found.bind((LOOPBACK, port))
                found.listen(128)
            except OSError as error:
                raise TrainingError(
                    f"processes of this machine cannot meet at {LOOPBACK}, port {port}: {error.strerror}; run again, "
                    "or set MASTER_PORT to a free one where a launcher started them"
                ) from None
            listening = found.detach()  # the store's from here on
    return dist.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK, port, size, rank == 0, default_pg_timeout, master_listen_fd=listening
    )


def _mesh(device: torch.device, parallel: Parallel, size: int) -> DeviceMesh | None:
    if parallel == "replicate":
        return None
    from torch.distributed.device_mesh import init_device_mesh

    if parallel == "shard":
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    inside = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if size % inside:
        raise TrainingError(
            f'[machine] parallel = "hybrid": {size} processes are not a whole number of machines of {inside}; '
            "start as many on each machine"
        )
    return init_device_mesh(device.type, (size // inside, inside), mesh_dim_names=("replicate", "shard"))


def leave_world() -> None:
    """End the connection to the other processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
