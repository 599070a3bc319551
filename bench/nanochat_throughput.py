"""Claim: training throughput against nanochat on the same machine, in one run, sides alternating.

Both train a decoder of depth 4 and width 256 (or `--depth` and 64 times it) over a vocabulary of 8192 with rows of
512 tokens, 8 rows a step, on the same text; gradus has a wider feed-forward, which gives it at least nanochat's
matrix parameters. nanochat runs in fp32 (its choice on a CPU) and with NANOCHAT_DTYPE=bfloat16; gradus runs in the
precision it chooses itself, and for information with one data-parallel process a core, and in fp32. Each round
runs every side once, by itself; a side's figure is the median over all its steps after warm-up of tokens / seconds of
the step, as each side times its own step (batch fetch, forward, backward, optimizer). nanochat's compilation is not
counted.

    python bench/nanochat_throughput.py --nanochat DIR --nanochat-python PY \\
        --base DATA/nanochat --tokens DATA/tokens
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from bench_record import machine, wait_until_quiet, write_result

from gradus.core.machine import usable_cores

HERE = Path(__file__).resolve().parent
_MLP_WIDTH = 176  # times the depth: 2 % more matrix parameters than nanochat's
STEP_MS = re.compile(r"dt: ([0-9.]+)ms")
PARAMETERS = re.compile(r"^(\w+)\s*: ([0-9,]+)$", re.MULTILINE)


def nanochat_command(args: argparse.Namespace, steps: int) -> list[str]:
    """nanochat's base_train at the compared size, without evaluation, sampling or intermediate saving."""
    return [
        args.nanochat_python, str(HERE / "nanochat_runner.py"), "train",
        "--nanochat", str(args.nanochat), "--base", str(args.base), "--",
        f"--depth={args.depth}", "--aspect-ratio=64", "--head-dim=64", "--window-pattern=L",
        f"--max-seq-len={args.context}", f"--device-batch-size={args.rows}",
        f"--total-batch-size={args.rows * args.context}", f"--num-iterations={steps}",
        "--eval-every=-1", "--core-metric-every=-1", "--sample-every=-1", "--model-tag=throughput",
    ]  # fmt: skip


def launcher(processes: int) -> list[str]:
    """What starts a script of this folder in one or more data-parallel processes."""
    if processes == 1:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def gradus_command(args: argparse.Namespace, steps: int, precision: str, processes: int = 1) -> list[str]:
    """This project's training loop at the compared size."""
    return [
        *launcher(processes), str(HERE / "gradus_runner.py"), "throughput", "--tokens", str(args.tokens),
        "--depth", str(args.depth), "--rows", str(args.rows), "--context", str(args.context),
        "--steps", str(steps), "--precision", precision,
        "--settings", json.dumps({"model": {"mlp_width": _MLP_WIDTH * args.depth}}),
    ]  # fmt: skip


def step_seconds(output: str) -> list[float]:
    """Seconds of each step that a side printed as `dt: <milliseconds>ms`."""
    return [float(found) / 1000 for found in STEP_MS.findall(output)]


def parameter_counts(output: str) -> dict[str, int]:
    """Parameter counts printed as `name : 1,234`."""
    return {name: int(count.replace(",", "")) for name, count in PARAMETERS.findall(output)}


def tokens_per_second(seconds: list[float], tokens: int) -> float:
    """Median over steps."""
    return tokens / statistics.median(seconds)


def run_side(command: list[str], environment: dict[str, str]) -> str:
    """Standard output of one side; its error output is shown when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nfailed with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", type=Path, required=True, help="checkout of nanochat")
    parser.add_argument("--nanochat-python", required=True, help="python of its environment")
    parser.add_argument("--base", type=Path, required=True, help="NANOCHAT_BASE_DIR with tokenizer and shards")
    parser.add_argument("--tokens", type=Path, required=True, help="folder written by nanochat_runner.py tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="measured steps a round")
    parser.add_argument("--warm-up", type=int, default=12, help="steps before measuring")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument(
        "--wait-quiet", type=float, default=60, help="seconds to wait for an idle machine before each run"
    )
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16",
        help="fp32 leaves out what computes in bf16, on a processor that has none",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE / "results" / "nanochat-throughput.json")
    args = parser.parse_args()
    total = args.warm_up + args.steps
    sides = {
        "nanochat-fp32": (nanochat_command(args, total), {"NANOCHAT_DTYPE": "float32"}),
        "nanochat-bf16": (nanochat_command(args, total), {"NANOCHAT_DTYPE": "bfloat16"}),
        "gradus": (gradus_command(args, total, "auto"), {}),
        "gradus-processes": (gradus_command(args, total, "auto", usable_cores()), {}),
        "gradus-fp32": (gradus_command(args, total, "fp32"), {}),
    }
    if args.precision == "fp32":
        sides = {name: sides[name] for name in ("nanochat-fp32", "gradus", "gradus-processes")}
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    idle: list[tuple[str, float]] = []
    parameters: dict[str, dict[str, int]] = {}
    for _ in range(args.rounds):
        for name, (command, environment) in sides.items():
            idle.append((name, wait_until_quiet(args.wait_quiet)))
            output = run_side(command, environment)
            seconds[name].append(step_seconds(output)[args.warm_up :])
            parameters[name] = parameter_counts(output)
            print(
                f"{name}: {tokens_per_second(seconds[name][-1], args.rows * args.context):,.0f} tokens/s",
                flush=True,
            )
    tokens = args.rows * args.context
    rates = {name: tokens_per_second([s for part in parts for s in part], tokens) for name, parts in seconds.items()}
    best = {name: tokens / min(min(part) for part in parts) for name, parts in seconds.items()}
    bars = {"nanochat-fp32": 2.5, "nanochat-bf16": 1.2}
    result = {
        "claim": "training throughput against nanochat, tokens per second",
        "tokens_per_second": rates,
        "tokens_per_second_by_round": {
            name: [tokens_per_second(part, tokens) for part in parts] for name, parts in seconds.items()
        },
        "tokens_per_second_of_the_fastest_step": best,
        "ratio": {f"gradus over {peer}": rates["gradus"] / rates[peer] for peer in bars if peer in rates},
        "bars": {f"gradus over {peer}": bar for peer, bar in bars.items() if peer in rates},
        "parameters": parameters,
        "idle_fraction_before_each_run": idle,
        "shape": {"depth": args.depth, "rows": args.rows, "context": args.context, "rounds": args.rounds},
        **machine(args.nanochat, args.nanochat_python),
    }
    write_result(args.out, result)
    print(json.dumps(result["ratio"], indent=1))


if __name__ == "__main__":
    main()
