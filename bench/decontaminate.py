"""Decontamination: recall of planted items, removals of clean documents, and speed against datatrove.

    python bench/decontaminate.py --peer-python PEER/bin/python --benchmarks ../shared/data \
        --texts ../shared/data/prose ../bench-data/debian

Items are drawn evenly from all sets, of those that are looked for, changed in case, punctuation and white space, and
each is planted in the middle of a document of its own that was clean before. Speed is on clean documents: the same for
both sides, one process and one thread each, in alternating rounds, by processor time. datatrove's n-grams are as long
as ours, its words split at white space; it removes a document for one n-gram found.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from bench_record import machine, write_result
from filters import write_texts
from peer import Peer
from real_text import read_texts

from gradus.data.benchmarks import BenchmarkItem, benchmark_items, benchmark_names
from gradus.data.decontaminate import DecontaminateSettings, Decontaminator

HERE = Path(__file__).resolve().parent
_SEPARATORS = re.compile(r"[\s,;:!?]+")


def disguise(text: str, draw: random.Random) -> str:
    """The same words in other case, with other separators between them."""
    cased = draw.choice([text.upper(), text.lower(), text.title(), text])
    return _SEPARATORS.sub(lambda _: draw.choice([" ", "\n", "  ", ", ", " - ", "\t", "... ", " | "]), cased)


def plant(text: str, planted: str) -> str:
    """The text with something in its middle, between two words."""
    middle = text.find(" ", len(text) // 2)
    middle = middle if middle >= 0 else len(text)
    return f"{text[:middle]}\n{planted}\n{text[middle:]}"


def chosen_items(
    items: dict[str, list[BenchmarkItem]], checker: Decontaminator, count: int, draw: random.Random
) -> list[tuple[str, BenchmarkItem]]:
    """As many of each set as there are, up to an equal share, of the items that are looked for."""
    found: list[tuple[str, BenchmarkItem]] = []
    share = -(-count // len(items))
    for name, every in items.items():
        pool = draw.sample(every, min(len(every), 4 * share))
        known = [item for item, hit in zip(pool, checker.check([item.text for item in pool]), strict=True) if hit]
        found += [(name, item) for item in known[:share]]
    return found


def recall(
    items: list[tuple[str, BenchmarkItem]], clean: list[str], checker: Decontaminator, draw: random.Random
) -> tuple[dict[str, Any], list[str]]:
    """How many of the planted are found, and the documents that they stand in."""
    texts = [plant(draw.choice(clean), disguise(item.text, draw)) for _, item in items]
    framed = [plant(draw.choice(clean), f"Question: {item.question}\nAnswer: {item.answer}") for _, item in items]
    answers = checker.check(texts)
    missed = [f"{name}/{item.id}" for (name, item), answer in zip(items, answers, strict=True) if answer is None]
    figures = {
        "planted": len(items),
        "sets": len({name for name, _ in items}),
        "found": len(items) - len(missed),
        "recall": 1 - len(missed) / len(items),
        "missed": missed[:50],
        # As a prompt would write them, which parts question and answer by a word that the item does not have.
        "framed_recall": sum(answer is not None for answer in checker.check(framed)) / len(framed),
    }
    return figures, texts


def compare(peer: Peer, checker: Decontaminator, texts: list[str], rounds: int) -> dict[str, Any]:
    """Speeds of both sides on the first of the peer's texts, and the peer's removals among them."""
    checker.check(texts[:20])
    peer.ask(start=0, stop=20)
    cpu: dict[str, list[float]] = {"ours": [], "theirs": []}
    removed = 0
    for number in range(rounds):
        start, stop = len(texts) * number // rounds, len(texts) * (number + 1) // rounds
        for side in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            if side == "ours":
                began = time.process_time()
                checker.check(texts[start:stop])
                cpu[side].append(time.process_time() - began)
            else:
                answer = peer.ask(start=start, stop=stop)
                cpu[side].append(answer["cpu_seconds"])
                removed += sum(answer["removed"])
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6
    return {
        "megabytes": size,
        "documents": len(texts),
        "ours_megabytes_per_second": size / sum(cpu["ours"]),
        "theirs_megabytes_per_second": size / sum(cpu["theirs"]),
        "ratio": sum(cpu["theirs"]) / sum(cpu["ours"]),
        "ratio_by_round": [theirs / ours for ours, theirs in zip(cpu["ours"], cpu["theirs"], strict=True)],
        "theirs_removed_of_clean": removed,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="a Python that has datatrove")
    parser.add_argument("--benchmarks", type=Path, required=True, help="the folder of evaluation sets")
    parser.add_argument("--sets", nargs="+", default=["all"])
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="folders of .jsonl or .jsonl.gz files")
    parser.add_argument("--planted", type=int, default=2000)
    parser.add_argument("--documents", type=int, default=4000, help="how many to compare speeds on")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--note", default="", help="kept in the result")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    began = time.process_time()
    checker = Decontaminator(DecontaminateSettings(sets=tuple(args.sets), folder=str(args.benchmarks.resolve())))
    build_seconds = time.process_time() - began
    items = {name: list(benchmark_items(name, args.benchmarks)) for name in benchmark_names(tuple(args.sets))}
    texts = list(read_texts(args.texts))
    draw.shuffle(texts)
    answers = checker.check(texts)
    clean = [text for text, answer in zip(texts, answers, strict=True) if answer is None]
    removed = [answer for answer in answers if answer is not None]
    planted, planted_texts = recall(chosen_items(items, checker, args.planted, draw), clean, checker, draw)
    speed_texts = clean[: args.documents]
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"set": name, "text": item.text} for name, every in items.items() for item in every]
        items_path = Path(folder, "items.jsonl")
        items_path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        texts_path = write_texts(Path(folder), speed_texts + planted_texts)
        peer = Peer(args.peer_python, "decontaminate_peer.py", texts_path, items_path, checker.settings.ngram)
        speed = compare(peer, checker, speed_texts, args.rounds)
        theirs = peer.ask(start=len(speed_texts), stop=len(speed_texts) + len(planted_texts))["removed"]
        peer.close()
    by_set: dict[str, int] = defaultdict(int, Counter(answer.set for answer in removed))
    result: dict[str, Any] = {
        **machine(),
        "note": args.note,
        "datatrove": peer.ready["version"],
        "settings": {**checker.settings.model_dump(), "folder": args.benchmarks.name},
        "items": {
            "looked_for": checker.num_items,
            "too_short": checker.num_too_short,
            "common": checker.num_common,
            "build_cpu_seconds": build_seconds,
        },
        "recall": {**planted, "theirs": sum(theirs) / len(theirs)},
        "clean": {
            "documents": len(texts),
            "megabytes": sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6,
            "removed": len(removed),
            "removed_by_set": dict(sorted(by_set.items())),
            "examples": [f"{one.set}/{one.item}: {one.coverage:.2f}" for one in removed[:20]],
        },
        "speed": speed,
    }
    write_result(HERE / "results" / "decontaminate.json", result)
    print(f"recall {planted['recall']:.4f} of {planted['planted']} planted from {planted['sets']} sets")
    print(f"recall {planted['framed_recall']:.4f} framed as question and answer")
    print(f"removed {len(removed)} of {len(texts)} clean documents: {dict(by_set)}")
    speeds = f"{speed['ours_megabytes_per_second']:.1f} against {speed['theirs_megabytes_per_second']:.2f}"
    print(f"{speeds} MB/s of processor time: {speed['ratio']:.1f}x")


if __name__ == "__main__":
    main()
