"""The peer's side of bench/decontaminate.py: datatrove's n-gram decontamination filter, in its own interpreter.

The index is made by its indexer's `compute_hashes` from the same texts (the indexer itself only runs with lighteval
installed). Its n is 12 by default and one n-gram removes a document. Words are split at white space: its English
tokenizer is spaCy's, several times slower. Writes JSON: seconds, and for each document whether it stays.

    python bench/datatrove_decontaminate.py --items items.jsonl --shards DIR --work DIR --processes 1
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import datatrove.pipeline.decont.n_grams as n_grams
import numpy as np
from datatrove.data import Document
from loguru import logger
from timed_steps import read_shard, time_steps


class WhitespaceWords:
    """The part of a word tokenizer that is asked for."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


n_grams.load_word_tokenizer = lambda language: WhitespaceWords()
logger.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    (args.work / "index").mkdir(parents=True)
    paths = sorted(args.shards.glob("*.jsonl"))
    config = n_grams.NGramsDecontConfig()
    hash_func = n_grams.create_hash_func(config.hash_config)
    indexer = SimpleNamespace(config=config, tokenizer=WhitespaceWords(), hash_func=hash_func)
    hashes: dict[str, set[int]] = {}
    for row in read_shard(args.items):
        hashes.setdefault(row["set"], set()).update(n_grams.NGramsDecontIndexer.compute_hashes(indexer, row["text"]))
    for name, found in hashes.items():
        np.array(sorted(found), dtype=np.uint64).tofile(args.work / "index" / f"{name}.index.hashes")

    kept: dict[int, list[bool]] = {}
    step = n_grams.NGramsDecontFilter(str(args.work / "index"))
    step.load_index_hashes()

    def load(rank: int) -> dict[int, list[Document]]:
        mine = range(rank, len(paths), args.processes)
        return {n: [Document(text=r["text"], id=r["id"]) for r in read_shard(paths[n])] for n in mine}

    def check(shards: dict[int, list[Document]], rank: int, processes: int) -> None:
        for number, documents in shards.items():
            kept[number] = [step.filter(document) is True for document in documents]

    def report(_: object, rank: int, processes: int) -> None:
        for number, stays in kept.items():
            (args.work / f"kept{number}.json").write_text(json.dumps(stays))

    seconds = {kind: took[:1] for kind, took in time_steps(load, [check, report], args.processes).items()}
    stays = [one for number in range(len(paths)) for one in json.loads((args.work / f"kept{number}.json").read_text())]
    (args.work / "result.json").write_text(json.dumps({"seconds": seconds, "stays": stays}))


if __name__ == "__main__":
    main()
