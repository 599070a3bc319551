"""The peer's side of bench/minhash.py: datatrove's four MinHash steps, in its own interpreter.

Defaults throughout (5-grams, 14 x 8, 64-bit xxhash) but for words, which are split at white space: its English
tokenizer is spaCy's, several times slower. Writes JSON: seconds, the ids kept and clusters as (file, row, cluster).

    python bench/datatrove_minhash.py --shards DIR --work DIR --processes 1
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from pathlib import Path

import datatrove.pipeline.dedup.minhash as minhash
from datatrove.data import Document
from loguru import logger
from timed_steps import read_shard, time_steps
from whitespace_words import WhitespaceWords

BUCKETS = 14


minhash.load_word_tokenizer = lambda language: WhitespaceWords()
minhash.tqdm = lambda files, **_: files
logger.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    work = str(args.work)
    paths = sorted(args.shards.glob("*.jsonl"))
    config = minhash.MinhashConfig()

    def load(rank: int) -> dict[int, list[Document]]:
        mine = range(rank, len(paths), args.processes)
        return {n: [Document(text=r["text"], id=r["id"]) for r in read_shard(paths[n])] for n in mine}

    def signatures(shards: dict[int, list[Document]], rank: int, processes: int) -> None:
        for number, documents in shards.items():
            step = minhash.MinhashDedupSignature(f"{work}/signatures", config=config)
            step.run(iter(documents), number, len(paths))

    def buckets(_: object, rank: int, processes: int) -> None:
        for number in range(rank, BUCKETS, processes):
            minhash.MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config).run(
                None, number, BUCKETS
            )

    def cluster(_: object, rank: int, processes: int) -> None:
        if rank == 0:
            step = minhash.MinhashDedupCluster(
                f"{work}/buckets", f"{work}/removed", config=config, save_cluster_id=True
            )
            step.run(None, 0, 1)

    kept: dict[int, list[str]] = {}

    def keep(shards: dict[int, list[Document]], rank: int, processes: int) -> None:
        for number, documents in shards.items():
            stays = minhash.MinhashDedupFilter(f"{work}/removed").run(iter(documents), number, len(paths))
            kept[number] = [document.id for document in stays]

    def report(_: object, rank: int, processes: int) -> None:
        for number, ids in kept.items():
            Path(work, f"kept{number}.json").write_text(json.dumps(ids))

    steps = [signatures, buckets, cluster, keep, report]
    seconds = {kind: took[:-1] for kind, took in time_steps(load, steps, args.processes).items()}
    clusters = []
    for path in sorted(Path(f"{work}/removed").glob("*.clusters")):
        clusters += [[int(path.stem), *pair] for pair in struct.iter_unpack("<II", path.read_bytes())]
    ids = [
        identity
        for number in range(len(paths))
        for identity in json.loads(Path(work, f"kept{number}.json").read_text())
    ]
    Path(work, "result.json").write_text(json.dumps({"seconds": seconds, "kept": ids, "clusters": clusters}))


if __name__ == "__main__":
    main()
