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
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def _peer_torch(python: str | None) -> str:
    if python is None:
        return ""
    script = "import importlib.metadata as m; print(m.version('torch'))"
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
