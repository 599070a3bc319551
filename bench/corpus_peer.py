"""The peer's side of bench/corpus.py: datatrove from JSON lines to token files, in its own interpreter.

Language (pycld2, as on the other side: its own models would have to be downloaded), Gopher repetition and quality,
MinHash in four steps, tokens. Words are split at white space, or by its own English tokenizer (spaCy) with `--words
spacy`. Prints JSON: seconds of each step, documents kept, tokens.

    PEER_PYTHON bench/corpus_peer.py --shards DIR --work DIR --tokenizer tokenizer.json --processes 2
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import datatrove.pipeline.dedup.minhash as minhash
import datatrove.pipeline.filters.gopher_quality_filter as quality
import datatrove.pipeline.filters.gopher_repetition_filter as repetition
import pycld2
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger
from whitespace_words import WhitespaceWords


class English(BaseFilter):  # type: ignore[misc]
    """Keeps what pycld2 takes for English, by the rule of the other side."""

    name = "english"

    def filter(self, document: Document) -> bool:
        try:
            reliable, _, details = pycld2.detect(looked_at(document.text), isPlainText=True)
        except pycld2.error:
            return False
        return reliable and any(code == "en" and percent >= 65 for _, code, percent, _ in details)


def looked_at(text: str) -> str:
    """The same part of a long text as on the other side."""
    if len(text) <= 8192:
        return text
    size = 8192 // 3
    middle = (len(text) - size) // 2
    return "\n".join(text[start : start + size] for start in (0, middle, len(text) - size))


if "spacy" not in sys.argv:
    # Also in worker processes, which import this file.
    minhash.load_word_tokenizer = lambda language: WhitespaceWords()
    quality.split_into_words = repetition.split_into_words = lambda text, language=None: text.split()
logger.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--words", choices=("whitespace", "spacy"), default="whitespace")
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    work = str(args.work)
    shards = len(list(args.shards.glob("*.jsonl")))
    config = minhash.MinhashConfig()
    kept = JsonlReader(f"{work}/filtered")
    steps = [
        (
            shards,
            [
                JsonlReader(str(args.shards)),
                English(),
                quality.GopherQualityFilter(),
                repetition.GopherRepetitionFilter(),
                JsonlWriter(f"{work}/filtered"),
            ],
        ),
        (shards, [kept, minhash.MinhashDedupSignature(f"{work}/signatures", config=config)]),
        (14, [minhash.MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)]),
        (1, [minhash.MinhashDedupCluster(f"{work}/buckets", f"{work}/removed", config=config)]),
        (
            shards,
            [
                kept,
                minhash.MinhashDedupFilter(f"{work}/removed"),
                DocumentTokenizer(
                    f"{work}/tokens", tokenizer_name_or_path=str(args.tokenizer), eos_token="<|endoftext|>",
                    shuffle_documents=False,
                ),
            ],
        ),
    ]  # fmt: skip
    seconds = []
    for number, (tasks, pipeline) in enumerate(steps):
        began = time.perf_counter()
        workers = min(args.processes, tasks)
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=f"{work}/logs{number}").run()
        seconds.append(time.perf_counter() - began)
    tokens = sum(path.stat().st_size for path in Path(work, "tokens").glob("*.ds")) // 2
    documents = sum(path.stat().st_size for path in Path(work, "tokens").glob("*.ds.index")) // 8
    json.dump({"seconds": seconds, "documents": documents, "tokens": tokens}, sys.stdout)


if __name__ == "__main__":
    main()
