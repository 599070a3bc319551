"""Does GRPO teach sums in the head? A quickstart-size model on 500 fresh two-digit sums and its tool probes, before
and after; exact McNemar on the same items.

The model is shown sums that were worked digit by digit in its thinking, and more that were answered at once. It can do
the former and hardly the latter, but answers at once by habit. No reward says how to answer: that the answer be right
is all that is paid.

    gradus run roadmaps/quickstart.toml --home HOME
    python bench/grpo_sums.py --home HOME [--write-only] [--out bench/results/grpo_sums.json]

Writes bench/.work/sums/ (worked sums, tasks, probes; no problem is in two of them), walks the stages that
roadmaps/sums.toml has beyond quickstart, and records the comparison.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from bench_record import machine, write_result

from gradus.core.statistics import mcnemar_exact
from gradus.data.synthetic.item import side_of
from gradus.roadmap.progress import live_progress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

FOLDER = Path(__file__).resolve().parent
WORKED, ANSWERED, FRESH = 2500, 3000, 500
STAGES = ("worked", "answered", "direct", "before", "practice", "after")
WORDINGS = ("What is {}?", "{} = ?", "Compute {}.", "How much is {}?", "{}?", "Please work out {}.")


def main() -> None:
    """Write, walk, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--write-only", action="store_true")
    parser.add_argument("--out", type=Path, default=FOLDER / "results" / "grpo_sums.json")
    options = parser.parse_args()
    counts = write_files(FOLDER / ".work" / "sums")
    if options.write_only:
        return
    began = time.monotonic()
    roadmap = load_roadmap(FOLDER.parent / "roadmaps" / "sums.toml", ["machine.processes=1"])
    for stage in STAGES:
        result = walk(roadmap, options.home, live_progress(), only=[stage])
    before, after = (result.artifacts[name].results["probes"] for name in ("before", "after"))
    practice = result.artifacts["practice"]
    write_result(
        options.out,
        machine()
        | {
            "problems": counts,
            "seconds": round(time.monotonic() - began, 1),
            "practice": {
                "seconds": practice.manifest.seconds,
                "steps": practice.results["steps"],
                "counts": practice.results["counts"],
                "last_rollout": practice.results["last_rollout"],
                "kl": practice.results["kl"],
            },
            "suites": {name: compared(before[name]["total"], after[name]["total"]) for name in before},
        },
    )
    print(options.out.read_text())


def compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Both shares, and the exact test on the items whose outcome changed."""
    old, new = before["items"], after["items"]
    won = sum(new[item] and not old[item] for item in old)
    lost = sum(old[item] and not new[item] for item in old)
    return {
        "items": len(old), "before": before["value"], "after": after["value"],
        "won": won, "lost": lost, "p": mcnemar_exact(lost, won),
    }  # fmt: skip


def write_files(folder: Path) -> dict[str, int]:
    """Worked sums, tasks and probes from all sums of two-digit numbers, and differences that are not below 0."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    problems = [(a, sign, b) for sign in "+-" for a in range(10, 100) for b in range(10, 100) if sign == "+" or a >= b]
    rng.shuffle(problems)
    train = [p for p in problems if side_of(f"sums|{p}") == "train"]
    fresh = [p for p in problems if side_of(f"sums|{p}") == "probe"][:FRESH]
    parts = {
        "worked": [_shown(p, rng, _steps(*p)) for p in train[:WORKED]],
        "answered": [_shown(p, rng, None) for p in train[WORKED : WORKED + ANSWERED]],
        "tasks": [_task(p, rng) for p in train[WORKED + ANSWERED :]],
        "fresh": [_task(p, rng) | {"category": "sums"} for p in fresh],
    }
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: len(rows) for name, rows in parts.items()}


def _asked(problem: tuple[int, str, int], rng: random.Random) -> dict[str, str]:
    return {"role": "user", "content": rng.choice(WORDINGS).format("{} {} {}".format(*problem))}


def _value(problem: tuple[int, str, int]) -> int:
    a, sign, b = problem
    return a + b if sign == "+" else a - b


def _shown(problem: tuple[int, str, int], rng: random.Random, thinking: str | None) -> dict[str, object]:
    answer = {"role": "assistant", "content": f"{_value(problem)}."}
    if thinking is not None:
        answer["reasoning_content"] = thinking
    return {"messages": [_asked(problem, rng), answer], "id": "{}{}{}".format(*problem)}


def _steps(a: int, sign: str, b: int) -> str:
    """Ones, then tens: 47 + 38 is "7 + 8 = 15. 4 + 3 + 1 = 8."."""
    (tens_a, ones_a), (tens_b, ones_b) = divmod(a, 10), divmod(b, 10)
    if sign == "+":
        ones = ones_a + ones_b
        carried = " + 1" if ones > 9 else ""
        return f"{ones_a} + {ones_b} = {ones}. {tens_a} + {tens_b}{carried} = {(a + b) // 10}."
    borrows = ones_a < ones_b
    ones, taken = ones_a + 10 * borrows, " - 1" if borrows else ""
    return f"{ones} - {ones_b} = {ones - ones_b}. {tens_a} - {tens_b}{taken} = {(a - b) // 10}."


def _task(problem: tuple[int, str, int], rng: random.Random) -> dict[str, object]:
    checks = [{"kind": "answer_number", "value": _value(problem)}, {"kind": "stops"}, {"kind": "calls_none"}]
    return {
        "id": "{}{}{}".format(*problem), "messages": [_asked(problem, rng)], "tools": [],
        "checks": checks,
    }  # fmt: skip


if __name__ == "__main__":
    main()
