"""Worker processes: results in order, errors as they were raised, a killed worker told and not waited for."""

import errno
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from gradus.core.errors import DataError, MissingPackageError
from gradus.data.worker import run_jobs

JOBS = """
import os, signal, sys, time
from gradus.core.errors import DataError, MissingPackageError

def square(job, report):
    time.sleep(0.02 * (job["n"] % 3))
    report(job["n"], 10 * job["n"])
    print("not an answer")
    return {"square": job["n"] ** 2, "process": os.getpid()}

def fails(job, report):
    if job["n"] < 2:
        return {}
    how = job["how"]
    if how == "data":
        raise DataError("shard 2: wrong")
    if how == "package":
        raise MissingPackageError("pycld2", "data")
    if how == "disk":
        raise OSError(28, "No space left on device", "/full/file")
    if how == "bug":
        raise KeyError("oops")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "some_jobs.py").write_text(JOBS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield import_module("some_jobs")
    del sys.modules["some_jobs"]


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_the_jobs(jobs: ModuleType, tmp_path: Path, processes: int) -> None:
    told: list[tuple[int, int]] = []
    arguments = [{"n": n} for n in range(12)]
    results = list(run_jobs(jobs.square, arguments, processes, tmp_path / "log", lambda *now: told.append(now)))
    assert [result["square"] for result in results] == [n**2 for n in range(12)]
    assert len({result["process"] for result in results}) <= processes
    assert told[-1] == (sum(range(12)), 10 * sum(range(12)))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("data", DataError, "shard 2: wrong"),
        ("package", MissingPackageError, 'pip install "gradus'),
        ("disk", OSError, "No space left on device"),
    ],
)
def test_what_a_job_raises_is_raised_to_the_caller(
    jobs: ModuleType, tmp_path: Path, processes: int, how: str, error: type[Exception], message: str
) -> None:
    arguments = [{"n": n, "how": how} for n in range(9)]
    with pytest.raises(error, match=message.replace("[", r"\[")) as raised:
        list(run_jobs(jobs.fails, arguments, processes, tmp_path / "log"))
    if isinstance(raised.value, OSError):
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, "/full/file")


def test_a_killed_worker_is_named_with_what_it_was_doing(jobs: ModuleType, tmp_path: Path) -> None:
    arguments = [{"n": n, "how": "kill", "label": f"shard {n}"} for n in range(9)]
    with pytest.raises(DataError, match=r"ended by SIGKILL \(out of memory\?\) while at work on shard 2; run again"):
        list(run_jobs(jobs.fails, arguments, 2, tmp_path / "log"))


def test_a_bug_in_a_worker_says_where_its_traceback_is(jobs: ModuleType, tmp_path: Path) -> None:
    arguments = [{"n": n, "how": "bug"} for n in range(4)]
    with pytest.raises(RuntimeError, match=r"KeyError: 'oops' in a worker process; its traceback is in .*log"):
        list(run_jobs(jobs.fails, arguments, 2, tmp_path / "log"))
    assert "Traceback" in (tmp_path / "log").read_text()


def test_closing_early_ends_the_workers(jobs: ModuleType, tmp_path: Path) -> None:
    taken: list[int] = []

    def arguments() -> Iterator[dict[str, int]]:
        for n in range(1000):
            taken.append(n)
            yield {"n": n}

    running = run_jobs(jobs.square, arguments(), 2, tmp_path / "log")
    next(running)
    running.close()
    assert len(taken) <= 5
