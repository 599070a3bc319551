"""This project's side of bench/decontaminate.py, in a process of its own as the peer is.

python bench/gradus_decontaminate.py --data DIR --sets gsm8k mmlu --shards DIR --work DIR --processes 1
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from timed_steps import read_shard, time_steps

from gradus.data.decontaminate import Decontaminator, benchmark_sets

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    args.work.mkdir(exist_ok=True)
    paths = sorted(args.shards.glob("*.jsonl"))
    checker = Decontaminator(benchmark_sets(args.sets, args.data))
    found: dict[int, list[list[object] | None]] = {}

    def load(rank: int) -> dict[int, list[str]]:
        mine = range(rank, len(paths), args.processes)
        return {number: [row["text"] for row in read_shard(paths[number])] for number in mine}

    def check(shards: dict[int, list[str]], rank: int, processes: int) -> None:
        for number, texts in shards.items():
            results = [r for start in range(0, len(texts), BATCH) for r in checker.check(texts[start : start + BATCH])]
            found[number] = [r and [r.set, r.item, r.coverage] for r in results]

    def report(_: object, rank: int, processes: int) -> None:
        for number, results in found.items():
            (args.work / f"found{number}.json").write_text(json.dumps(results))

    seconds = {kind: took[:1] for kind, took in time_steps(load, [check, report], args.processes).items()}
    results = [r for number in range(len(paths)) for r in json.loads((args.work / f"found{number}.json").read_text())]
    (args.work / "result.json").write_text(json.dumps({"seconds": seconds, "found": results}))


if __name__ == "__main__":
    main()
