"""The seam to XLA devices (TPU) through torch_xla: which device, when its work is sent, how its chips share rows.

torch_xla records what is asked for and compiles it when it is sent off; the same sequence of operations on the same
shapes is compiled once. Whatever would change from step to step therefore goes in as data: the shapes are those of
whole rows, and a batch says by tensors alone where its documents lie. One process drives all chips of a machine: a
tensor of tokens is divided among them, weights are on each, and the compiler inserts the sums between them (SPMD).
Nothing here imports torch_xla before a function is called with an XLA device.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gradus.core.errors import TrainingError


def open_xla() -> torch.device:
    """The XLA device of this process, standing for all chips that it sees.

    Errors: TrainingError without torch_xla, on one of several hosts, and where there is no TPU and the processor was
    not asked for by name.
    """
    if importlib.util.find_spec("torch_xla") is None:
        raise TrainingError(
            f'[machine] device = "xla" needs torch_xla, which is not installed beside torch {torch.__version__}; '
            "docs/tpu.md says how an environment for it is made"
        )
    is_named = "PJRT_DEVICE" in os.environ  # torch_xla sets it where it is not
    import torch_xla
    import torch_xla.runtime as runtime
    from torch_xla.backends import get_mat_mul_precision, set_mat_mul_precision

    if not is_named and runtime.device_type() != "TPU":
        raise TrainingError(
            '[machine] device = "xla": there is no TPU here (torch_xla found '
            f"{runtime.device_type()}); set PJRT_DEVICE=CPU to try the same path on the processor"
        )
    if runtime.process_count() > 1:
        raise TrainingError(
            f'[machine] device = "xla" drives the chips of one machine, and this is one of {runtime.process_count()} '
            "processes of a pod; start it where a single host has all chips"
        )
    # A TPU multiplies fp32 in bf16 unless it is told not to.
    if get_mat_mul_precision() != "highest":
        set_mat_mul_precision("highest")
    if num_devices() > 1 and not runtime.is_spmd():
        runtime.use_spmd()
    device: torch.device = torch_xla.device()
    return device


@cache
def num_devices() -> int:
    """Chips that this process drives, which share the rows of a micro-batch."""
    import torch_xla.runtime as runtime

    return int(runtime.global_runtime_device_count())


def is_tpu() -> bool:
    """Whether XLA's device is a TPU, and not a processor that stands in for one."""
    import torch_xla.runtime as runtime

    return bool(runtime.device_type() == "TPU")


def send_work(device: torch.device) -> None:
    """On XLA, compile and start what has been asked for so far; what lives on is data from here on. Else nothing."""
    if device.type == "xla":
        import torch_xla

        torch_xla.sync()


def on_host(tensor: Tensor) -> Tensor:
    """A tensor of XLA in the memory of the host, where parts are taken and filled; others as they are.

    On the device each part would be a graph to compile, and a tensor filled in parts would stay a view.
    """
    return tensor.cpu() if tensor.device.type == "xla" else tensor


def varying(number: float, device: torch.device, dtype: torch.dtype = torch.float32) -> float | Tensor:
    """A number that is another one at each step: on XLA data, () of `dtype`, elsewhere as it is."""
    return placed(torch.tensor(number, dtype=dtype), device) if device.type == "xla" else number


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; on XLA a single number as data too.

    torch_xla writes 0 and 1 into the graph, and gives numbers of one value one place in it: the graph would be another
    where a rate happens to equal any other number. An element of a vector has a place of its own.
    """
    if device.type != "xla" or tensor.dim() > 0:
        return tensor.to(device)
    return tensor[None].to(device)[0]


def num_compiled() -> int:
    """How many graphs were compiled in this process so far."""
    import torch_xla.debug.metrics as metrics

    found = metrics.metric_data("CompileTime")
    return int(found[0]) if found else 0


def divided(tensor: Tensor, row_length: int) -> Tensor:
    """A tensor of tokens (N,), row after row, divided among the chips; whole on each where that would cut a row.

    row_length: N is a multiple of it.
    """
    if num_devices() > 1 and tensor.shape[0] // row_length % num_devices() == 0:
        import torch_xla.distributed.spmd as spmd

        spmd.mark_sharding(tensor, _mesh(), ("rows",))
    return tensor


@cache
def _mesh() -> Any:
    import numpy as np
    import torch_xla.distributed.spmd as spmd

    return spmd.Mesh(np.arange(num_devices()), (num_devices(),), ("rows",))
