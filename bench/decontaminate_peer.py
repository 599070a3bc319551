"""The datatrove side of bench/decontaminate.py: run by the peer's own Python, it judges texts as it is told.

    PEER_PYTHON bench/decontaminate_peer.py TEXTS.jsonl ITEMS.jsonl NGRAM

ITEMS holds {"set", "text"} a line. Reads one request a line, `{"start": 0, "stop": 500}`, and answers with one line,
`{"seconds", "cpu_seconds", "removed"}`. Words are split at white space after its own normalisation: its English
tokenizer is replaced. The hashes of its indexer are written as its `run` does, which would need lighteval.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import datatrove.pipeline.decont.n_grams as n_grams
import numpy as np
from datatrove.data import Document
from loguru import logger


class WhitespaceWords:
    """The part of a word tokenizer that is asked for."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


def main() -> None:
    """Build the index, then answer requests until the input ends."""
    logger.remove()
    n_grams.load_word_tokenizer = lambda language: WhitespaceWords()
    with open(sys.argv[1], encoding="utf-8") as stream:
        documents = [Document(text=json.loads(line), id=str(number)) for number, line in enumerate(stream)]
    n_grams.NGramsDecontIndexer._requires_dependencies = []
    config = n_grams.NGramsDecontConfig(n_grams=int(sys.argv[3]))
    with tempfile.TemporaryDirectory() as folder:
        indexer = n_grams.NGramsDecontIndexer(folder, config=config)
        hashes: dict[str, set[int]] = defaultdict(set)
        with open(sys.argv[2], encoding="utf-8") as stream:
            for item in map(json.loads, stream):
                hashes[item["set"]].update(indexer.compute_hashes(item["text"]))
        for name, found in hashes.items():
            np.array(list(found), dtype=config.hash_config.np_descr).tofile(Path(folder, f"{name}.index.hashes"))
        judge = n_grams.NGramsDecontFilter(folder, config=config)
        judge.load_index_hashes()
    print(json.dumps({"version": importlib.metadata.version("datatrove")}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        batch = documents[request["start"] : request["stop"]]
        began, cpu_began = time.perf_counter(), time.process_time()
        removed = [judge.filter(document) is not True for document in batch]
        cpu, wall = time.process_time() - cpu_began, time.perf_counter() - began
        print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "removed": removed}), flush=True)


if __name__ == "__main__":
    main()
