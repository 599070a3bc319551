"""Timing of a pipeline's steps in some processes, documents in memory; standard library only, for both sides.

Every process loads its documents first. Then step after step runs, each begun and ended together; a step's time is
that of the slowest process. A peer's executor, its start-up and the reading of files are not counted.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Step = Callable[[Any, int, int], None]


def read_shard(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def time_steps(load: Callable[[int], Any], steps: Sequence[Step], processes: int) -> dict[str, list[float]]:
    """Seconds of each step: "wall", of the slowest process, and "cpu", of all together.

    load(rank): what that process works on; step(loaded, rank, processes).
    """
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(processes), context.Queue()

    def work(rank: int) -> None:
        loaded = load(rank)
        for number, step in enumerate(steps):
            barrier.wait()
            began, began_cpu = time.perf_counter(), time.process_time()
            step(loaded, rank, processes)
            queue.put((number, time.perf_counter() - began, time.process_time() - began_cpu))
            barrier.wait()

    workers = [context.Process(target=work, args=(rank,)) for rank in range(processes)]
    for worker in workers:
        worker.start()
    wall, cpu = [0.0] * len(steps), [0.0] * len(steps)
    for _ in range(processes * len(steps)):
        number, took, took_cpu = queue.get(timeout=3600)
        wall[number] = max(wall[number], took)
        cpu[number] += took_cpu
    for worker in workers:
        worker.join()
    return {"wall": wall, "cpu": cpu}
