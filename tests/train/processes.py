"""Helper of test_fit: runs that are killed, and runs on several ranks, as forks of one fresh process.

kill FOLDER KILLS SEED KIND: train once unbroken, then again killed KILLS times.
ranks FOLDER SIZE STOP MODE [KIND]: train on SIZE gloo ranks in a mode of `parallel`, stopping after step STOP, with
optimizers such as "rest=adafactor", of another "width=128", with "offload=yes", and with "nan=24:27" a loss that is NaN
in these data steps on the last rank.
full FOLDER RANK: save on two ranks, one of them with a full disk.
addresses FOLDER: where each of two ranks can be reached. Each prints JSON.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import tiny_training as tiny
import torch

from gradus.core.errors import TrainingError
from gradus.model.batch import Batch
from gradus.model.transformer import Transformer
from gradus.train import saving
from gradus.train.checkpoint import Checkpoints
from gradus.train.config import GuardSettings
from gradus.train.loop import fit
from gradus.train.losses import next_token_loss
from gradus.train.optimizers import build_optimizer
from gradus.train.parallel import World, join_world, leave_world
from gradus.train.sharding import whole_weights

KILL_STEPS = 40
RANK_STEPS = 50


def train_to_the_end(folder: Path, told: Path, background: bool = False, world: World | None = None) -> None:
    world = world or World()
    model, optimizer = tiny.model_and_optimizer(world=world)
    reports = fit(
        model,
        optimizer,
        lambda step: tiny.batches(step)[world.rank :: world.size],
        next_token_loss,
        tiny.schedule(KILL_STEPS),
        steps=KILL_STEPS,
        checkpoints=Checkpoints(folder, world=world, background=background),
        log_every=7,
        save_every=4,
        precision="fp32",
        world=world,
    )
    for report in reports:
        if report.resumed and world.is_main:
            with told.open("a") as handle:
                handle.write(f"{report.step}\n")
    leave_world()


def one_of_two(folder: Path, told: Path, rank: int, port: int, mode: str) -> None:
    """Train as one of two ranks; end at once where the other is gone, as under a launcher."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    train_to_the_end(folder, told, background=True, world=join_world(torch.device("cpu"), mode))


