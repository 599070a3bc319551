"""Runs nanochat's own code, in nanochat's own environment, for the comparison scripts (started by them).

Nothing of nanochat is copied here: `scripts.base_train` is run as a user would run it, and its
`evaluate_bpb` scores the checkpoint. One thing is changed: nanochat fixes its seed to 42, so `train` makes
`torch.manual_seed` use the seed asked for. Its tokenizer is trained first, by `python -m scripts.tok_train
--vocab-size 8192 --doc-cap 1000000000` in its checkout with NANOCHAT_BASE_DIR=BASE.

    RUN="PEER_PYTHON bench/nanochat_runner.py"
    $RUN tokens   --nanochat DIR --base BASE --data DATA --out DATA/tokens
    $RUN shards   --nanochat DIR --base BASE --data DATA --out DATA/nanochat-seed1 --seed 1
    $RUN train    --nanochat DIR --base BASE --seed 1 -- <base_train arguments>
    $RUN evaluate --nanochat DIR --base BASE --tag TAG --tokens DATA/tokens
"""

from __future__ import annotations

import argparse
import json
import os
import random
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nanochat_windows import Windows, bits_per_byte, scored_bytes, split_documents, windows

PIECE_TOKENS = 512
VALIDATION_SHARD = "shard_99999.parquet"


def read_texts(path: Path) -> list[str]:
    """The `text` of every line of a JSON-lines file."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in stream]


def write_tokens(args: argparse.Namespace) -> None:
    """Encode both splits with nanochat's tokenizer: `SPLIT.bin` (uint16, start tokens included),
    `SPLIT.starts.npy`, `token_bytes.npy` (0 for specials) and `meta.json`."""
    from nanochat.tokenizer import get_token_bytes, get_tokenizer

    tokenizer = get_tokenizer()
    bos = tokenizer.get_bos_token_id()
    args.out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, dict[str, int]] = {}
    for name in ("train", "validation"):
        texts = read_texts(args.data / f"{name}.jsonl")
        rows = tokenizer.encode(texts, prepend=bos, num_threads=2)
        lengths = np.array([len(row) for row in rows])
        np.concatenate([np.asarray(row, dtype=np.uint16) for row in rows]).tofile(args.out / f"{name}.bin")
        np.save(args.out / f"{name}.starts.npy", np.concatenate([[0], np.cumsum(lengths)[:-1]]))
        size = sum(len(text.encode()) for text in texts)
        counts[name] = {"documents": len(rows), "tokens": int(lengths.sum()), "bytes": size}
    token_bytes = get_token_bytes().numpy().astype(np.int64)
    np.save(args.out / "token_bytes.npy", token_bytes)
    meta = {"start": bos, "vocabulary": tokenizer.get_vocab_size(), "counts": counts}
    (args.out / "meta.json").write_text(json.dumps(meta, indent=1))
    print(json.dumps(meta))


def pieces_of(ids: list[int], decode: Callable[[list[int]], str]) -> list[str]:
    """Cut a document into texts of at most `PIECE_TOKENS` tokens, each cut before a word."""
    pieces = []
    low = 0
    while low < len(ids):
        high = min(low + PIECE_TOKENS, len(ids))
        if high < len(ids):
            for cut in range(high, max(low + PIECE_TOKENS // 2, low), -1):
                if decode([ids[cut]])[:1].isspace():
                    high = cut
                    break
        pieces.append(decode(ids[low:high]))
        low = high
    return pieces


def write_shards(args: argparse.Namespace) -> None:
    """Write train shards of pieces in a seeded order: so nanochat's loader meets all of each document.

    It drops what does not fit into its row; of whole chapters it would see the first 512 tokens only.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from nanochat.tokenizer import get_tokenizer

    tokenizer = get_tokenizer()
    pieces: list[str] = []
    for text in read_texts(args.data / "train.jsonl"):
        pieces.extend(pieces_of(tokenizer.encode(text), tokenizer.decode))
    random.Random(args.seed).shuffle(pieces)
    folder = args.out / "base_data_climbmix"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": pieces}), folder / "shard_00000.parquet", row_group_size=1024)
    held_back = pa.table({"text": read_texts(args.data / "validation.jsonl")})
    pq.write_table(held_back, folder / VALIDATION_SHARD, row_group_size=1024)
    link = args.out / "tokenizer"
    if not link.exists():
        link.symlink_to((args.base / "tokenizer").resolve())
    print(json.dumps({"pieces": len(pieces)}))


