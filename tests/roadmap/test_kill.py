"""A walk killed by kill -9 anywhere ends with the weights of an unbroken walk, bit for bit."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from small_stages import PROSE, SFT, TALK, base_of, tokens_of, write_chats, write_lines

ROADMAP = (
    """\
name = "killed"
seed = 3

[machine]
threads = 1

"""
    + PROSE
    + TALK
    + tokens_of(285)
    + base_of(24, context=64, depth=2, batch_tokens=512, samples='["The"]')
    + """\
save_every = 4
evaluate_every = 6
log_every = 2
"""
    + SFT
    + """\
batch_tokens = 512
epochs = 3
save_every = 3
evaluate_every = 5
log_every = 2
"""
)


@pytest.fixture
def folder(tmp_path):
    write_lines(tmp_path, 400)
    write_chats(tmp_path, [(f"Say {i}", f"It is {i}.") for i in range(120)])
    (tmp_path / "killed.toml").write_text(ROADMAP)
    return tmp_path


def start(folder, home):
    code = "from gradus.cli.main import main; main()"
    command = [sys.executable, "-c", code, "run", "killed.toml", "--home", home]
    with open(folder / f"{home}.log", "ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def weights(folder, home):
    """Checksums of what must be equal: every model file and every shard."""
    found = {}
    for stage in ("tokens", "base", "chat"):
        for file in sorted((folder / home / "runs/killed" / stage).rglob("*")):
            if file.suffix in {".safetensors", ".bin"} and "checkpoints" not in file.parts:
                found[f"{stage}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def walk_with_kills(folder, home, kills, seconds, rng):
    """Kill the walk after random delays, then let it end; how many kills hit a running walk."""
    hits = 0
    while hits < kills:
        process = start(folder, home)
        # From the first write on: an interpreter that is still importing has nothing to lose.
        delay = rng.uniform(0.2, seconds)
        began = time.monotonic()
        while time.monotonic() - began < delay and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is not None:
            assert process.returncode == 0, (folder / f"{home}.log").read_text()[-2000:]
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        hits += 1
    process = start(folder, home)
    assert process.wait(1800) == 0, (folder / f"{home}.log").read_text()[-2000:]
    return hits


def check(folder, kills, seed):
    began = time.monotonic()
    assert start(folder, "whole").wait(1800) == 0, (folder / "whole.log").read_text()[-2000:]
    seconds = time.monotonic() - began
    expected = weights(folder, "whole")
    assert {name.split("/")[0] for name in expected} == {"tokens", "base", "chat"}
    rng = random.Random(seed)
    hits, round_number = 0, 0
    while hits < kills:
        home = f"broken{round_number}"
        hits += walk_with_kills(folder, home, kills - hits, seconds * 0.8, rng)
        assert weights(folder, home) == expected
        assert not list((folder / home / "artifacts").glob("*.work"))
        round_number += 1
    return hits


def test_a_kill_changes_nothing(folder):
    assert check(folder, kills=1, seed=1) == 1


@pytest.mark.slow
def test_twenty_kills_change_nothing(folder):
    assert check(folder, kills=20, seed=2) == 20
