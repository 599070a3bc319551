"""Two data-parallel processes give the losses of one."""

import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from small_stages import PROSE, base_of, tokens_of, write_lines

from gradus.core.errors import GradusError, TrainingError
from gradus.roadmap import workers
from gradus.roadmap.progress import QuietProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.train.parallel import join_world

ROADMAP = (
    """\
[machine]
threads = 1
precision = "fp32"

"""
    + PROSE
    + tokens_of(280)
    + base_of(12, context=64, depth=2, batch_tokens=512)
    + "log_every = 1\nevaluate_every = 6\n"
)


@pytest.fixture
def roadmap_path(tmp_path):
    write_lines(tmp_path, 300)
    (tmp_path / "pair.toml").write_text(ROADMAP)
    return tmp_path / "pair.toml"


def losses(artifact):
    lines = [json.loads(line) for line in (artifact.path / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "train"]


def test_two_processes_give_the_losses_of_one(roadmap_path):
    one = load_roadmap(roadmap_path)
    two = load_roadmap(roadmap_path, ["machine.processes=2"])
    assert [s.fingerprint for s in one.stages] == [s.fingerprint for s in two.stages]
    home = roadmap_path.parent
    alone = losses(walk(one, home / "one", QuietProgress()).artifacts["base"])
    result = walk(two, home / "two", QuietProgress()).artifacts["base"]
    assert result.manifest.machine["settings"]["processes"] == 2
    together = losses(result)
    assert len(alone) == len(together) == 12
    assert together == pytest.approx(alone, abs=1e-4)


def test_a_process_that_does_not_end_is_ended_with_a_line(tmp_path, monkeypatch):
    started = []

    def start(task, meeting, rank, log):
        workers._ready_mark(log).touch()
        ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", ignores], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        started.append(process)
        return process

    monkeypatch.setattr(workers, "_start", start)
    monkeypatch.setattr(workers, "stage_task", lambda *_: {})
    monkeypatch.setattr(workers, "_END_SECONDS", 0.2)
    place, stage = SimpleNamespace(world_size=2, scratch=tmp_path), SimpleNamespace(name="base")
    with (
        pytest.raises(TrainingError, match=r'^stage "base": process 1 went on for .* after process 0 had finished'),
        workers.worker_processes(None, stage, place),
    ):
        pass
    assert [process.returncode for process in started] == [-9]


def test_a_process_that_cannot_start_ends_the_stage_at_once_with_its_last_words(roadmap_path, monkeypatch):
    def start(task, meeting, rank, log):
        with open(log, "wb") as output:
            return subprocess.Popen([sys.executable, "-c", "raise SystemExit('no such module')"], stderr=output)

    monkeypatch.setattr(workers, "_start", start)
    roadmap = load_roadmap(roadmap_path, ["machine.processes=2"])
    with pytest.raises(GradusError, match="process 1 failed: no such module"):
        walk(roadmap, roadmap_path.parent / "home", QuietProgress())


def test_a_port_that_is_taken_is_told_in_one_line(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in (variables | {"GLOO_SOCKET_IFNAME": "lo"}).items():  # set here, so that it is taken back
            monkeypatch.setenv(name, value)
        with pytest.raises(
            TrainingError, match=rf"cannot meet at 127\.0\.0\.1, port {port}: Address already in use; run"
        ):
            join_world(torch.device("cpu"))
