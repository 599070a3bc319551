"""This project's side of bench/minhash.py, in a process of its own as the peer is.

python bench/gradus_minhash.py --shards DIR --work DIR --processes 1
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow.parquet as pq
from timed_steps import read_shard, time_steps

from gradus.data.minhash import MinHashSettings
from gradus.data.near_duplicates import find_near_duplicates, read_index
from gradus.data.sketches import SketchWriter

BATCH = 1024
Shards = dict[int, tuple[list[str], list[str]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    settings = MinHashSettings()
    paths = sorted(args.shards.glob("*.jsonl"))
    folders = [args.work / path.stem for path in paths]

    def load(rank: int) -> Shards:
        rows = {number: read_shard(paths[number]) for number in range(rank, len(paths), args.processes)}
        return {n: ([row["text"] for row in rs], [f"{int(row['id']):032x}" for row in rs]) for n, rs in rows.items()}

    def sketches(loaded: Shards, rank: int, processes: int) -> None:
        for number, (texts, ids) in loaded.items():
            writer = SketchWriter(folders[number], settings)
            for start in range(0, len(texts), BATCH):
                batch = texts[start : start + BATCH]
                writer.add(batch, ids[start : start + BATCH], [len(text) for text in batch])
            writer.close()

    def search(_: object, rank: int, processes: int) -> None:
        if rank == 0:
            find_near_duplicates(folders, args.work / "index", settings)

    def keep(loaded: Shards, rank: int, processes: int) -> None:
        index = read_index(args.work / "index", settings)
        for number, (texts, _) in loaded.items():
            _kept = [text for text, out in zip(texts, index.removed(number).tolist(), strict=True) if not out]

    seconds = time_steps(load, [sketches, search, keep], args.processes)
    pairs = pq.read_table(args.work / "index" / "pairs.parquet").to_pylist()
    mates = {int(pair["removed"], 16): int(pair["kept"], 16) for pair in pairs}
    (args.work / "result.json").write_text(json.dumps({"seconds": seconds, "mates": mates}))


if __name__ == "__main__":
    main()
