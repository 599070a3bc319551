"""Peak memory of building and tokenising a corpus, from 50 MB to 2 GB of text.

    python bench/corpus_memory.py --texts ../shared/data/prose ../bench-data/debian --megabytes 50 500 2000

The texts are real documents; where they do not suffice they come again with their words shuffled inside each line, so
that they are no duplicates. Filters, near-duplicates and tokens are on. The peak is of the proportional set sizes of
all processes, added up, looked at ten times a second.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from bench_record import machine, write_result
from corpus import ours
from real_text import read_texts

from gradus.data.build import build_corpus
from gradus.data.corpus import read_corpus
from gradus.data.files import FilesSource
from gradus.tokenizer.training import train_tokenizer

HERE = Path(__file__).resolve().parent
_FILE_BYTES = 25_000_000


def endless(folders: list[Path]) -> Iterator[str]:
    """The texts, then again and again with their words in another order."""
    yield from read_texts(folders)
    rng = random.Random(1)
    while True:
        for text in read_texts(folders):
            lines = []
            for line in text.split("\n"):
                words = line.split(" ")
                rng.shuffle(words)
                lines.append(" ".join(words))
            yield "\n".join(lines)


def write_texts(folders: list[Path], out: Path, size: float) -> None:
    """About `size` bytes of text as JSON lines."""
    out.mkdir()
    written = 0
    texts = endless(folders)
    number = 0
    while written < size:
        with (out / f"{number:04d}.jsonl").open("w", encoding="utf-8") as file:
            here = 0
            while here < _FILE_BYTES and written + here < size:
                text = next(texts)
                file.write(json.dumps({"text": text}) + "\n")
                here += len(text.encode("utf-8", "surrogatepass"))
        written, number = written + here, number + 1


def peak_of(command: list[str]) -> tuple[float, dict[str, Any]]:
    """(peak MiB of a command and its children, what it printed)."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watched = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        total = 0
        for one in [watched, *watched.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.1)
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.read())
    return peak / 2**20, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[50, 500, 2000])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--note", default="")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        json.dump(ours(args.one, args.one / "work", args.one.parent / "tokenizer", args.processes), sys.stdout)
        return
    result: dict[str, Any] = machine() | {"note": args.note, "runs": []}
    with tempfile.TemporaryDirectory() as scratch:
        for size in args.megabytes:
            folder = Path(scratch, f"{size:g}")
            write_texts(args.texts, folder, size * 1e6)
            if not Path(scratch, "tokenizer").exists():
                Path(scratch, "tokenizer").mkdir()
                some = Path(scratch, "some")
                build_corpus([FilesSource(path=str(folder / "0000.jsonl"))], some, roadmap_dir=folder)
                train_tokenizer((d.text for d in read_corpus(some, "train")), 16_384).save(Path(scratch, "tokenizer"))
            command = [sys.executable, str(HERE / "corpus_memory.py"), "--one", str(folder)]
            peak, done = peak_of([*command, "--processes", str(args.processes)])
            run = {"megabytes": size, "peak_mebibytes": peak, "seconds": sum(done["seconds"]), "tokens": done["tokens"]}
            print(f"{size:g} MB: peak {peak:,.0f} MiB in {run['seconds']:.0f} s", flush=True)
            result["runs"].append(run)
            for path in folder.glob("*.jsonl"):
                path.unlink()
    peaks = [run["peak_mebibytes"] for run in result["runs"]]
    result["growth"] = peaks[-1] / peaks[0] - 1
    print(f"growth {result['growth']:.1%}")
    write_result(HERE / "results" / "corpus-memory.json", result)


if __name__ == "__main__":
    main()
