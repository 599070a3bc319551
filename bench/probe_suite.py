"""Claim: a full probe suite is asked and judged in under 60 seconds on the quickstart model, on a processor.

The suite that comes with gradus, greedy and with several samples, as `gradus eval probes` asks it: the model is loaded,
the suite's documents are indexed, every answer is judged. Each figure is the median of several runs of the command.

    python bench/probe_suite.py --home ../quickstart-home
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_record import machine, write_result

HERE = Path(__file__).resolve().parent
BAR_SECONDS = 60.0
WAYS = {"greedy": [], "five samples": ["--samples", "5"], "four variants": ["--variants"]}


def asked(home: Path, model: str, options: list[str]) -> tuple[float, int]:
    """(seconds of the whole command, answers judged)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-m", "gradus.cli.main", "eval", "probes", "--model", model, "--suite", "starter"]
        begin = time.perf_counter()
        subprocess.run(
            [*command, "--home", str(home), "--json", str(out), *options], check=True, stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - begin
        record = json.loads(out.read_text())
    return seconds, sum(run["loops"]["n"] for run in record.get("runs", [record]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where quickstart was walked")
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    figures = {}
    for way, flags in WAYS.items():
        runs = [asked(options.home, options.model, flags) for _ in range(options.runs)]
        seconds = [taken for taken, _ in runs]
        figures[way] = {
            "answers": runs[0][1],
            "seconds": round(statistics.median(seconds), 1),
            "all_seconds": [round(taken, 1) for taken in seconds],
            "under_the_bar": statistics.median(seconds) < BAR_SECONDS,
        }
        print(way, figures[way])
    write_result(HERE / "results" / "probe_suite.json", machine() | {"bar_seconds": BAR_SECONDS, "ways": figures})


if __name__ == "__main__":
    main()
