"""Claim: fine-tuning on turns that think and call tools raises held-back probes over the model it starts from.

    python bench/joint_sft.py --base MODEL_FOLDER --pool POOL_FOLDER --home FOLDER

The base model and the pool are those of a walked quickstart. The parent is fine-tuned on rows of the pool without their
thinking and calls; from it one model goes on with other rows as they are (think, call, answer in one turn) and one, the
control, with the same rows without thinking and calls. All are asked the probes in wordings that no row has, checked by
their answers. Writes bench/results/joint_sft.json.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from bench_record import machine, write_result
from dpo_artifacts import PROBES, paired

from gradus.conversation.probes import load_suite
from gradus.roadmap.progress import live_progress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

RESULTS = Path(__file__).parent / "results" / "joint_sft.json"
HEAD = """\
name = "joint"
seed = {seed}

[[stage]]
name = "base"
kind = "import"
take = "folder:{base}"
"""
ROUND = """
[[stage]]
name = "{name}_rows"
kind = "pool"
sources = [{{ path = "{name}.jsonl" }}]
validation_fraction = 0.05

[[stage]]
name = "{name}"
kind = "sft"
from = "{parent}"
mixture = [{{ source = "{name}_rows" }}]
batch_tokens = 4096
evaluate_every = 1000
optimizer = {{ matrix_lr = 0.01, embed_lr = 0.01, head_lr = 0.002, vector_lr = 0.0025 }}

[[stage]]
name = "{name}_exam"
kind = "eval"
from = "{name}"
suites = {{ fresh = "answers.jsonl" }}
"""
ROUNDS = {"parent": "base", "joint": "parent", "control": "parent"}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row without thinking, calls, results and tools."""
    messages = [
        {"role": message["role"], "content": message["content"]}
        for message in row["messages"]
        if message["role"] != "tool" and not message.get("tool_calls")
    ]
    return {"messages": messages, "source": row["source"], "id": row["id"]}


def write_rows(pool: Path, folder: Path, parent_rows: int, rows: int, seed: int) -> None:
    """The pools of the three rounds; the joint round and its control have the same rows."""
    found = [json.loads(line) for line in (pool / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(seed).shuffle(found)
    later = found[parent_rows : parent_rows + rows]
    rounds = {"parent": map(plain, found[:parent_rows]), "joint": iter(later), "control": map(plain, later)}
    for name, chosen in rounds.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in chosen]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_probes(folder: Path) -> None:
    """The suite with checks of the answer only: that a tool must be called is no use to the parent."""
    lines = []
    for probe in load_suite(PROBES).probes:
        checks = [check for check in probe.checks if not check.kind.startswith("calls")]
        if checks:
            row = probe.model_copy(update={"checks": tuple(checks)}).model_dump(mode="json", exclude_none=True)
            lines.append(json.dumps(row, ensure_ascii=False))
    (folder / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent-rows", type=int, default=6000)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    home = arguments.home
    home.mkdir(parents=True, exist_ok=True)
    write_rows(arguments.pool, home, arguments.parent_rows, arguments.rows, arguments.seed)
    write_probes(home)
    text = HEAD.format(base=arguments.base.resolve(), seed=arguments.seed)
    text += "".join(ROUND.format(name=name, parent=parent) for name, parent in ROUNDS.items())
    (home / "joint.toml").write_text(text, encoding="utf-8")
    made = walk(load_roadmap(home / "joint.toml"), home, live_progress()).artifacts
    fresh = {name: made[f"{name}_exam"].results["probes"]["fresh"] for name in ROUNDS}
    result = machine() | {
        "joint_over_parent": paired(fresh["parent"]["total"], fresh["joint"]["total"]),
        "joint_over_control": paired(fresh["control"]["total"], fresh["joint"]["total"]),
        "by_category": {
            category: {name: round(measures[category]["value"], 3) for name, measures in fresh.items()}
            for category in fresh["parent"]
        },
        "trained_tokens": {name: made[name].results["tokens"] for name in ROUNDS},
    }
    write_result(RESULTS, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
