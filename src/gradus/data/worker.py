"""Jobs over data in worker processes: JSON in, JSON out, results in the order of the jobs.

A job is a function at the top of a module, with JSON arguments, so nothing is pickled, a worker never runs the
caller's script again, and another scheduler (Ray) can run the same jobs. What a job makes it writes to files under
names of its own and completes with a marker file; a job whose marker stands is answered from it without work.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

from gradus.core.errors import DataError, GradusError, MissingPackageError

Report = Callable[[int, int], None]
"""Called by a job now and then with how many documents and UTF-8 bytes it has read so far."""
Job = Callable[[dict[str, Any], Report], dict[str, Any]]


def run_jobs(
    job: Job,
    jobs: Iterable[dict[str, Any]],
    processes: int,
    log: Path,
    on_progress: Callable[[int, int], None] | None = None,
    on_ray: bool = False,
) -> Iterator[dict[str, Any]]:
    """The result of `job` for each of its arguments, in order.

    At most `processes` jobs run at a time, and twice as many are taken ahead; with one process they run in the caller;
    on_ray: on a Ray cluster instead. log: file for what workers print. on_progress: called with documents and bytes
    read so far by all jobs together.
    Errors: what a job raised, if GradusError or OSError; DataError where a worker died. Closing the iterator ends
    the workers.
    """
    if on_ray:
        # Imported here, since few have it.
        from gradus.data.on_ray import run_jobs_on_ray

        yield from run_jobs_on_ray(job, jobs, on_progress)
        return
    if processes == 1:
        yield from run_here(job, jobs, on_progress)
        return
    with _Pool(name_of_job(job), processes, log, _Meter(on_progress)) as pool:
        ahead: deque[Future[dict[str, Any]]] = deque()
        for number, arguments in enumerate(jobs):
            ahead.append(pool.submit(number, arguments))
            if len(ahead) >= 2 * processes:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def run_here(
    job: Job, jobs: Iterable[dict[str, Any]], on_progress: Callable[[int, int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """`run_jobs` in the caller itself, one job after the other."""
    meter = _Meter(on_progress)
    for number, arguments in enumerate(jobs):
        yield job(arguments, partial(meter.show, number))


def name_of_job(job: Job) -> str:
    """How another process finds the function."""
    return f"{job.__module__}:{job.__qualname__}"


def job_called(name: str) -> Job:
    """The function of a name that `name_of_job` gave."""
    module, _, function = name.partition(":")
    return cast("Job", getattr(import_module(module), function))


class _Meter:
    """Adds up what every job has read."""

    def __init__(self, on_progress: Callable[[int, int], None] | None) -> None:
        self._on_progress = on_progress
        self._read: dict[int, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def show(self, number: int, documents: int, size: int) -> None:
        if self._on_progress is None:
            return
        with self._lock:
            self._read[number] = documents, size
            totals = [sum(column) for column in zip(*self._read.values(), strict=True)]
            self._on_progress(*totals)


# Arrow's own allocator keeps what was freed: a worker would need 190 MB where it now needs 100 (measured).
_MODEST_MEMORY = {"ARROW_DEFAULT_MEMORY_POOL": "system"}


class _Pool:
    """Worker processes, each fed by a thread of its own."""

    def __init__(self, name: str, processes: int, log: Path, meter: _Meter) -> None:
        self._name, self._meter = name, meter
        self._log = log.open("ab")
        self._log_path = log
        self._here = threading.local()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(processes)
        self._ended = False

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *reason: object) -> None:
        self._ended = True
        for worker in self._workers:
            if reason[0] is not None:
                worker.kill()
            with contextlib.suppress(OSError):
                cast("BinaryIO", worker.stdin).close()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.wait()
            cast("BinaryIO", worker.stdout).close()
        self._log.close()

    def submit(self, number: int, arguments: dict[str, Any]) -> Future[dict[str, Any]]:
        return self._threads.submit(self._run, number, arguments)

    def _worker(self) -> subprocess.Popen[bytes]:
        worker: subprocess.Popen[bytes] | None = getattr(self._here, "worker", None)
        if worker is None:
            worker = subprocess.Popen(
                [sys.executable, "-m", "gradus.data.worker", self._name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**_MODEST_MEMORY, **os.environ},
                # Ctrl-C reaches the caller alone, which then ends the workers.
                start_new_session=True,
            )
            self._here.worker = worker
            self._workers.append(worker)
        return worker

    def _run(self, number: int, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._ended:
            raise DataError("the work was stopped")
        worker = self._worker()
        requests, answers = cast("BinaryIO", worker.stdin), cast("BinaryIO", worker.stdout)
        try:
            requests.write(json.dumps(arguments).encode() + b"\n")
            requests.flush()
            for line in answers:
                answer = json.loads(line)
                if "read" in answer:
                    self._meter.show(number, *answer["read"])
                    continue
                return answered(answer, self._log_path)
        except BrokenPipeError:
            pass
        at_work = arguments.get("label", "a job")
        raise DataError(f"{self._end_of(worker)} while at work on {at_work}; run again: finished parts are kept")

    @staticmethod
    def _end_of(worker: subprocess.Popen[bytes]) -> str:
        code = worker.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"a worker process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"a worker process ended with exit code {code}"


def answered(answer: dict[str, Any], log: object) -> dict[str, Any]:
    """The result in what `attempt` gave, or the error that it tells of. log: where tracebacks are."""
    if "result" in answer:
        return cast("dict[str, Any]", answer["result"])
    if "errno" in answer:
        raise OSError(answer["errno"], answer["message"], answer["file"])
    if "package" in answer:
        raise MissingPackageError(answer["package"], answer["extra"])
    if "error" in answer:
        raise DataError(answer["error"])
    raise RuntimeError(f"{answer['crash']} in a worker process; its traceback is in {log}")


# The worker's side


def serve(name: str) -> None:
    """Answer jobs from standard input until it ends; ends at once when the caller is gone."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(waiting,), daemon=True).start()
    job = job_called(name)

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    while line := waiting.get():
        send(attempt(job, json.loads(line), lambda documents, size: send({"read": [documents, size]})))


def _read_requests(waiting: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        waiting.put(line)
    # Whatever is being worked on has nobody left to take it, and the next walk may begin the same job.
    os._exit(0)


def attempt(job: Job, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """A job's result or error as plain JSON."""
    try:
        return {"result": job(arguments, report)}
    except MissingPackageError as error:
        return {"package": error.package, "extra": error.extra}
    except GradusError as error:
        return {"error": str(error)}
    except OSError as error:
        if error.errno is None:
            return _crash(error)
        return {"errno": error.errno, "message": error.strerror, "file": str(error.filename or "")}
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        return _crash(error)


def _crash(error: BaseException) -> dict[str, Any]:
    traceback.print_exception(error, file=sys.stderr)
    return {"crash": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    serve(sys.argv[1])
