"""Processes of Python that have torch and gradus imported: a process that has imported them forks for each.

An import of torch takes seconds of a processor, and many tests are about what a process of its own does. Each begins
with the arguments, the folder and the environment that are given, and ends as any does; what it printed is kept in
files meanwhile. What is about imports, signals or a terminal is started in the ordinary way.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

IMPORTED = (
    "torch", "torch.distributed", "gradus.cli.main", "gradus.engine.engine", "gradus.roadmap.run",
    "gradus.roadmap.training", "gradus.train.loop", "gradus.train.checkpoint",
)  # fmt: skip


class WarmStart:
    """Runs a module's `main`, or a file, in a process of its own that need not import torch."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        words: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        changes: Mapping[str, Any] | None = None,
        timeout: float = 1800.0,
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` gives for [a Python, *words], where words begin with a file or with -m and a module.

        changes: "module:name" to a value that it has in this process. Errors: TimeoutExpired.
        """
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [f"{folder}/out", f"{folder}/errors"]
            task = {"words": [str(word) for word in words], "cwd": str(cwd or Path.cwd()), "files": files,
                    "env": dict(os.environ if env is None else env), "changes": dict(changes or {})}  # fmt: skip
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            pid = int(self._process.stdout.readline())
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                os.killpg(pid, signal.SIGKILL)
                self._process.stdout.readline()
                raise subprocess.TimeoutExpired(list(map(str, words)), timeout)
            status = int(self._process.stdout.readline())
            out, errors = (Path(file).read_text(encoding="utf-8", errors="replace") for file in files)
        return subprocess.CompletedProcess(list(map(str, words)), status, out, errors)

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


def _serve() -> dict[str, Any] | None:
    """Fork for every line of the input; the task in the process that is to do it, None at the end of the input."""
    for line in iter(sys.stdin.readline, ""):
        task: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            return task
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _become(task: dict[str, Any]) -> None:
    """What begins anew in a process: its input and output, its folder, environment and arguments."""
    os.setsid()
    for number, path in enumerate((os.devnull, *task["files"])):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(task["env"])
    os.chdir(task["cwd"])
    for place, value in task["changes"].items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    first, *rest = task["words"]
    if first == "-m":
        sys.argv = rest
        importlib.import_module(rest[0]).main()
    else:
        sys.argv = [first, *rest]
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for imported in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(imported)
    gc.freeze()  # what is imported is not looked through, and so not copied, in every fork
    own_task = _serve()
    if own_task is not None:
        _become(own_task)
