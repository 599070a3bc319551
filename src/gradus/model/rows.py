"""Which rows of a parameter this process holds: all of them, or a part where parameters are sharded by rows.

A sharded parameter is a DTensor of torch's FSDP2: rows are cut in equal runs, the last ones shorter or empty.
Nothing here imports torch.distributed, so that a single process never loads it.
"""

from __future__ import annotations

from types import EllipsisType
from typing import Any, Protocol

from torch import Tensor


class RowSource(Protocol):
    """A tensor, or one in a file that is read as far as it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice | EllipsisType) -> Tensor: ...


def row_range(num_rows: int, num_shards: int, shard: int) -> tuple[int, int]:
    """[start, stop) of the rows that shard number `shard` holds."""
    size = -(-num_rows // num_shards)
    return min(shard * size, num_rows), min((shard + 1) * size, num_rows)


def held(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, as a plain tensor that shares its memory."""
    local: Tensor = getattr(tensor, "_local_tensor", tensor)
    return local


def held_rows(tensor: Tensor) -> tuple[int, int]:
    """[start, stop) of the rows of the whole that `held` returns."""
    mesh: Any = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return 0, tensor.shape[0]
    # The last dimension of the mesh shards; one before it, if any, replicates.
    return row_range(tensor.shape[0], mesh.size(mesh.ndim - 1), mesh.get_local_rank(mesh.ndim - 1))


def copy_rows(target: Tensor, values: RowSource, begin: int = 0) -> None:
    """Copy `values`, which stand at row `begin` of the whole, into those rows of `target` that are held here."""
    first, last = held_rows(target)
    low, high = max(first, begin), min(last, begin + values.shape[0])
    if low < high:
        held(target)[low - first : high - first].copy_(values[low - begin : high - begin])
