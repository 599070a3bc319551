"""The datatrove side of bench/filters.py: run by the peer's own Python, it judges texts as it is told.

    PEER_PYTHON bench/filters_peer.py TEXTS.jsonl

Reads one request a line, `{"filters": ["quality", "repetition"], "start": 0, "stop": 500}`, and answers with one line,
`{"seconds", "cpu_seconds", "reasons"}`. A filter sees what those before it kept. Words are split at white space, which
datatrove does not offer: its splitter is replaced, with the same cache.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from functools import lru_cache
from typing import Any

import datatrove.pipeline.filters.fineweb_quality_filter as fineweb
import datatrove.pipeline.filters.gopher_quality_filter as quality
import datatrove.pipeline.filters.gopher_repetition_filter as repetition
from datatrove.data import Document


@lru_cache(5)
def split_at_white_space(text: str, language: str | None = None) -> list[str]:
    """What both sides take for words."""
    return text.split()


def main() -> None:
    """Answer requests until the input ends."""
    for module in (quality, repetition, fineweb):
        module.split_into_words = split_at_white_space
    filters = {
        "quality": quality.GopherQualityFilter(),
        "repetition": repetition.GopherRepetitionFilter(),
        # The paper's threshold for duplicate characters; the code's default is .01.
        "fineweb": fineweb.FineWebQualityFilter(char_duplicates_ratio=0.1),
    }
    with open(sys.argv[1], encoding="utf-8") as stream:
        documents = [Document(text=json.loads(line), id=str(number)) for number, line in enumerate(stream)]
    print(json.dumps({"version": importlib.metadata.version("datatrove")}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        chosen = [filters[name] for name in request["filters"]]
        batch = documents[request["start"] : request["stop"]]
        began, cpu_began = time.perf_counter(), time.process_time()
        reasons = [first_reason(chosen, document) for document in batch]
        cpu, wall = time.process_time() - cpu_began, time.perf_counter() - began
        print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "reasons": reasons}), flush=True)


def first_reason(filters: list[Any], document: Document) -> str | None:
    """Why the first filter that drops the document does so."""
    for judge in filters:
        kept = judge.filter(document)
        if kept is not True:
            return kept[1] if isinstance(kept, tuple) else "dropped"
    return None


if __name__ == "__main__":
    main()
