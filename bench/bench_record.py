"""What every result file records besides its figures: the command, versions, the machine."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path


def machine(peer: Path | None = None, peer_python: str | None = None) -> dict[str, object]:
    """The command, this project's and the peer's versions and the machine. `peer` is a git checkout."""
    here = Path(__file__).resolve().parent
    facts: dict[str, object] = {
        "command": command(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "gradus": _git(here, "rev-parse", "--short", "HEAD"),
            "python": platform.python_version(),
            "torch": importlib.metadata.version("torch"),
        },
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "load_average": os.getloadavg()[0],
        },
    }
    if peer is not None:
        facts["peer"] = {
            "commit": _git(peer, "rev-parse", "--short", "HEAD"),
            "modified_files": len(_git(peer, "status", "--porcelain").splitlines()),
            "torch": _peer_torch(peer_python),
        }
    return facts


def command() -> str:
    """The command line, with absolute folders cut to their last part."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *words])


def idle_fraction(seconds: float = 2.0) -> float:
    """Share of processor time that nothing used over the next seconds; 1.0 where /proc/stat does not exist."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 1.0

    def sample() -> tuple[int, int]:
        times = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
        return times[3] + times[4], sum(times)

    idle_before, all_before = sample()
    time.sleep(seconds)
    idle_after, all_after = sample()
    return (idle_after - idle_before) / max(1, all_after - all_before)


def wait_until_quiet(most_seconds: float, threshold: float = 0.95) -> float:
    """Wait until the machine idles, for at most `most_seconds`; returns the last idle fraction seen."""
    began = time.monotonic()
    while (idle := idle_fraction()) < threshold and time.monotonic() - began < most_seconds:
        time.sleep(3)
    return idle


def peak_bytes() -> int:
    """The most memory that this process held; of Linux, whose ru_maxrss would count the process it was started from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def write_result(path: Path, result: dict[str, object]) -> None:
    """Write one result as JSON that reads well in a diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"  # a copy on a machine without git
    return done.stdout.strip()


def _peer_torch(python: str | None) -> str:
    if python is None:
        return ""
    script = "import importlib.metadata as m; print(m.version('torch'))"
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
