"""This project's side of the nanochat comparison: the training step on the shared token ids, then scoring.

    python bench/gradus_runner.py throughput --tokens DATA/tokens --steps 32
    python bench/gradus_runner.py train --tokens DATA/tokens --seed 1 --steps 400 --rows 4

`--settings` is a JSON object with any of: model (a table for the depth dial), optimizer, schedule; what it
leaves out has the project's defaults. Prints one line a step with `dt: <ms>ms`, parameter counts as `name :
1,234`, and after `train` a line `RESULT {...}`. Under torchrun the rows of a step are divided among the processes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nanochat_windows import bits_per_byte, scored_bytes, split_documents, windows

from gradus.data.pack import PackPlan, pack_plan
from gradus.model.batch import Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import Transformer, build_model
from gradus.train.config import GuardSettings, OptimizerSettings, ScheduleSettings
from gradus.train.guard import Guard
from gradus.train.losses import next_token_loss
from gradus.train.memory import keep_freed_memory
from gradus.train.optimizers import build_optimizer
from gradus.train.parallel import World, join_world, leave_world
from gradus.train.precision import compute_dtype
from gradus.train.schedule import Schedule
from gradus.train.step import train_step


def packed_batches(
    stream: np.ndarray, starts: np.ndarray, context: int, rows: int, seed: int, world: World
) -> Callable[[int], Batch]:
    """Batches by step: rows of whole pieces of documents, in an order drawn once from the seed; this process's share.

    Targets are the next token of the stream, so a piece's last target is the first token behind it.
    """
    lengths = np.diff(np.append(starts, len(stream)))
    plan = pack_plan(lengths, context)
    order = np.random.default_rng(seed).permutation(plan.num_rows)

    def batch(step: int) -> Batch:
        chosen = order[np.arange(step * rows + world.rank, (step + 1) * rows, world.size) % len(order)]
        return _batch(stream, starts, plan, chosen)

    return batch


def _batch(stream: np.ndarray, starts: np.ndarray, plan: PackPlan, rows: np.ndarray) -> Batch:
    pieces = np.concatenate([np.arange(plan.row_starts[row], plan.row_starts[row + 1]) for row in rows])
    lows = starts[plan.document[pieces]] + plan.offset[pieces]
    lengths = plan.length[pieces]
    places = np.concatenate([np.arange(low, low + size) for low, size in zip(lows, lengths, strict=True)])
    tokens = torch.from_numpy(stream[places].astype(np.int64))
    targets = torch.from_numpy(stream[(places + 1) % len(stream)].astype(np.int64))
    return Batch(tokens, targets, Documents.of_lengths(lengths.tolist()))


def read_split(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Token stream and document starts that nanochat_runner.py wrote."""
    return np.fromfile(folder / f"{name}.bin", dtype=np.uint16), np.load(folder / f"{name}.starts.npy")


def build(args: argparse.Namespace, settings: dict[str, Any], meta: dict[str, Any], world: World) -> Transformer:
    """A fresh model of the compared size; the first process prints its parameter counts by role."""
    table = {"preset": f"d{args.depth}", **settings.get("model", {})}
    config = model_config(table, vocab_size=meta["vocabulary"], context=args.context)
    dtype = compute_dtype(args.precision, torch.device("cpu"))
    model = build_model(config, torch.Generator().manual_seed(args.seed), compute_dtype=dtype)
    counts: dict[str, int] = {}
    roles = model.roles()
    for name, parameter in model.named_parameters():
        counts[roles[name]] = counts.get(roles[name], 0) + parameter.numel()
    if world.is_main:
        for name, count in {**counts, "total": sum(counts.values())}.items():
            print(f"{name:12s}: {count:,}")
        print(f"compute dtype {dtype}, {world.size} processes, {torch.get_num_threads()} threads each")
    return model


def train(args: argparse.Namespace, settings: dict[str, Any], meta: dict[str, Any], world: World) -> Transformer:
    """Train for `--steps` steps of `--rows` rows with the whole schedule."""
    torch.manual_seed(args.seed)
    keep_freed_memory()  # as `fit` does
    model = build(args, settings, meta, world)
    optimizer = build_optimizer(model, OptimizerSettings(**settings.get("optimizer", {})))
    schedule = Schedule(ScheduleSettings(**settings.get("schedule", {})), args.steps)
    guard = Guard(GuardSettings(), torch.device("cpu"))
    batch = packed_batches(*read_split(args.tokens, "train"), args.context, args.rows, args.seed, world)
    smooth = 0.0
    for step in range(args.steps):
        began = time.perf_counter()
        done = train_step(
            model, optimizer, [batch(step)], next_token_loss,
            step=step, lr_scale=schedule(step), guard=guard, world=world,
        )  # fmt: skip
        loss = float(done.loss_sum / done.count)
        seconds = time.perf_counter() - began
        smooth = 0.9 * smooth + 0.1 * loss
        rate = float(done.tokens) / seconds
        if not world.is_main:
            continue
        print(
            f"step {step:05d}/{args.steps:05d} | loss: {smooth / (1 - 0.9 ** (step + 1)):.4f} | "
            f"lr: {schedule(step):.2f} | dt: {seconds * 1000:.2f}ms | tok/sec: {rate:,.0f}",
            flush=True,
        )
    return model


@torch.no_grad()
def score(args: argparse.Namespace, model: Transformer, meta: dict[str, Any]) -> dict[str, float]:
    """Held-out bits per byte in fp32, in both layouts of rows."""
    model.compute_dtype = torch.float32
    token_bytes = np.load(args.tokens / "token_bytes.npy")
    documents = split_documents(*read_split(args.tokens, "validation"))
    result: dict[str, float] = {}
    for layout in ("stream", "start"):
        rows = windows(documents, meta["start"], args.context, layout)
        nats = 0.0
        for low in range(0, len(rows.inputs), 8):
            targets = torch.from_numpy(np.where(rows.targets < 0, -100, rows.targets)[low : low + 8])
            inputs = torch.from_numpy(rows.inputs[low : low + 8])
            lengths = [inputs.shape[1]] * inputs.shape[0]
            batch = Batch(inputs.flatten(), targets.flatten(), Documents.of_lengths(lengths))
            nats += float(next_token_loss(model, batch)[0])
        result[layout] = bits_per_byte(nats, rows.targets, token_bytes)
        result["bytes"] = scored_bytes(rows.targets, token_bytes)
    return result


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("throughput", "train"))
    parser.add_argument("--tokens", type=Path, required=True, help="folder written by nanochat_runner.py")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows", type=int, default=8, help="rows a step")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON object")
    args = parser.parse_args()
    meta = json.loads((args.tokens / "meta.json").read_text())
    world = join_world(torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // world.size))
    model = train(args, args.settings, meta, world)
    leave_world()
    if args.action == "train" and world.is_main:
        torch.set_num_threads(threads)
        print("RESULT " + json.dumps(score(args, model, meta)))


if __name__ == "__main__":
    main()
