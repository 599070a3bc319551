"""SwiGLU, ReLU^2 and the sine with Muon at equal parameters: bits per byte at equal steps and at equal processor time.

    python bench/activations.py --data ../shared/data --width 288 --steps 40 --seeds 1 2 --home /tmp/activations

Steps are timed first, those of the three in turn, by processor time, so that work beside them weighs on all alike.
Then each trains for `--steps` steps, and one that is slower also for as many as fit into the time of the fastest, each
run with its whole schedule. Widths are multiples of 3: so a gated feed-forward has exactly the parameters of the
others. Runs that the result file has already are not made again: a later call adds seeds or another width.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from bench_record import machine, write_result
from optimizer_share import timed

from gradus.model.batch import Batch, Documents
from gradus.model.config import model_config
from gradus.model.transformer import build_model
from gradus.roadmap.progress import PlainProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap
from gradus.train.config import GuardSettings, OptimizerSettings
from gradus.train.guard import Guard
from gradus.train.losses import next_token_loss
from gradus.train.memory import keep_freed_memory
from gradus.train.optimizers import build_optimizer
from gradus.train.parallel import World
from gradus.train.step import train_step

# Steps that differ by less are taken for equal in time: the timing itself tells no more.
RESOLVED = 0.05
HERE = Path(__file__).resolve().parent
ACTIVATIONS = ("swiglu", "relu2", "sine")
VOCABULARY, CONTEXT, BATCH_TOKENS, HEAD_DIM = 2048, 256, 2048, 48
DATA = """\
name = "activations"

[machine]
threads = 1
precision = "fp32"

[[stage]]
name = "prose"
kind = "corpus"
sources = [
  {{ kind = "files", path = "{data}/prose/books.jsonl.gz", name = "books", limit = "6 MB" }},
  {{ kind = "files", path = "{data}/prose/textbooks.jsonl.gz", name = "textbooks", limit = "6 MB" }},
]
validation_fraction = 0.02

[[stage]]
name = "bpe"
kind = "tokenizer"
corpus = "prose"
vocab_size = {vocabulary}

