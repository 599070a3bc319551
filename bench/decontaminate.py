"""Claim: planted evaluation items are all found, clean prose stays, at 15 times datatrove's speed.

Rows of every benchmark are planted in the middle of prose documents with other case, punctuation and spacing, and
both sides look for them, and through the untouched prose, in alternating rounds (timed_steps.py). Every item found
in the untouched prose is listed with its coverage, to be judged by eye: quotations of public texts are no false
removals.

    python bench/decontaminate.py --peer-python PEER/bin/python --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_record import machine, write_result
from near_duplicate_text import read_texts

HERE = Path(__file__).resolve().parent
BETWEEN = re.compile(r"[\s!-/:-@\[-`{-~]+")
SEPARATORS = [" "] * 6 + ["\n", "\n\n", "  ", "\t", ", ", "; ", " - ", " (", ") ", ". ", " “", "” "]
Seconds = dict[str, list[float]]


def disguised(text: str, rng: random.Random) -> str:
    """The same words in another case, with other punctuation and spacing between them."""
    words = [word for word in BETWEEN.split(text) if word]
    change = rng.choice([str.upper, str.lower, str.title, str.swapcase])
    words = [w if change(w).lower() != w.lower() else change(w) for w in words]
    return "".join(word + rng.choice(SEPARATORS) for word in words)


def plant(prose: list[str], texts: list[str], rng: random.Random) -> list[str]:
    """Each text in the middle of a document of its own."""
    documents = []
    for text in texts:
        words = rng.choice(prose).split(" ")[:2000]
        middle = rng.randrange(len(words) // 4, max(len(words) // 4 + 1, 3 * len(words) // 4))
        documents.append(" ".join([*words[:middle], disguised(text, rng), *words[middle:]]))
    return documents


def write_shards(folder: Path, texts: list[str], shards: int = 2) -> None:
    folder.mkdir()
    for number in range(shards):
        with (folder / f"{number:05d}.jsonl").open("w") as file:
            for row in range(number * len(texts) // shards, (number + 1) * len(texts) // shards):
                file.write(json.dumps({"id": str(row), "text": texts[row]}) + "\n")


def run_side(command: list[str], shards: Path, work: Path, processes: int) -> dict[str, object]:
    common = ["--shards", str(shards), "--work", str(work), "--processes", str(processes)]
    subprocess.run([*command, *common], check=True)
    return json.loads((work / "result.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000, help="rows to plant")
    parser.add_argument("--peer-bytes", type=float, default=2e7, help="prose for the timing of both sides")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "decontaminate.json")
    args = parser.parse_args()
    from gradus.data.benchmarks import BENCHMARK_TEXTS
    from gradus.data.decontaminate import Decontaminator, benchmark_sets

    rng = random.Random(0)
    sets = benchmark_sets(BENCHMARK_TEXTS, args.data)
    checker = Decontaminator(sets)
    checked = {one.name: set(checker.unchecked[one.name]) for one in sets}
    counts = {o.name: {"items": checker.num_items[o.name], "too short": len(checked[o.name])} for o in sets}
    rows = []
    for one in sets:
        able = [item for item in one.items if item.id not in checked[one.name]]
        for item in rng.sample(able, min(len(able), -(-args.rows // len(sets)))):
            rows.append((one.name, item.id, max(item.texts, key=len)))
    prose = [text for text in read_texts([args.data / "prose"]) if text.strip()]
    clean = [text for text, found in zip(prose, checker.check(prose), strict=True) if found is None and len(text) > 500]
    result = machine() | {"sets": counts, "planted": len(rows), "prose_documents": len(prose)}
    timed, size = [], 0
    for text in rng.sample(prose, len(prose)):
        timed.append(text)
        size += len(text.encode())
        if size >= args.peer_bytes:
            break
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_shards(work / "planted", plant(clean, [text for _, _, text in rows], rng))
        write_shards(work / "prose", prose)
        write_shards(work / "timed", timed)
        with (work / "items.jsonl").open("w") as file:
            for one in sets:
                for item in one.items:
                    for text in item.texts:
                        file.write(json.dumps({"set": one.name, "text": text}) + "\n")
        ours = [sys.executable, str(HERE / "gradus_decontaminate.py"), "--data", str(args.data), "--sets"]
        ours += list(BENCHMARK_TEXTS)
        found = run_side(ours, work / "planted", work / "gradus", 1)["found"]
        missed = [row[:2] for row, one in zip(rows, found, strict=True) if one is None]
        result["gradus"] = {"planted found": 1 - len(missed) / len(rows), "missed": missed}
        found = run_side(ours, work / "prose", work / "gradus", 1)["found"]
        removed = [[text[:60], *one] for text, one in zip(prose, found, strict=True) if one is not None]
        result["gradus"] |= {"removed of prose": len(removed), "which": removed}
        print(json.dumps(result["gradus"], indent=1))
        theirs = [args.peer_python, str(HERE / "datatrove_decontaminate.py"), "--items", str(work / "items.jsonl")]
        if args.peer_python:
            stays = run_side(theirs, work / "planted", work / "peer", 1)["stays"]
            result["datatrove"] = {"planted found": 1 - sum(stays) / len(rows)}
        for processes in args.processes:
            times: dict[str, list[Seconds]] = {"gradus": [], "datatrove": []}
            for _ in range(args.rounds):
                times["gradus"].append(run_side(ours, work / "timed", work / "gradus", processes)["seconds"])
                if args.peer_python:
                    side = run_side(theirs, work / "timed", work / "peer", processes)
                    times["datatrove"].append(side["seconds"])
                    result["datatrove"]["removed of timed prose"] = [
                        len(side["stays"]) - sum(side["stays"]),
                        len(timed),
                    ]
            rates = {
                kind: {
                    s: round(statistics.median(size / 1e6 / sum(t[kind]) for t in ts), 2)
                    for s, ts in times.items()
                    if ts
                }
                for kind in ("wall", "cpu")
            }
            ratios = {
                kind: [round(sum(b[kind]) / sum(a[kind]), 1) for a, b in zip(*times.values(), strict=False)]
                for kind in ("wall", "cpu")
            }
            result[f"{processes} processes"] = {"megabytes_per_second": rates, "ratios": ratios}
            print(processes, "processes", json.dumps(rates), json.dumps(ratios))
    print(json.dumps(result.get("datatrove")))
    write_result(args.out, result)


if __name__ == "__main__":
    main()
