"""Claim: held-out bits per byte against nanochat at equal training time, several seeds.

A budget of S seconds is R x S tokens for each side, R being that side's own rate. Each budget is a complete
run with its own schedule from warm-up to warm-down. R comes from the throughput claim's result (`--rates
FILE`, so runs may share the machine with other work and still be worth S quiet seconds), or, with
`--wall-clock`, from a short calibration right before each run on a quiet machine; the seconds that a run
took are recorded too.

Both sides train on the same documents with the same token ids, each with its own loader, model, optimizer and
schedule, and are scored in fp32 on the same held-out rows (see nanochat_windows.py). Each finished run
is written into the result at once, and what stands there is not run again; `--runs` holds the logs.

    python bench/nanochat_bpb.py --nanochat DIR --nanochat-python PY --data DATA --runs DATA/runs \\
        --rates bench/results/nanochat-throughput.json --budgets 300 600 1200 --seeds 1 2 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from bench_record import machine, write_result
from nanochat_throughput import STEP_MS, launcher

HERE = Path(__file__).resolve().parent
CALIBRATION_STEPS = 40
CALIBRATION_WARM_UP = 15
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def steps_for(rate: float, seconds: float, tokens_per_step: int) -> int:
    """Steps that a side takes in a budget: its tokens rounded to whole steps, at least one."""
    return max(1, round(rate * seconds / tokens_per_step))


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, object]]:
    """For each budget each side's figures, the gap of the means and the spread of seeds it must exceed."""
    rows: list[dict[str, object]] = []
    for budget in sorted({run["budget_seconds"] for run in runs}):
        row: dict[str, object] = {"budget_seconds": budget}
        figures = {}
        for side in ("nanochat", "gradus"):
            found = [run["bpb"] for run in runs if run["side"] == side and run["budget_seconds"] == budget]
            if found:
                figures[side] = found
                row[side] = {
                    "mean": statistics.mean(found),
                    "min": min(found),
                    "max": max(found),
                    "seeds": len(found),
                }
        if len(figures) == 2:
            spread = max(max(found) - min(found) for found in figures.values())
            gap = statistics.mean(figures["nanochat"]) - statistics.mean(figures["gradus"])
            row["gap"] = gap
            if min(map(len, figures.values())) > 1:  # one seed shows no spread
                row |= {"spread": spread, "better_by_more_than_spread": gap > spread}
        rows.append(row)
    return rows


def nanochat_command(args: argparse.Namespace, seed: int, steps: int, tag: str) -> list[str]:
    """nanochat's base_train at depth 4 with its own defaults for everything but size, batch and horizon."""
    return [
        args.nanochat_python, str(HERE / "nanochat_runner.py"), "train", "--nanochat", str(args.nanochat),
        "--base", str(args.data / f"nanochat-seed{seed}"), "--seed", str(seed), "--",
        "--depth=4", "--aspect-ratio=64", "--head-dim=64", "--window-pattern=L", "--max-seq-len=512",
        f"--device-batch-size={args.nanochat_rows}", f"--total-batch-size={args.nanochat_batch}",
        f"--num-iterations={steps}", "--eval-every=-1", "--core-metric-every=-1", "--sample-every=-1",
        f"--model-tag={tag}", *args.nanochat_extra,
    ]  # fmt: skip


def gradus_command(args: argparse.Namespace, seed: int, steps: int) -> list[str]:
    """This project's loop with its defaults for a depth-4 model."""
    command = [
        *launcher(args.gradus_processes), str(HERE / "gradus_runner.py"), "train",
        "--tokens", str(args.data / "tokens"), "--seed", str(seed),
        "--steps", str(steps), "--rows", str(args.gradus_rows),
    ]  # fmt: skip
    return command + (["--settings", args.gradus_settings] if args.gradus_settings else [])


def run(command: list[str], environment: dict[str, str], log: Path) -> tuple[str, float]:
    """Output and seconds of a command, its output kept in a log; ends the script when it fails."""
    began = time.monotonic()
    with log.open("w") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **environment})
    output = log.read_text()
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nfailed with {done.returncode}:\n{output[-3000:]}")
    return output, time.monotonic() - began


def result_line(output: str) -> dict[str, float]:
    """The JSON object that a runner prints behind RESULT."""
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    found: dict[str, float] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def step_total(output: str) -> float:
    """Seconds of all training steps (start, compilation of the first step and evaluation left out)."""
    seconds = [float(found) / 1000 for found in STEP_MS.findall(output)]
    return sum(seconds) - seconds[0] + statistics.median(seconds)


def calibrate(args: argparse.Namespace, side: str, seed: int, tokens_per_step: int) -> float:
    """Tokens per second of a side right now."""
    log = args.runs / f"{side}-calibration.log"
    if side == "nanochat":
        command = nanochat_command(args, seed, CALIBRATION_STEPS, "calibration")
    else:
        command = gradus_command(args, seed, CALIBRATION_STEPS)
    output, _ = run(command, {"NANOCHAT_DTYPE": DTYPES[args.precision]}, log)
    seconds = [float(found) / 1000 for found in STEP_MS.findall(output)][CALIBRATION_WARM_UP:]
    return tokens_per_step / statistics.median(seconds)