[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "prose"
tokenizer = "bpe"
"""
STAGE = """
[[stage]]
name = "{name}"
kind = "pretrain"
seed = {seed}
tokens = "tokens"
model = {model}
context = {context}
horizon = "{steps} steps"
batch_tokens = {batch_tokens}
evaluate_every = 100000
evaluate_tokens = {evaluate_tokens}
samples = []
optimizer = {{ matrix_lr = 0.03, embed_lr = 0.08, head_lr = 0.008 }}
"""


def shape(activation: str, depth: int, width: int) -> dict[str, Any]:
    """A model's table. The gated feed-forward has three matrices of 8/3 the width, the others two of 4 times it."""
    assert width % 3 == 0
    mlp_width = 8 * width // 3 if activation == "swiglu" else 4 * width
    # family: the sine is in no portable model, and all three differ in nothing else.
    return {
        "family": "custom", "activation": activation, "depth": depth, "width": width, "head_dim": HEAD_DIM,
        "mlp_width": mlp_width,
    }  # fmt: skip


def step_seconds(tables: dict[str, dict[str, Any]], steps: int) -> dict[str, dict[str, Any]]:
    """Processor seconds of training steps, one of each model in turn, and of the update inside; the first not counted.

    Random tokens in full rows stand for text: no product depends on what they say.
    """
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(1)
    keep_freed_memory()
    found: dict[str, dict[str, Any]] = {}
    sides = {}
    for name, table in tables.items():
        config = model_config(table, vocab_size=VOCABULARY, context=CONTEXT)
        model = build_model(config, generator, compute_dtype=torch.float32)
        optimizer = build_optimizer(model, OptimizerSettings())
        roles, parameters = model.roles(), dict(model.named_parameters())
        found[name] = {
            "parameters": sum(parameter.numel() for parameter in parameters.values()),
            "in_matrices": sum(p.numel() for key, p in parameters.items() if roles[key] == "matrix"),
            "step_seconds": [],
            "update_seconds": [],
        }
        timed(optimizer, found[name]["update_seconds"])
        sides[name] = model, optimizer, Guard(GuardSettings(), cpu)
    for step in range(steps + 1):
        ids = torch.randint(VOCABULARY, (BATCH_TOKENS,), generator=generator)
        batch = Batch(ids, ids.roll(-1), Documents.of_lengths([CONTEXT] * (BATCH_TOKENS // CONTEXT)))
        for name, (model, optimizer, guard) in sides.items():
            began = time.process_time()
            train_step(model, optimizer, [batch], next_token_loss, step=step, lr_scale=0.5, guard=guard, world=World())
            found[name]["step_seconds"].append(round(time.process_time() - began, 4))
    for figures in found.values():
        for key in ("step_seconds", "update_seconds"):
            figures[key] = [round(seconds, 4) for seconds in figures[key][1:]]
    return found


def steps_in_equal_time(seconds: dict[str, float], steps: int) -> dict[str, int]:
    """Steps of each that fit into the time that the fastest takes for `steps`, from the seconds of one step of each.

    One that is slower by no more than the timing resolves has all of them.
    """
    fastest = min(seconds.values())
    return {
        name: steps if fastest / one > 1 - RESOLVED else round(steps * fastest / one) for name, one in seconds.items()
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--width", type=int, required=True, help="a multiple of 3 and of the head size, 48")
    parser.add_argument("--steps", type=int, required=True, help="of 2,048 tokens")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--timed-steps", type=int, default=16)
    parser.add_argument("--time-again", action="store_true", help="time the steps once more, and do nothing else")
    parser.add_argument("--evaluate-tokens", type=int, default=32768, help="held back, of an evaluation")
    parser.add_argument("--home", type=Path, required=True, help="where corpus, tokens and runs lie")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "activations.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.home.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    key = f"{args.depth} layers of {args.width}, {args.steps} steps"
    found = result.setdefault(key, {"batch_tokens": BATCH_TOKENS, "evaluate_tokens": args.evaluate_tokens, "runs": {}})
    if not args.time_again:
        found |= machine()
    tables = {name: shape(name, args.depth, args.width) for name in ACTIVATIONS}
    if "timing" not in found:
        found["timing"] = step_seconds(tables, args.timed_steps)
        write_result(args.out, result)
    if args.time_again:
        found.setdefault("later_timings", []).append(step_seconds(tables, args.timed_steps) | {"machine": machine()})
        write_result(args.out, result)
        return
    seconds = {name: statistics.mean(of["step_seconds"]) for name, of in found["timing"].items()}
    fitting = steps_in_equal_time(seconds, args.steps)
    print("seconds a step", seconds, "steps in equal time", fitting, flush=True)
    data = DATA.format(data=args.data.resolve(), vocabulary=VOCABULARY)
    file = args.home / "activations.toml"
    file.write_text(data)
    walk(load_roadmap(file), args.home, PlainProgress())
    for seed in args.seeds:
        for steps_of in (dict.fromkeys(ACTIVATIONS, args.steps), fitting):
            for name, steps in steps_of.items():
                run = f"{name}, seed {seed}, {steps} steps"
                if run in found["runs"]:
                    continue
                stage = f"{name}-{args.width}-{steps}-{seed}"
                table = ", ".join(f"{setting} = {json.dumps(value)}" for setting, value in tables[name].items())
                file.write_text(
                    data
                    + STAGE.format(
                        name=stage, seed=seed, steps=steps, model=f"{{ {table} }}", context=CONTEXT,
                        batch_tokens=BATCH_TOKENS, evaluate_tokens=args.evaluate_tokens,
                    )
                )  # fmt: skip
                began = time.process_time()
                made = walk(load_roadmap(file), args.home, PlainProgress(), only=[stage]).artifacts[stage]
                found["runs"][run] = {
                    "bits_per_byte": made.results["bpb"],
                    "processor_seconds": round(time.process_time() - began, 1),  # with evaluation and saving
                }
                print(run, found["runs"][run], flush=True)
                write_result(args.out, result)


if __name__ == "__main__":
    main()
