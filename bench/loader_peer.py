"""Runs nanochat's own loader in nanochat's own environment, for loader.py, which starts it.

Nothing of nanochat is copied here. Each line of standard input is `{"batches": how many to load}`; the
answer is a line of JSON with seconds and tokens. Its tokenizer and shards are found through NANOCHAT_BASE_DIR.

    PEER_PYTHON bench/loader_peer.py --nanochat DIR --rows 32 --context 2048
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any


class Counting:
    """The tokenizer, counting what it encodes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.tokens = tokenizer, 0

    def encode(self, *args: Any, **kwargs: Any) -> list[list[int]]:
        rows: list[list[int]] = self._tokenizer.encode(*args, **kwargs)
        self.tokens += sum(map(len, rows))
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", type=Path, required=True, help="checkout of nanochat")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=4, help="of its tokenizer, 4 by default there")
    args = parser.parse_args()
    sys.path.insert(0, str(args.nanochat.resolve()))
    from nanochat.dataloader import tokenizing_distributed_data_loader_with_state_bos_bestfit as loader
    from nanochat.tokenizer import get_tokenizer

    tokenizer = Counting(get_tokenizer())
    batches = loader(tokenizer, args.rows, args.context, "train", tokenizer_threads=args.threads, device="cpu")
    next(batches)  # fills its buffer of 1,000 documents
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        number, encoded = json.loads(line)["batches"], tokenizer.tokens
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = sum(next(batches)[0].numel() for _ in range(number))
        seconds, processor = time.perf_counter() - wall, time.process_time() - cpu
        answer = {"tokens": tokens, "seconds": seconds, "processor_seconds": processor}
        print(json.dumps(answer | {"encoded": tokenizer.tokens - encoded}), flush=True)


if __name__ == "__main__":
    main()