def train_and_score(args: argparse.Namespace, side: str, seed: int, budget: int, rate: float) -> dict[str, Any]:
    """One complete run of one side."""
    batch = args.nanochat_batch if side == "nanochat" else args.gradus_rows * 512
    steps = steps_for(rate, budget, batch)
    tag = f"{side}-seed{seed}-budget{budget}"
    log = args.runs / f"{tag}.log"
    if side == "nanochat":
        output, seconds = run(nanochat_command(args, seed, steps, tag), {"NANOCHAT_DTYPE": DTYPES[args.precision]}, log)
        base = args.data / f"nanochat-seed{seed}"
        command = [
            args.nanochat_python, str(HERE / "nanochat_runner.py"), "evaluate",
            "--nanochat", str(args.nanochat), "--base", str(base), "--tag", tag,
            "--tokens", str(args.data / "tokens"),
        ]  # fmt: skip
        scored = result_line(run(command, {"NANOCHAT_DTYPE": "float32"}, args.runs / f"{tag}.score.log")[0])
    else:
        output, seconds = run(gradus_command(args, seed, steps), {}, log)
        scored = result_line(output)
    return {
        "side": side,
        "seed": seed,
        "budget_seconds": budget,
        "rate": rate,
        "steps": steps,
        "tokens": steps * batch,
        "batch_tokens": batch,
        "seconds_of_steps": step_total(output),
        "seconds_in_all": seconds,
        "bpb": min(scored["stream"], scored["start"]),
        "bpb_stream_rows": scored["stream"],
        "bpb_start_rows": scored["start"],
        "scored_bytes": scored["bytes"],
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", type=Path, required=True, help="checkout of nanochat")
    parser.add_argument("--nanochat-python", required=True, help="python of its environment")
    parser.add_argument("--data", type=Path, required=True, help="folder with tokens/ and nanochat-seedN/")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the logs")
    parser.add_argument("--rates", type=Path, help="result of nanochat_throughput.py")
    parser.add_argument("--wall-clock", action="store_true", help="calibrate before each run instead of --rates")
    parser.add_argument("--budgets", type=int, nargs="+", default=[300, 600, 1200], help="seconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sides", nargs="+", default=["nanochat", "gradus"])
    parser.add_argument("--nanochat-batch", type=int, default=4096, help="its --total-batch-size")
    parser.add_argument("--nanochat-rows", type=int, default=8, help="its --device-batch-size")
    parser.add_argument("--nanochat-extra", nargs="*", default=[], help="more base_train arguments")
    parser.add_argument("--precision", choices=DTYPES, default="bf16", help="nanochat's; ours is its own choice")
    parser.add_argument("--gradus-rows", type=int, default=8, help="rows of 512 tokens a step")
    parser.add_argument("--gradus-processes", type=int, default=1, help="data-parallel processes")
    parser.add_argument("--gradus-settings", help="JSON of optimizer and schedule settings; the defaults if absent")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "nanochat-bpb.json")
    args = parser.parse_args()
    if args.wall_clock == (args.rates is not None):
        parser.error("give either --rates FILE or --wall-clock")
    args.runs.mkdir(parents=True, exist_ok=True)
    rates = {}
    if args.rates:
        measured = json.loads(args.rates.read_text())["tokens_per_second"]
        rates = {"nanochat": measured[f"nanochat-{args.precision}"], "gradus": measured["gradus"]}
    mode = "wall clock" if args.wall_clock else "token budgets from measured rates"
    before: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {"mode": mode, "runs": []}
    if before["mode"] != mode:
        parser.error(f"{args.out} holds runs by {before['mode']}; name another file with --out")
    runs: list[dict[str, Any]] = before["runs"]
    finished = {(run["side"], run["seed"], run["budget_seconds"]) for run in runs}
    for budget, seed, side in product(args.budgets, args.seeds, args.sides):
        if (side, seed, budget) in finished:
            continue
        batch = args.nanochat_batch if side == "nanochat" else args.gradus_rows * 512
        rate = rates.get(side) or calibrate(args, side, seed, batch)
        # With its own versions and machine, and written at once: the next run may be another day's.
        facts = machine(args.nanochat, args.nanochat_python)
        runs.append(train_and_score(args, side, seed, budget, rate) | facts)
        print(json.dumps(runs[-1], indent=1), flush=True)
        result = {
            "claim": "held-out bits per byte against nanochat at equal training time",
            "mode": mode,
            "budgets": summarise(runs),
            "runs": runs,
            **facts,
        }
        write_result(args.out, result)
    print(json.dumps(summarise(runs), indent=1))


if __name__ == "__main__":
    main()
