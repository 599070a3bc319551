"""Claim: an eval stage on N processes writes the files of one, and takes less time.

The quickstart's chat model is imported and asked, on one thread for each process: the starter suite five times over,
the artifact audit, bits per byte of WikiText-2's validation side, GSM8K and ARC-Easy. Each number of processes asks in
turn; a figure is the median of the stage's own seconds, start of the other processes included.

    python bench/eval_ranks.py --home ../quickstart-home --data ../shared/data
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_record import machine, write_result

from gradus.roadmap.models import resolve_model

HERE = Path(__file__).resolve().parent
ROADMAP = """
name = "asked"
[[stage]]
name = "prose"
kind = "corpus"
sources = [{{ kind = "files", path = "text.txt", split = "line" }}]
decontaminate = []
validation_fraction = 0.5
[[stage]]
name = "bpe"
kind = "tokenizer"
take = "folder:{tokenizer}"
[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "prose"
tokenizer = "bpe"
[[stage]]
name = "talk"
kind = "pool"
sources = [{{ path = "{chats}" }}]
validation_fraction = 0.0
[[stage]]
name = "model"
kind = "import"
take = "folder:model"
[[stage]]
name = "look"
kind = "eval"
from = "model"
tokens = "tokens"
prompts = "talk"
suites = {{ starter = "starter" }}
samples = 5
temperature = 0.7
audit_samples = {audit}
tasks = ["gsm8k", "arc_easy"]
task_tokens = 200
at_most = {items}
benchmarks = "{data}"
"""


def walked(folder: Path, home: Path, *words: str) -> None:
    """The roadmap of a folder, in a process of its own."""
    command = [sys.executable, "-m", "gradus.cli.main", "run", str(folder / "asked.toml"), "--home", str(home), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})


def looked(home: Path) -> tuple[float, dict[str, str], str]:
    """(seconds of the stage, its files, its results), times left out of both."""
    (look,) = home.glob("artifacts/eval-*")
    manifest = json.loads((look / "manifest.json").read_text())
    results = {key: value for key, value in manifest["results"].items() if key != "seconds"}
    files = {
        str(path.relative_to(look)): re.sub(r'^ "seconds": .*\n', "", path.read_text(), flags=re.MULTILINE)
        for path in look.rglob("*.json")
        if path.name != "manifest.json"
    }
    return manifest["seconds"], files, json.dumps(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where quickstart was walked")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--items", type=int, default=128)
    parser.add_argument("--audit", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = resolve_model("quickstart", options.home)
    (chats,) = options.home.glob("artifacts/pool-*/validation.jsonl")
    seconds: dict[int, list[float]] = {count: [] for count in options.processes}
    kept: list[tuple[dict[str, str], str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = found.tokenizer or found.folder
        shutil.copytree(found.folder, folder / "model")
        for file in tokenizer.iterdir():
            shutil.copy(file, folder / "model")
        text = gzip.decompress((options.data / "wikitext2/valid.txt.gz").read_bytes()).decode()
        (folder / "text.txt").write_text("\n".join(line for line in text.split("\n") if len(line) > 100))
        written = ROADMAP.format(
            tokenizer=tokenizer.resolve(), chats=chats.resolve(), data=options.data.resolve(), audit=options.audit,
            items=options.items,
        )  # fmt: skip
        (folder / "asked.toml").write_text(written.split('[[stage]]\nname = "look"')[0])
        walked(folder, folder / "made")
        (folder / "asked.toml").write_text(written)
        for _ in range(options.rounds):
            for count in options.processes:
                home = folder / "home"
                shutil.copytree(folder / "made", home, symlinks=True)
                walked(folder, home, f"machine.processes={count}", "machine.threads=1")
                taken, files, results = looked(home)
                seconds[count].append(taken)
                kept.append((files, results))
                shutil.rmtree(home)
                print(count, "processes", taken, flush=True)
    first = kept[0]
    different = sorted({name for files, _ in kept for name in files if files[name] != first[0][name]})
    result = machine() | {
        "settings": {"items": options.items, "audit": options.audit, "rounds": options.rounds},
        "seconds": {str(count): statistics.median(taken) for count, taken in seconds.items()},
        "all_seconds": {str(count): taken for count, taken in seconds.items()},
        "files_that_differ": different,
        "results_are_equal": all(results == first[1] for _, results in kept),
    }
    print(json.dumps(result, indent=1))
    write_result(HERE / "results" / "eval_ranks.json", result)


if __name__ == "__main__":
    main()
