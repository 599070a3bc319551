"""Fragments against crops: held-out bits per byte after one pass over the same source tokens.

    python bench/packing.py --texts ../shared/data/prose

Both sides read the same documents once. Fragments train on every token, long documents in several pieces; crops keep
one row's length of what does not fit and drop the rest, so they train for fewer steps. Three seeds each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench_record import machine, write_result

from gradus.data.plans import Packing, ShardPlans
from gradus.data.shards import TokenStore
from gradus.roadmap.progress import PlainProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

HERE = Path(__file__).resolve().parent
DATA = """\
name = "packing"

[machine]
processes = 2

[[stage]]
name = "prose"
kind = "corpus"
sources = [{{ kind = "files", path = {paths}, name = "prose", limit = "{limit}" }}]
validation_fraction = 0.03

[[stage]]
name = "bpe"
kind = "tokenizer"
corpus = "prose"
vocab_size = 2048

[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "prose"
tokenizer = "bpe"
"""
STAGE = """
[[stage]]
name = "{mode}{seed}"
kind = "pretrain"
tokens = "tokens"
model = {{ depth = 4, width = 128, head_dim = 32 }}
context = {context}
packing = "{mode}"
horizon = "{steps} steps"
batch_tokens = 4096
evaluate_every = 100000
evaluate_tokens = 400_000
samples = []
seed = {seed}
optimizer = {{ matrix_lr = 0.03, embed_lr = 0.08, head_lr = 0.008 }}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--limit", default="9 MB")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    result: dict[str, Any] = machine() | {"note": args.note, "limit": args.limit, "context": args.context}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        paths = json.dumps([str(args.texts.resolve() / name) for name in ("books.jsonl.gz", "textbooks.jsonl.gz")])
        text = DATA.format(paths=paths, limit=args.limit)
        (home / "data.toml").write_text(text)
        store = TokenStore(
            walk(load_roadmap(home / "data.toml"), home, PlainProgress()).artifacts["tokens"].path, "train"
        )
        for mode in ("fragments", "crop"):
            plans = ShardPlans(store, Packing(args.context, mode))
            steps = max(1, plans.num_rows * args.context // 4096)
            result[mode] = {"plan": plans.statistics(), "steps": steps, "bits_per_byte": []}
            for seed in args.seeds:
                text += STAGE.format(mode=mode, seed=seed, steps=steps, context=args.context)
        (home / "data.toml").write_text(text)
        artifacts = walk(load_roadmap(home / "data.toml"), home, PlainProgress()).artifacts
        for mode in ("fragments", "crop"):
            result[mode]["bits_per_byte"] = [artifacts[f"{mode}{seed}"].results["bpb"] for seed in args.seeds]
            print(mode, result[mode]["bits_per_byte"], statistics.mean(result[mode]["bits_per_byte"]))
    write_result(HERE / "results" / "packing.json", result)


if __name__ == "__main__":
    main()