def train(args: argparse.Namespace) -> None:
    """Run `scripts.base_train` with the remaining arguments and the seed asked for."""
    import torch

    seed_everything = torch.manual_seed
    torch.manual_seed = lambda seed: seed_everything(args.seed)
    sys.argv = ["scripts.base_train", *[part for part in args.rest if part != "--"]]
    runpy.run_module("scripts.base_train", run_name="__main__")


def evaluate(args: argparse.Namespace) -> None:
    """Score the last checkpoint of a tag with nanochat's `evaluate_bpb` on the shared rows, both layouts."""
    import torch
    from nanochat.checkpoint_manager import build_model
    from nanochat.loss_eval import evaluate_bpb
    from nanochat.tokenizer import get_token_bytes

    folder = args.base / "base_checkpoints" / args.tag
    step = max(int(path.stem.split("_")[1]) for path in folder.glob("model_*.pt"))
    model, _, meta = build_model(str(folder), step, torch.device("cpu"), phase="eval")
    start = json.loads((args.tokens / "meta.json").read_text())["start"]
    token_bytes = np.load(args.tokens / "token_bytes.npy")
    stream = np.fromfile(args.tokens / "validation.bin", dtype=np.uint16)
    documents = split_documents(stream, np.load(args.tokens / "validation.starts.npy"))
    result: dict[str, object] = {"step": step, "bytes": 0, "tokens": meta["total_batch_size"] * step}
    for layout in ("stream", "start"):
        rows = windows(documents, start, args.context, layout)
        batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in row_batches(rows, args.rows)]
        result[layout] = evaluate_bpb(model, batches, len(batches), get_token_bytes())
        result["bytes"] = scored_bytes(rows.targets, token_bytes)
        if args.recount:
            result[f"{layout}_recounted"] = recount(model, batches, rows, token_bytes)
    print("RESULT " + json.dumps(result))


def row_batches(rows: Windows, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of at most `size` rows."""
    return [(rows.inputs[i : i + size], rows.targets[i : i + size]) for i in range(0, len(rows.inputs), size)]


def recount(model: Any, batches: Any, rows: Windows, token_bytes: np.ndarray) -> float:
    """The same figure by this project's definition in float64, to check that both count the same things."""
    import torch

    nats = 0.0
    with torch.no_grad():
        for inputs, targets in batches:
            nats += float(model(inputs, targets, loss_reduction="none").double().sum())
    return bits_per_byte(nats, rows.targets, token_bytes)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("tokens", "shards", "train", "evaluate"))
    parser.add_argument("--nanochat", type=Path, required=True, help="checkout of nanochat")
    parser.add_argument("--base", type=Path, required=True, help="its NANOCHAT_BASE_DIR")
    parser.add_argument("--data", type=Path, help="folder of train.jsonl and validation.jsonl")
    parser.add_argument("--tokens", type=Path, help="folder written by `tokens`")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tag", default="run")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--recount", action="store_true", help="evaluate: also count by this project's code")
    args, rest = parser.parse_known_args()
    args.rest = rest
    os.environ["NANOCHAT_BASE_DIR"] = str(args.base.resolve())
    sys.path.insert(0, str(args.nanochat.resolve()))
    {"tokens": write_tokens, "shards": write_shards, "train": train, "evaluate": evaluate}[args.action](args)


if __name__ == "__main__":
    main()
