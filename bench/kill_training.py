"""Claim: training killed by `kill -9` while it saves or trains, alone or on two ranks, loses no checkpoint and no bit.

    python bench/kill_training.py --kills 50

For each way to train (alone, saving in the background, two ranks replicated, two ranks sharded): once unbroken, then
with kills at random moments, ten to a round, each round with a seed of its own; but for the first of a round they
fall while it trains and saves. After a round the last checkpoint's tensors and state must equal the unbroken run's.
Uses the tiny runs of tests/train/processes.py; writes bench/results/kill_training.json after every round, and goes on
after the rounds that stand there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_record import machine, write_result

from gradus.core.fingerprint import file_digest
from gradus.train.checkpoint import Checkpoints

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "kill_training.json"
KINDS = ("alone", "background", "replicate", "shard")
KILLS_IN_A_ROUND = 10


def one_round(kind: str, seed: int) -> dict[str, object]:
    """Ten kills of one kind: where each start resumed, and whether the last checkpoint's files are equal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = HERE.parent / "tests" / "train" / "processes.py"
        command = [sys.executable, str(processes), "kill", str(folder), str(KILLS_IN_A_ROUND), str(seed), kind]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        digests = []
        for run in ("whole", "broken"):
            last = Checkpoints(folder / run).latest()
            assert last is not None, f"no checkpoint in {run}"
            del last.state["report"]["tokens_per_second"]
            files = {path.name: file_digest(path) for path in sorted(last.path.glob("*.safetensors"))}
            digests.append(files | {"state": last.state})
        return {"kind": kind, "seed": seed, **told, "equal": len(digests[0]) > 1 and digests[0] == digests[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each kind, a multiple of ten")
    arguments = parser.parse_args()
    rounds = json.loads(RESULTS.read_text())["rounds"] if RESULTS.exists() else []
    done = {(entry["kind"], entry["seed"]) for entry in rounds}
    for seed in range(1, arguments.kills // KILLS_IN_A_ROUND + 1):
        for kind in KINDS:
            if (kind, seed) in done:
                continue
            rounds.append(one_round(kind, seed))
            entry = rounds[-1]
            print(
                f"{kind} seed {seed}: {entry['kills']} kills, {'equal' if entry['equal'] else 'DIFFERENT'}", flush=True
            )
            summary = {
                kind: {
                    "kills": sum(entry["kills"] for entry in rounds if entry["kind"] == kind),
                    "resumed": sum(len(entry["resumed_from"]) for entry in rounds if entry["kind"] == kind),
                    "rounds_equal": sum(entry["equal"] for entry in rounds if entry["kind"] == kind),
                    "rounds": sum(entry["kind"] == kind for entry in rounds),
                }
                for kind in KINDS
            }
            write_result(RESULTS, {"summary": summary, "rounds": rounds, **machine()})


if __name__ == "__main__":
    main()
