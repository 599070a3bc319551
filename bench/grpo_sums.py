"""Does GRPO teach sums in the head? A quickstart-size model on 500 fresh two-digit sums and its tool probes, before
and after; exact McNemar on the same items.

    python bench/grpo_sums.py --home HOME [--write-only] [--out bench/results/grpo_sums.json]

Writes bench/.work/sums/ (worked sums, tasks, probes; no problem is in two of them), walks roadmaps/sums.toml in HOME,
whose artifacts of quickstart are reused where they are there, and records the comparison.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

from bench_record import machine, write_result

from gradus.core.statistics import mcnemar_exact
from gradus.data.synthetic.item import side_of
from gradus.roadmap.progress import live_progress
from gradus.roadmap.run import walk
from gradus.roadmap.schema import load_roadmap

FOLDER = Path(__file__).resolve().parent
SHOWN, FRESH = 1500, 500
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
    result = walk(load_roadmap(FOLDER.parent / "roadmaps" / "sums.toml"), options.home, live_progress())
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


def compared(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
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
        "shown": [_worked(p, rng) for p in train[:SHOWN]],
        "tasks": [_task(p, rng) for p in train[SHOWN:]],
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


def _worked(problem: tuple[int, str, int], rng: random.Random) -> dict[str, object]:
    answer = {"role": "assistant", "reasoning_content": _steps(*problem), "content": f"{_value(problem)}."}
    return {"messages": [_asked(problem, rng), answer], "think": True, "id": "{}{}{}".format(*problem)}


def _steps(a: int, sign: str, b: int) -> str:
    """Ones, then tens: 47 + 38 is "7 + 8 = 15. 4 + 3 + 1 = 8."."""
    (tens_a, ones_a), (tens_b, ones_b) = divmod(a, 10), divmod(b, 10)
    if sign == "+":
        ones = ones_a + ones_b
        return f"{ones_a} + {ones_b} = {ones}. {tens_a} + {tens_b}{' + 1' if ones > 9 else ''} = {(a + b - ones % 10) // 10}."
    borrows = ones_a < ones_b
    ones = ones_a + 10 * borrows
    return f"{ones} - {ones_b} = {ones - ones_b}. {tens_a} - {tens_b}{' - 1' if borrows else ''} = {tens_a - tens_b - borrows}."


def _task(problem: tuple[int, str, int], rng: random.Random) -> dict[str, object]:
    checks = [{"kind": "answer_number", "value": _value(problem)}, {"kind": "stops"}, {"kind": "calls_none"}]
    return {
        "id": "{}{}{}".format(*problem), "messages": [_asked(problem, rng)], "think": True, "tools": [],
        "checks": checks,
    }  # fmt: skip


if __name__ == "__main__":
    main()