def forked(work: Callable[[], None]) -> int:
    """Process id of a child that does `work` and exits."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # it ends here, and else nobody would be told why
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def succeeded(*children: int) -> bool:
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        print(f"exit codes {codes}", file=sys.stderr)  # a signal leaves no traceback
    return not any(codes)


def kill(folder: Path, kills: int, seed: int, kind: str) -> dict[str, object]:
    """kind: "alone", "background" (saving while training goes on), or a mode of two ranks, one of which is killed."""
    draw = random.Random(seed)
    told = folder / "told"
    told.touch()

    def start(where: Path) -> list[int]:
        if kind in {"alone", "background"}:
            return [forked(lambda: train_to_the_end(where, told, background=kind == "background"))]
        port = free_port()
        return [forked(partial(one_of_two, where, told, rank, port, kind)) for rank in range(2)]

    def under_way(where: Path) -> list[int]:
        """A start that has resumed, or where there was nothing to resume from, saved for the first time."""
        saved = any(where.glob("step-????????"))
        resumed = told.read_text()
        children = start(where)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if told.read_text() != resumed or (not saved and any(where.glob("step-????????"))):
                break
            if any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) for child in children):
                break  # one has failed
            time.sleep(0.005)
        return children

    begin = time.monotonic()
    children = under_way(folder / "whole")
    training_from = time.monotonic()
    assert succeeded(*children)
    whole_seconds, training_seconds = time.monotonic() - begin, time.monotonic() - training_from
    done = 0
    while done < kills:
        # One falls anywhere, most often before there is a checkpoint; the others while it trains and saves.
        children = under_way(folder / "broken") if done else start(folder / "broken")
        time.sleep(draw.uniform(0.0, training_seconds if done else whole_seconds))
        victim = draw.choice(children)
        found, status = os.waitpid(victim, os.WNOHANG)
        if found:
            # Finished before it was killed: start over, there is more to kill.
            assert status == 0, f"exit code {os.waitstatus_to_exitcode(status)} of one that was not killed"
            assert succeeded(*(child for child in children if child != victim))
            shutil.rmtree(folder / "broken")
            continue
        for child in [victim, *(child for child in children if child != victim)]:
            os.kill(child, signal.SIGKILL)  # a launcher ends the others when one is gone
            os.waitpid(child, 0)
        done += 1
    assert succeeded(*start(folder / "broken"))
    return {"kills": done, "resumed_from": [int(line) for line in told.read_text().split()]}


def train_rank(folder: Path, size: int, rank: int, stop: int, mode: str, kinds: dict[str, str], port: int) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank)
    )
    world = join_world(torch.device("cpu"), mode)
    assert world == World(rank, size)
    assert world.is_sharded == (mode != "replicate" and size > 1)

    def share(step: int) -> list:
        documents = tiny.documents_of_step(step)
        if size == 1:
            return [tiny.batch(documents)]
        # Uneven shares: one document against five.
        return [tiny.batch(documents[:1])] if rank == 0 else [tiny.batch(documents[1:3]), tiny.batch(documents[3:])]

    bad = range(*map(int, kinds.get("nan", "0:0").split(":")))
    width = int(kinds.get("width", 32))
    wrapping = {"offload_from": torch.device("cpu")} if "offload" in kinds else None
    kinds = {name: kind for name, kind in kinds.items() if name not in {"nan", "width", "offload"}}
    data_step = 0

    def share_noted(step: int) -> list:
        nonlocal data_step
        data_step = step
        return share(step)

    def loss(model: Transformer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        total, count, metrics = next_token_loss(model, batch)
        is_bad = rank == size - 1 and data_step in bad
        return total * (torch.nan if is_bad else 1.0), count, metrics

    model, optimizer = tiny.model_and_optimizer(world=world, width=width, wrapping=wrapping, **kinds)
    # What a forward pass without a backward pass leaves behind must not be taken for the parameters.
    with torch.no_grad():
        next_token_loss(model, tiny.batch(tiny.documents_of_step(0)))
    optimizer = build_optimizer(model, optimizer.settings, world)
    with torch.no_grad():
        next_token_loss(model, tiny.batch(tiny.documents_of_step(0)))
    losses, tokens, passed_over = [], 0, ()
    for report in fit(
        model,
        optimizer,
        share_noted,
        loss,
        tiny.schedule(RANK_STEPS),
        steps=RANK_STEPS,
        checkpoints=Checkpoints(folder / "checkpoints", world=world),
        log_every=1,
        save_every=20,
        precision="fp32",
        guard=GuardSettings(skips_in_row=3),
        world=world,
    ):
        if not report.resumed:
            losses.append(report.loss)
            tokens, passed_over = report.tokens, report.passed_over
        if report.step == stop and not report.resumed:
            break
    with whole_weights(model, world):
        digest = sum(float(p.detach().double().abs().sum()) for p in model.parameters())
    told = {"losses": losses, "tokens": tokens, "passed_over": passed_over, "digest": digest}
    (folder / f"rank{rank}.json").write_text(json.dumps(told))
    leave_world()


def save_with_full_disk(folder: Path, rank: int, full: int, port: int) -> None:
    """Two sharded ranks save; the disk of rank `full` is full at the second checkpoint, and free again at the third."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    world = join_world(torch.device("cpu"), "shard")
    model, optimizer = tiny.model_and_optimizer(world=world)
    checkpoints = Checkpoints(folder, world=world, background=True)
    real = saving.save_tensors

    def refuse(path: Path, tensors: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    told = ""
    for step in (1, 2, 3):
        saving.save_tensors = refuse if step == 2 and rank == full else real
        try:
            checkpoints.save(step, model, optimizer, {"step": step}, {"step": torch.tensor(step)})
            checkpoints.finish()
        except TrainingError as error:
            told = str(error)
    found = checkpoints.latest()
    assert found is not None
    (folder / f"rank{rank}.json").write_text(json.dumps({"told": told, "latest": found.step}))
    leave_world()


def full_disk(folder: Path, full: int) -> list[dict[str, object]]:
    port = free_port()
    assert succeeded(*[forked(partial(save_with_full_disk, folder, rank, full, port)) for rank in range(2)])
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def reached(folder: Path, rank: int, port: int) -> None:
    """Note the addresses at which one of two ranks can be reached."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    world = join_world(torch.device("cpu"))
    connections = psutil.Process().net_connections("inet")
    found = sorted({connection.laddr.ip for connection in connections if connection.status == "LISTEN"})
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    assert world.all_agree(True)  # the store goes with rank 0
    leave_world()


def addresses(folder: Path) -> list[list[str]]:
    port = free_port()
    assert succeeded(*[forked(partial(reached, folder, rank, port)) for rank in range(2)])
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ranks(folder: Path, size: int, stop: int, mode: str, kinds: dict[str, str]) -> dict[str, object]:
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()

    def of_rank(rank: int) -> Callable[[], None]:
        return lambda: train_rank(folder, size, rank, stop, mode, kinds, port)

    assert succeeded(*[forked(of_rank(rank)) for rank in range(size)])
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(size)]
    agree = all(part == found[0] for part in found)
    return {**found[0], "ranks_agree": agree}


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, folder, *words = sys.argv[1:]
    if command == "kill":
        answer = kill(Path(folder), int(words[0]), int(words[1]), words[2])
    elif command == "full":
        answer = full_disk(Path(folder), int(words[0]))
    elif command == "addresses":
        answer = addresses(Path(folder))
    else:
        size, stop, mode, *kinds = words
        answer = ranks(Path(folder), int(size), int(stop), mode, dict(kind.split("=") for kind in kinds))
    print(json.dumps(answer))
