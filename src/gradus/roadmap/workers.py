"""The other processes of a data-parallel training stage: started beside the walk, ended with it.

They are of one machine; those of several are started by a launcher (launched.py). The walk itself is rank 0. Every
other rank loads the same roadmap, finds the same stage by its fingerprint and runs it in the same work folder without
writing results. The processes meet through the variables of torchrun.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradus.core.artifact import SCRATCH, open_artifact
from gradus.core.errors import TrainingError
from gradus.core.home import ARTIFACTS
from gradus.core.machine import LOOPBACK
from gradus.roadmap.kinds import stage_module
from gradus.roadmap.place import Place
from gradus.roadmap.schema import Roadmap, load_roadmap
from gradus.roadmap.stage import Inputs, Stage
from gradus.roadmap.status import artifact_path, parent_fingerprints

_END_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK", "GLOO_SOCKET_IFNAME")


@contextmanager
def worker_processes(roadmap: Roadmap, stage: Stage, place: Place) -> Iterator[None]:
    """Run ranks 1 to processes - 1 while the block runs rank 0.

    Errors: TrainingError with a worker's last words where one fails; they are ended where rank 0 fails.
    """
    size = place.world_size
    meeting = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    task = json.dumps(stage_task(roadmap, stage, place))
    before = {name: os.environ.get(name) for name in _VARIABLES}
    logs = [place.scratch / f"worker-{rank}.log" for rank in range(1, size)]
    for log in logs:
        _ready_mark(log).unlink(missing_ok=True)
    workers = [_start(task, meeting, rank, logs[rank - 1]) for rank in range(1, size)]
    os.environ.update(meeting | {"RANK": "0", "LOCAL_RANK": "0"})
    try:
        try:
            _await_ready(workers, logs)
            yield
        except RuntimeError as error:
            # Rank 0 often only hears that the connection broke; the worker knows why. Other errors are its own.
            raise TrainingError(_last_words(workers, logs) or str(error)) from error
        _await_end(workers, stage)
    finally:
        for worker in workers:
            if worker.poll() is None:
                # Nothing in it is worth an orderly end, and what hangs might never come to one.
                worker.kill()
                worker.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def stage_task(roadmap: Roadmap, stage: Stage, place: Place) -> dict[str, Any]:
    """What another process needs to know in order to run a stage, as JSON."""
    return {
        "path": str(roadmap.path.resolve()),
        "overrides": roadmap.overrides,
        "smoke": roadmap.smoke,
        "stage": stage.name,
        "fingerprint": stage.fingerprint,
        "work": str(place.work.resolve()),
        "home": str(place.home.resolve()),
    }


def _await_ready(workers: list[subprocess.Popen[bytes]], logs: list[Path]) -> None:
    """Wait until every worker has loaded the stage: one that fails before would be waited for a long time."""
    import torch  # noqa: F401  (takes as long as the workers do, so it is done meanwhile)

    while not all(_ready_mark(log).exists() for log in logs):
        for rank, worker in enumerate(workers, start=1):
            if worker.poll() is not None:
                raise TrainingError(_last_words(workers, logs) or f"process {rank} ended with code {worker.returncode}")
        time.sleep(0.02)


def _await_end(workers: list[subprocess.Popen[bytes]], stage: Stage) -> None:
    until = time.monotonic() + _END_SECONDS
    for rank, worker in enumerate(workers, start=1):
        try:
            worker.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TrainingError(
                f'stage "{stage.name}": process {rank} went on for {_END_SECONDS:.0f} s after process 0 had finished, '
                "and was ended; the stage itself is done: the same command goes on behind it"
            ) from None


def _ready_mark(log: Path) -> Path:
    return log.with_suffix(".ready")


def _start(task: str, meeting: dict[str, str], rank: int, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    with open(log, "wb") as output:
        # A session of its own, so that Ctrl-C reaches rank 0 alone, which then ends the others.
        return subprocess.Popen(
            [sys.executable, "-m", "gradus.roadmap.workers", task, str(os.getpid())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def set_threads(threads: int | None) -> None:
    """Give the roadmap's thread count to libraries that are loaded later, and to torch if it is loaded."""
    # torch's CPU library keeps code for this many sizes of products; of its usual 1,024 each takes about a megabyte.
    # With 48 of them a step of quickstart takes a tenth longer: batches differ in how many documents reach a length.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "96")
    if threads is None:
        return
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _last_words(workers: list[subprocess.Popen[bytes]], logs: list[Path]) -> str:
    for rank, (worker, log) in enumerate(zip(workers, logs, strict=True), start=1):
        code = worker.poll()
        if code and log.exists():
            lines = log.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"process {rank} failed: {lines[-1]}"
        if code is not None and code < 0:
            # The system does this where memory runs out.
            return f"process {rank} was ended by signal {-code}; the same command resumes from the last checkpoint"
    return ""


def work(task: Mapping[str, Any], ready: Callable[[], None]) -> None:
    """Be one rank: run the stage of the task without writing anything of the artifact.

    ready: called when the stage is loaded, before the processes meet.
    """
    home = Path(task["home"])
    roadmap = load_roadmap(Path(task["path"]), task["overrides"], task["smoke"], home)
    stage = roadmap.stage(task["stage"])
    if stage.fingerprint != task["fingerprint"]:
        raise TrainingError("the roadmap or its files changed while the stage was starting; run again")
    by_name = {s.name: s for s in roadmap.stages}
    artifacts = {
        name: open_artifact(artifact_path(home / ARTIFACTS, by_name[name]), verify=False) for name in stage.parents
    }
    by_key = {key: tuple(artifacts[r.stage] for r in refs) for key, refs in stage.references.items()}
    set_threads(roadmap.machine.threads)
    module = stage_module(stage.kind)
    place = Place(
        stage=stage,
        work=Path(task["work"]),
        roadmap_dir=roadmap.directory,
        home=home,
        machine=roadmap.machine,
        smoke=roadmap.smoke,
        makes=module.MAKES,
        stage_version=module.VERSION,
        parents=parent_fingerprints(roadmap, stage),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    ready()
    module.run(stage, Inputs(by_key, artifacts), place)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone: another walk may soon do the same work again."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv[2]),), daemon=True).start()
    own_task = json.loads(sys.argv[1])
    own_log = Path(own_task["work"]) / SCRATCH / f"worker-{os.environ['RANK']}.log"
    work(own_task, lambda: _ready_mark(own_log).touch())
