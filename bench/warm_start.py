"""Fine-tuning with the optimizer state of the base against fresh moments: loss on held-back answers.

    python bench/warm_start.py --data ../shared/data

Both sides begin with the same weights and train on the same rows in the same order with the same rates; only the state
that the optimizer begins with differs. Two seeds, each with a base of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench_record import machine, write_result

from gradus.roadmap.progress import PlainProgress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

HERE = Path(__file__).resolve().parent
SEEDS = (1, 2)
DATA = """\
name = "warm-start"

[machine]
threads = 1

[[stage]]
name = "prose"
kind = "corpus"
sources = [{{ kind = "files", path = "{data}/prose/textbooks.jsonl.gz", name = "textbooks", limit = "8 MB" }}]

[[stage]]
name = "talk"
kind = "pool"
sources = [
  {{ path = "{data}/instruct_small/rasbt_instruction-data.json" }},
  {{ path = "{data}/instruct_small/dolly_151.jsonl" }},
  {{ path = "{data}/instruct_small/self_instruct_user_oriented.jsonl" }},
]
validation_fraction = 0.1

[[stage]]
name = "bpe"
kind = "tokenizer"
corpus = "prose"
pools = ["talk"]
vocab_size = 2048

[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "prose"
tokenizer = "bpe"
"""
BASE = """
[[stage]]
name = "base{seed}"
kind = "pretrain"
seed = {seed}
tokens = "tokens"
model = {{ depth = 4, width = 128, head_dim = 32 }}
context = 256
horizon = "{steps} steps"
batch_tokens = 4096
evaluate_tokens = 50_000
samples = []
"""
CHAT = """
[[stage]]
name = "{state}{seed}"
kind = "sft"
seed = {seed}
from = "base{seed}"
mixture = [{{ source = "talk" }}]
epochs = 2
batch_tokens = 4096
evaluate_every = 20
log_every = 5
optimizer = {{ state = "{state}", matrix_lr = 0.01, embed_lr = 0.01, head_lr = 0.002, vector_lr = 0.0025 }}
"""


def curve(folder: Path) -> dict[str, list[Any]]:
    """Losses of a stage by step: on the training rows since the last line, and on the held-back answers."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "training": [[line["step"], round(line["loss"], 4)] for line in lines if line["event"] == "train"],
        "held_back": [
            [line["step"], round(line["validation_loss"], 4)] for line in lines if line["event"] == "evaluate"
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400, help="of each base")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "warm-start.json")
    arguments = parser.parse_args()
    text = DATA.format(data=arguments.data.resolve())
    for seed in SEEDS:
        text += BASE.format(seed=seed, steps=arguments.steps)
        text += "".join(CHAT.format(seed=seed, state=state) for state in ("fresh", "warm"))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "warm-start.toml"
        file.write_text(text)
        made = walk(load_roadmap(file), Path(scratch), PlainProgress()).artifacts
        found: dict[str, Any] = {}
        for seed in SEEDS:
            for state in ("fresh", "warm"):
                stage = made[f"{state}{seed}"]
                found[f"{state}, seed {seed}"] = {"steps": stage.results["steps"], **curve(stage.path)}
        bases = {f"seed {seed}": made[f"base{seed}"].results["bpb"] for seed in SEEDS}
    for name, curves in found.items():
        print(f"{name}: {curves['held_back'][-1][1]} nats a token of the held-back answers at the end")
    write_result(arguments.out, {**machine(), "bases_bpb": bases, "fine_tuning": found})


if __name__ == "__main__":
    main()
