"""The optimizer's share of a training step on a CPU: the steps timed whole, and the update inside them.

    python bench/optimizer_share.py --depth 8 --tokens 32768

Random tokens in rows of 1,024 stand for text: no product depends on what they say. Times are the processor's, of all
threads together, so that work beside it does not count.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from bench_record import idle_fraction, machine

from gradus.model.batch import Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.train.config import GuardSettings, OptimizerSettings
from gradus.train.guard import Guard
from gradus.train.losses import next_token_loss
from gradus.train.memory import keep_freed_memory
from gradus.train.optimizers import Optimizer, build_optimizer
from gradus.train.parallel import World
from gradus.train.precision import compute_dtype
from gradus.train.step import train_step

ROW_TOKENS = 1024


def batch(tokens: int, vocabulary: int, generator: torch.Generator) -> Batch:
    """One micro-batch of whole rows of random tokens."""
    ids = torch.randint(vocabulary, (tokens,), generator=generator)
    return Batch(ids, ids.roll(-1), Documents.of_lengths([ROW_TOKENS] * (tokens // ROW_TOKENS)))


def timed(optimizer: Optimizer, seconds: list[float]) -> None:
    """Let an optimizer's updates tell how long they take."""
    update = optimizer.step

    def step(*arguments: Any) -> None:
        began = time.process_time()
        update(*arguments)
        seconds.append(time.process_time() - began)

    optimizer.step = step  # type: ignore[method-assign, assignment]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--tokens", type=int, default=32768, help="a step")
    parser.add_argument("--micro-tokens", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=3, help="after one that is not counted")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/optimizer-share.json")
    args = parser.parse_args()
    idle = idle_fraction()
    cpu = torch.device("cpu")
    generator = torch.Generator().manual_seed(1)
    config = model_config({"preset": f"d{args.depth}"}, vocab_size=args.vocabulary, context=ROW_TOKENS)
    model = build_model(config, generator, compute_dtype=compute_dtype("auto", cpu))
    optimizer = build_optimizer(model, OptimizerSettings())
    guard, world = Guard(GuardSettings(), cpu), World()
    keep_freed_memory()
    updates: list[float] = []
    timed(optimizer, updates)
    whole: list[float] = []
    for step in range(args.steps + 1):
        micro = [batch(args.micro_tokens, args.vocabulary, generator) for _ in range(args.tokens // args.micro_tokens)]
        began = time.process_time()
        train_step(model, optimizer, micro, next_token_loss, step=step, lr_scale=0.5, guard=guard, world=world)
        whole.append(time.process_time() - began)
        print(f"step {step}: {whole[-1]:.2f} s, the update {updates[-1]:.2f} s", flush=True)
    share = sum(updates[1:]) / sum(whole[1:])
    print(f"share of the optimizer: {share:.2%} (bar 10 %)")
    result = {
        "claim": "share of the optimizer in a training step on a CPU",
        **machine(),
        "idle_fraction_before": idle,
        "depth": args.depth,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_a_step": args.tokens,
        "dtype": str(model.compute_dtype),
        "threads": torch.get_num_threads(),
        "step_seconds": whole[1:],
        "update_seconds": updates[1:],
        "share": share,
        "bar": 0.10,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
