"""Claim: preference optimisation takes artifacts out of a model that learned them, and costs it no probes.

    python bench/dpo_artifacts.py --chat MODEL_FOLDER --pool POOL_FOLDER --home FOLDER

The chat model and the pool are those of a walked quickstart. The model is fine-tuned on rows of the pool half of whose
answers are polluted (tags, stock labels, hedges), asked again, its clean and its polluted answers are paired, and DPO
trains on the pairs. Audit and probes before and after are compared on the same questions (exact McNemar). Writes
bench/results/dpo_artifacts.json.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench_record import machine, write_result

from gradus.core.statistics import mcnemar_exact
from gradus.roadmap.progress import live_progress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

RESULTS = Path(__file__).parent / "results" / "dpo_artifacts.json"
PROBES = Path(__file__).parent.parent / "roadmaps" / "probes" / "fresh.jsonl"
POLLUTIONS = (
    "Answer: {}",
    "<b>{}</b>",
    "{}<br>",
    "As an AI language model, I think: {}",
    "It is important to note that {}",
    "**Final Answer:** {}",
)
ROADMAP = """\
name = "artifacts"
seed = {seed}

[[stage]]
name = "parent"
kind = "import"
take = "folder:{chat}"
trained = "chat"

[[stage]]
name = "dirty"
kind = "pool"
sources = [{{ path = "polluted.jsonl" }}]
validation_fraction = 0.05

[[stage]]
name = "clean"
kind = "pool"
sources = [{{ path = "clean.jsonl" }}]
validation_fraction = 0.2

[[stage]]
name = "polluted"
kind = "sft"
from = "parent"
mixture = [{{ source = "dirty" }}]
batch_tokens = 4096
optimizer = {{ matrix_lr = 0.005, embed_lr = 0.005, head_lr = 0.001, vector_lr = 0.001 }}

[[stage]]
name = "before"
kind = "eval"
from = "polluted"
prompts = "clean"
audit_samples = {samples}
suites = {{ fresh = "{probes}" }}

[[stage]]
name = "pairs"
kind = "pairs"
from = "polluted"
prompts = "clean"
num_prompts = {prompts}
samples = 4
temperature = 0.7
reject_artifacts = true

[[stage]]
name = "cleaned"
kind = "dpo"
from = "polluted"
pairs = "pairs"
epochs = {epochs}
pairs_per_step = 16
micro_pairs = 16

[[stage]]
name = "after"
kind = "eval"
from = "cleaned"
prompts = "clean"
audit_samples = {samples}
suites = {{ fresh = "{probes}" }}
"""


def write_pools(pool: Path, folder: Path, rows: int, seed: int) -> None:
    """Rows to be polluted, and other rows as they are, whose questions are asked."""
    lines = (pool / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rng = random.Random(seed)
    rng.shuffle(lines)
    (folder / "clean.jsonl").write_text("\n".join(lines[rows : 2 * rows]) + "\n", encoding="utf-8")
    polluted = []
    for line in lines[:rows]:
        row = json.loads(line)
        for message in row["messages"]:
            if message["role"] == "assistant" and message["content"] and rng.random() < 0.5:
                message["content"] = rng.choice(POLLUTIONS).format(message["content"])
        polluted.append(json.dumps(row, ensure_ascii=False))
    (folder / "polluted.jsonl").write_text("\n".join(polluted) + "\n", encoding="utf-8")


def paired(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Two measures with items, on the items that both have."""
    shared = set(before["items"]) & set(after["items"])
    won = sum(1 for key in shared if after["items"][key] and not before["items"][key])
    lost = sum(1 for key in shared if before["items"][key] and not after["items"][key])
    values = {"before": before["value"], "after": after["value"], "shared": len(shared)}
    return values | {"won": won, "lost": lost, "p": mcnemar_exact(won, lost)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chat", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=4000, help="polluted conversations")
    parser.add_argument("--prompts", type=int, default=1000, help="asked for pairs")
    parser.add_argument("--samples", type=int, default=400, help="of each audit")
    parser.add_argument("--epochs", type=float, default=2.0, help="of DPO")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    home = arguments.home
    home.mkdir(parents=True, exist_ok=True)
    write_pools(arguments.pool, home, arguments.rows, arguments.seed)
    named = {"chat": arguments.chat.resolve(), "probes": PROBES, "samples": arguments.samples, "seed": arguments.seed}
    text = ROADMAP.format(**named, prompts=arguments.prompts, epochs=arguments.epochs)
    (home / "artifacts.toml").write_text(text, encoding="utf-8")
    made = walk(load_roadmap(home / "artifacts.toml"), home, live_progress()).artifacts
    before, after = made["before"].results, made["after"].results
    rates = {
        name: {side: results["audit"][name]["value"] for side, results in (("before", before), ("after", after))}
        for name in before["audit"]
        if name != "clean" and (before["audit"][name]["successes"] or after["audit"][name]["successes"])
    }
    watched = ("steps", "margin", "accuracy", "chosen_change", "both_fall", "kl_estimate")
    result = machine() | {
        "audit_clean": paired(before["audit"]["clean"], after["audit"]["clean"]),
        "artifact_rates": rates,
        "probes_fresh": paired(before["probes"]["fresh"]["total"], after["probes"]["fresh"]["total"]),
        "pairs": made["pairs"].results["counts"],
        "dpo": {name: made["cleaned"].results[name] for name in watched},
    }
    write_result(RESULTS, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
