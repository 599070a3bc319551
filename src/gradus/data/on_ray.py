"""The jobs of worker.py on a Ray cluster, through Ray Data: the same functions, arguments and results.

Every node needs gradus and the same view of the files (a shared file system), since jobs read and write paths. Jobs
are handed over in waves, so that a source whose limit is reached is not read to its end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from gradus.core.errors import DataError, GradusError, MissingPackageError
from gradus.data.worker import Job, answered, attempt, job_called, name_of_job

# Jobs for each core of the cluster in one wave.
_WAVES = 4


def run_jobs_on_ray(
    job: Job, jobs: Iterable[dict[str, Any]], on_progress: Callable[[int, int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """The result of `job` for each of its arguments, in order.

    The cluster is the one that RAY_ADDRESS names, or one of this machine. on_progress: called after each job with
    documents and bytes read by all jobs together. Errors: as `run_jobs`; MissingPackageError without ray.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingPackageError("ray", "ray") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    remaining = iter(jobs)
    wave = max(1, int(ray.cluster_resources().get("CPU", 1))) * _WAVES
    name, read = name_of_job(job), [0, 0]
    while batch := list(islice(remaining, wave)):
        rows = ray.data.from_items([{"job": json.dumps([name, arguments])} for arguments in batch])
        try:
            for row in rows.repartition(len(batch)).map(_answer).iter_rows():
                answer = json.loads(row["answer"])
                read = [total + one for total, one in zip(read, answer.pop("read", [0, 0]), strict=True)]
                if on_progress is not None:
                    on_progress(*read)
                yield answered(answer, "the logs of the Ray cluster")
        except ray.exceptions.RayError as error:
            if isinstance(error.__cause__, GradusError):
                raise error.__cause__ from None
            raise DataError(f"a job on the Ray cluster failed: {str(error).strip().splitlines()[-1]}") from error


def _answer(row: dict[str, Any]) -> dict[str, str]:
    """One job, on whatever node this runs; what goes wrong is part of the answer."""
    name, arguments = json.loads(row["job"])
    read = [0, 0]

    def report(documents: int, size: int) -> None:
        read[:] = documents, size

    return {"answer": json.dumps({**attempt(job_called(name), arguments, report), "read": read})}
