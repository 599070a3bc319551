"""What to do when a training stage runs out of memory: smaller micro-batches, more of them, the same step.

The gradient of a step is the same however its rows are divided, so this changes memory and speed and nothing else.
Torch-free: errors are known by their names and texts, also those of another process.
"""

from __future__ import annotations

import math
from typing import Any

from gradus.core.quantity import format_count
from gradus.roadmap.stage import Inputs, Stage

# torch's allocators, by device: CUDA's own error class, the CPU's RuntimeError (c10/core/impl/alloc_cpu.cpp); and
# libraries that take memory of a GPU themselves (CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED).
_SIGNS = ("OutOfMemoryError", "out of memory", "DefaultCPUAllocator: ", "Unable to allocate ", "_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(sign in str(error) for sign in _SIGNS)


def memory_advice(stage: Stage, inputs: Inputs, processes: int) -> str:
    """A sentence that proposes settings with the same batch in all."""
    settings = stage.settings
    if hasattr(settings, "micro_pairs"):
        return _proposal("micro_pairs", settings.micro_pairs, settings.pairs_per_step, processes, "pairs")
    if hasattr(settings, "micro_samples"):
        answers = settings.prompts_per_step * settings.group_size
        return _proposal("micro_samples", settings.micro_samples, answers, processes, "answers")
    if not hasattr(settings, "micro_rows"):
        return "out of memory; try smaller settings for this stage"
    length = _row_length(settings, inputs)
    rows = settings.rows_of_step(length)
    total = f"{format_count(rows * length)} tokens"
    return _proposal("micro_rows", settings.micro_rows, rows, processes, f"rows of {length:,}, {total}")


def _row_length(settings: Any, inputs: Inputs) -> int:
    written = getattr(settings, "context", None) or getattr(settings, "row_length", None)
    return int(written or inputs["from"].results["model"]["context"])


def _proposal(key: str, micro: int, total: int, processes: int, what: str) -> str:
    """Half of what one process has in memory at a time."""
    each = math.ceil(total / processes)
    now = min(micro, each)
    if now == 1:
        return (
            f"out of memory with one of {total} {what} at a time already; set [machine] activation_checkpointing = "
            '"full", or make rows shorter or the model smaller'
        )
    less = now // 2
    return (
        f"out of memory with {now} of {each} a process at a time; set {key} = {less}: {math.ceil(each / less)} "
        f"micro-batches in the place of {math.ceil(each / now)}, the same step of {total} {what}"
    )
