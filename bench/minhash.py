"""Claim: near-duplicates across a corpus at 25 times datatrove's documents a second, found better and wronger less.

Both sides take the same documents, in memory, from signatures to the list of what stays, on one process and on two,
in alternating rounds (timed_steps.py). The corpus is real text with planted near-duplicates
(near_duplicate_text.py); natural ones are in it too. Measured besides speed, for both:

    found         of planted pairs with true Jaccard similarity .8 to .9, the share of which not both stay
    merged        of planted pairs with .5 to .6, the share put into one cluster
    real mate     of all removed documents, the share with true similarity >= .7 to the one kept in its place

datatrove splits words at white space here (its English default, spaCy, is slower). Its clusters keep one document
each; that one is the mate. This project logs the mate.

    python bench/minhash.py --peer-python PEER/bin/python --text DIR [DIR ...] --documents 100000
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_record import machine, write_result
from near_duplicate_text import Planted, jaccard, planted_corpus, shingles

HERE = Path(__file__).resolve().parent
Seconds = dict[str, list[float]]


def gradus_side(shards: Path, work: Path, processes: int) -> tuple[Seconds, dict[int, int]]:
    """(seconds by step, mates: removed row to kept row)."""
    work.mkdir(exist_ok=True)
    command = [sys.executable, str(HERE / "gradus_minhash.py"), "--shards", str(shards), "--work", str(work)]
    subprocess.run([*command, "--processes", str(processes)], check=True)
    found = json.loads((work / "result.json").read_text())
    return found["seconds"], {int(removed): kept for removed, kept in found["mates"].items()}


def datatrove_side(python: str, shards: Path, work: Path, processes: int) -> tuple[Seconds, dict[int, int]]:
    command = [python, str(HERE / "datatrove_minhash.py"), "--shards", str(shards), "--work", str(work)]
    subprocess.run([*command, "--processes", str(processes)], check=True)
    found = json.loads((work / "result.json").read_text())
    rows = [[json.loads(line)["id"] for line in path.open()] for path in sorted(shards.glob("*.jsonl"))]
    kept = {int(identity) for identity in found["kept"]}
    clusters: dict[int, list[int]] = {}
    for file, row, cluster in found["clusters"]:
        clusters.setdefault(cluster, []).append(int(rows[file][row]))
    mates: dict[int, int] = {}
    for members in clusters.values():
        [stays] = [member for member in members if member in kept]
        mates |= {member: stays for member in members if member != stays}
    return found["seconds"], mates


def quality(texts: list[str], planted: list[Planted], mates: dict[int, int]) -> dict[str, object]:
    """The three shares, with the counts they are of."""
    star = {row: mates.get(row, row) for pair in planted for row in (pair.original, pair.copy)}
    result: dict[str, object] = {"removed": len(mates)}
    for low, high in ((0.4, 0.5), (0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.01)):
        pairs = [pair for pair in planted if low <= pair.jaccard < high]
        found = sum(pair.original in mates or pair.copy in mates for pair in pairs)
        merged = sum(star[pair.original] == star[pair.copy] for pair in pairs)
        result[f"planted {low:.1f}-{min(high, 1):.1f}"] = {
            "pairs": len(pairs),
            "found": round(found / max(1, len(pairs)), 4),
            "merged": round(merged / max(1, len(pairs)), 4),
        }
    true = [jaccard(shingles(texts[removed]), shingles(texts[kept])) for removed, kept in mates.items()]
    for least in (0.65, 0.7):
        result[f"real mate at {least}"] = round(sum(j >= least for j in true) / max(1, len(true)), 4)
    return result


def compare(steps: dict[str, list[Seconds]], documents: int) -> dict[str, dict[str, object]]:
    """Median rates and each round's ratio, by the clock and by processor time, which other work disturbs less."""
    rates: dict[str, object] = {}
    ratios: dict[str, object] = {}
    for kind in ("wall", "cpu"):
        times = {side: [sum(seconds[kind]) for seconds in rounds] for side, rounds in steps.items()}
        rates[kind] = {side: round(statistics.median(documents / t for t in ts), 1) for side, ts in times.items() if ts}
        ratios[kind] = [round(b / a, 2) for a, b in zip(times["gradus"], times["datatrove"], strict=False)]
    return {"documents_per_second": rates, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--copies", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "minhash.json")
    args = parser.parse_args()
    texts, planted = planted_corpus(args.text, args.documents, args.copies, args.seed)
    size = sum(len(text.encode()) for text in texts)
    result = machine() | {"documents": len(texts), "bytes": size, "planted": len(planted)}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "shards").mkdir()
        for number in range(2):
            with (work / "shards" / f"{number:05d}.jsonl").open("w") as file:
                for row in range(number * len(texts) // 2, (number + 1) * len(texts) // 2):
                    file.write(json.dumps({"id": str(row), "text": texts[row]}) + "\n")
        for processes in args.processes:
            steps: dict[str, list[Seconds]] = {"gradus": [], "datatrove": []}
            for _ in range(args.rounds):
                for side in steps:
                    if side == "gradus":
                        seconds, mates = gradus_side(work / "shards", work / "gradus", processes)
                    elif args.peer_python:
                        seconds, mates = datatrove_side(args.peer_python, work / "shards", work / "peer", processes)
                    else:
                        continue
                    steps[side].append(seconds)
                    print(processes, side, {kind: [round(s, 2) for s in times] for kind, times in seconds.items()})
                    if side not in result:
                        result[side] = quality(texts, planted, mates)
                        print(json.dumps(result[side], indent=1))
            result[f"{processes} processes"] = figures = {"seconds_by_step": steps} | compare(steps, len(texts))
            print(processes, "processes", json.dumps(figures["documents_per_second"]), json.dumps(figures["ratios"]))
    write_result(args.out, result)


if __name__ == "__main__":
    main()
