"""Make the prose split that both sides of the nanochat comparison train on and are scored on.

Reads every `*.jsonl.gz` (key `text`) and `*.txt.gz` of a folder. A document is held back when the first eight
hex digits of the SHA-256 of its text, modulo 100, are 0 (about one in a hundred), up to a cap of text. Writes
`train.jsonl` and `validation.jsonl`, and with `--shards` the parquet shards that nanochat reads
(`base_data_climbmix/shard_*.parquet`, column `text`, the last shard is its validation shard).

    python bench/nanochat_split.py --prose ../shared/data/prose --out ../bench-data --shards
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

ROW_GROUP = 1024


def documents(folder: Path) -> Iterator[str]:
    """Texts in file order: one per JSON line, one per text file (or per line where lines are articles)."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)["text"]
    for path in sorted(folder.glob("*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            text = stream.read()
        lines = [line for line in text.splitlines() if line.strip()]
        # A file of few, long lines holds one article per line; a file of short lines is one document.
        if lines and len(text) / len(lines) > 2000:
            yield from lines
        else:
            yield text


def is_held_back(text: str) -> bool:
    """Whether a document belongs to the validation split."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 100 == 0


def split(texts: Iterable[str], cap_bytes: int) -> tuple[list[str], list[str], int]:
    """Train texts, validation texts and the number of held-back documents dropped over the cap.

    Exact duplicates are dropped first, so that no validation text is also trained on.
    """
    seen: set[str] = set()
    train: list[str] = []
    validation: list[str] = []
    size = dropped = 0
    for text in texts:
        if not text.strip() or text in seen:
            continue
        seen.add(text)
        if not is_held_back(text):
            train.append(text)
        elif size + len(text.encode()) <= cap_bytes:
            validation.append(text)
            size += len(text.encode())
        else:
            dropped += 1
    return train, validation, dropped


def write_jsonl(path: Path, texts: list[str]) -> None:
    """Write one `{"text": ...}` object a line."""
    with path.open("w", encoding="utf-8") as stream:
        for text in texts:
            stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def write_shards(folder: Path, train: list[str], validation: list[str]) -> None:
    """Write nanochat's parquet shards: one of train texts, then one of validation texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("shard_00000.parquet", train), ("shard_00001.parquet", validation)):
        pq.write_table(pa.table({"text": texts}), folder / name, row_group_size=ROW_GROUP)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prose", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cap-bytes", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="order of the train documents")
    parser.add_argument("--shards", action="store_true", help="also write OUT/nanochat/base_data_climbmix")
    args = parser.parse_args()
    train, validation, dropped = split(documents(args.prose), args.cap_bytes)
    random.Random(args.seed).shuffle(train)
    args.out.mkdir(parents=True, exist_ok=True)
    write_jsonl(args.out / "train.jsonl", train)
    write_jsonl(args.out / "validation.jsonl", validation)
    if args.shards:
        write_shards(args.out / "nanochat" / "base_data_climbmix", train, validation)
    sizes = {
        name: sum(len(t.encode()) for t in texts) for name, texts in (("train", train), ("validation", validation))
    }
    print(
        json.dumps(
            {
                "documents": {"train": len(train), "validation": len(validation), "over_cap": dropped},
                "bytes": sizes,
            }
        )
    )


if __name__ == "__main__":
    main()
