"""Claim: `gradus run roadmaps/quickstart.toml` takes ten minutes and two GiB, and its model passes the two suites.

    python bench/quickstart.py --home FOLDER

Walks the roadmap in FOLDER, or reads the walk that is finished there: the seconds of each stage, the largest sum of the
memory of all processes in it, each category of both suites with its 95 % interval, and the start of
`gradus --help`. A finished walk is read with the checkout that it was made with. Writes bench/results/quickstart.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench_record import idle_fraction, machine, write_result

from gradus.core.gate import without_items

ROADMAPS = Path(__file__).resolve().parents[1] / "roadmaps"
RESULTS = Path(__file__).parent / "results" / "quickstart.json"
STARTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--home", type=Path, required=True)
    home = parser.parse_args().home
    run = home / "runs" / "quickstart"
    walked: float | None = None
    idle: float | None = None
    if not (run / "exam" / "manifest.json").exists():
        if run.exists():
            sys.exit(f"{run} holds a part of a walk; give a folder without one, or finish it first")
        idle = idle_fraction()
        shutil.copytree(ROADMAPS, home, dirs_exist_ok=True)
        begin = time.monotonic()
        command = [sys.executable, "-m", "gradus.cli.main", "run", "quickstart.toml"]
        if (code := subprocess.run(command, cwd=home, check=False).returncode) not in (0, 3):  # 3: a gate failed
            sys.exit(f"the walk ended with {code}")
        walked = time.monotonic() - begin
    stages = json.loads((run / "roadmap.json").read_text())["stages"]
    manifests = {stage["name"]: json.loads((run / stage["name"] / "manifest.json").read_text()) for stage in stages}
    exam = manifests["exam"]
    suites = {
        suite: {category: without_items(measure) for category, measure in measures.items() if "value" in measure}
        for suite, measures in exam["results"]["probes"].items()
    }
    starts = []
    for _ in range(STARTS):
        begin = time.monotonic()
        subprocess.run([sys.executable, "-m", "gradus.cli.main", "--help"], check=True, capture_output=True)
        starts.append(time.monotonic() - begin)
    seconds = {name: manifest["seconds"] for name, manifest in manifests.items()}
    memory = {name: manifest["machine"]["peak_memory_bytes"] for name, manifest in manifests.items()}
    result = {
        "walk_seconds": walked,  # by the clock, None where a finished walk was read
        "stage_seconds": seconds,
        "begun": min(manifest["started"] for manifest in manifests.values()),
        "bf16_instructions": exam["machine"]["bf16"],
        "peak_memory_bytes": memory,
        "suites": suites,
        "help_seconds": {"best": min(starts), "all": starts},
        "idle_fraction_before": idle,
    }
    write_result(RESULTS, {**result, **machine()})
    for suite, measures in suites.items():
        print(f"{suite}: " + ", ".join(f"{name} {100 * measure['value']:.1f} %" for name, measure in measures.items()))
    print(f"{sum(seconds.values()):.0f} s in stages, {max(memory.values()) / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
