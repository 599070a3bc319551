"""Claim: a walk killed by `kill -9` at random moments ends with the same weights, bit for bit, as an unbroken one.

    python bench/kill_walk.py roadmaps/quickstart.toml --kills 20

Walks the roadmap once without a break, then once more with kills spread over the time that the first one took, and
compares the checksums of every model's weights. Writes bench/results/kill_walk.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_record import machine, write_result

from gradus.core.fingerprint import file_digest

RESULTS = Path(__file__).parent / "results" / "kill_walk.json"


def start(roadmap: Path, home: Path, log: Path) -> subprocess.Popen[bytes]:
    """A walk in a process group of its own, so that its workers die with it."""
    command = [sys.executable, "-m", "gradus.cli.main", "run", str(roadmap), "--home", str(home)]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a walk; a failed gate (exit code 3) has its weights all the same."""
    if process.wait() not in (0, 3):
        sys.exit(f"the walk failed with {process.returncode}; see {log}")


def weights(home: Path) -> dict[str, str]:
    """Checksum of each finished model's weights, by stage."""
    return {
        path.parent.parent.name: file_digest(path) for path in sorted(home.glob("runs/*/*/model/model.safetensors"))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("roadmap", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--unbroken", type=Path, help="home of a finished unbroken walk; by default one is made")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "walk.log"
        unbroken = arguments.unbroken or Path(folder) / "unbroken"
        begin = time.monotonic()
        finish(start(arguments.roadmap, unbroken, log), log)
        expected = weights(unbroken)
        manifests = [json.loads(p.read_text()) for p in unbroken.glob("artifacts/*/manifest.json")]
        seconds = sum(manifest["seconds"] for manifest in manifests)
        broken = Path(folder) / "broken"
        killed: list[dict[str, Any]] = []
        while len(killed) < arguments.kills:
            process = start(arguments.roadmap, broken, log)
            # Twice the mean gap, so that the kills are spread over the whole walk; at least past the start.
            wait = rng.uniform(2.0, 2.0 + 2.0 * seconds / arguments.kills)
            try:
                process.wait(timeout=wait)
                break  # finished before all kills were spent
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                unfinished = [path.name.split("-")[0] for path in broken.glob("artifacts/*.work")]
                killed.append({"after_seconds": round(wait, 2), "during": unfinished})
                print(f"kill {len(killed)} after {wait:.1f} s during {', '.join(unfinished) or 'start'}", flush=True)
        finish(start(arguments.roadmap, broken, log), log)
        found = weights(broken)
    result: dict[str, object] = {
        **machine(),
        "kills": killed,
        "unbroken_seconds": round(seconds, 1),
        "both_seconds": round(time.monotonic() - begin, 1),
        "weights_unbroken": expected,
        "weights_killed": found,
        "identical": bool(expected) and expected == found,
    }
    write_result(RESULTS, result)
    print("identical" if result["identical"] else "DIFFERENT", len(killed), "kills")
    sys.exit(0 if result["identical"] else 1)


if __name__ == "__main__":
    main()
