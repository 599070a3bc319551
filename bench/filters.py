"""Gopher and FineWeb filters against datatrove: agreement on real text and speed per process, in alternating rounds.

    python bench/filters.py --peer-python PEER/bin/python --texts ../shared/data/prose ../bench-data/debian

Both sides judge the same documents with the same words (white space) and thresholds, one process and one thread each;
the pair is quality, then repetition on what it kept. Speeds are compared by processor time, since other work may run.
`--golden FILE` instead writes the fixture of tests/data/test_filter_golden.py.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench_record import machine, write_result
from peer import Peer
from real_text import read_texts

from gradus.data.filters.filter import Filter, Reason, first_reasons
from gradus.data.filters.table import filter_named

HERE = Path(__file__).resolve().parent
PAIR = ("quality", "repetition")
OURS = {"quality": "gopher_quality", "repetition": "gopher_repetition", "fineweb": "fineweb"}
# The same rule by its two names.
SAME_RULES = {
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words",
    "gopher_too_many_hashes": "hashes",
    "gopher_too_many_ellipsis": "ellipses",
    "gopher_too_many_bullets": "bullet_lines",
    "gopher_too_many_end_ellipsis": "ellipsis_lines",
    "gopher_below_alpha_threshold": "few_letters",
    "gopher_enough_stop_words": "few_stop_words",
    "empty": "empty",
    "dup_para_frac": "duplicate_paragraphs",
    "dup_para_char_frac": "duplicate_paragraph_characters",
    "dup_line_frac": "duplicate_lines",
    "dup_line_char_frac": "duplicate_line_characters",
    **{f"top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"duplicate_{n}_grams" for n in range(5, 11)},
    "line_punct_ratio": "unpunctuated_lines",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "duplicate_characters",
    "list_ratio": "line_feeds",
}


def judge(filters: list[Filter[Any]], texts: list[str]) -> dict[str, Any]:
    """What `filters_peer.py` answers, of our side."""
    began, cpu_began = time.perf_counter(), time.process_time()
    reasons = first_reasons(filters, texts)
    cpu, wall = time.process_time() - cpu_began, time.perf_counter() - began
    return {"seconds": wall, "cpu_seconds": cpu, "reasons": [rule(reason) for reason in reasons]}


def rule(reason: Reason | None) -> str | None:
    """A reason's name without the filter's."""
    return reason.name.partition(".")[2] if reason else None


def compare(peer: Peer, names: tuple[str, ...], texts: list[str], rounds: int) -> dict[str, Any]:
    """Speeds and agreement of one filter, or of several in turn."""
    filters = [filter_named(OURS[name]) for name in names]
    judge(filters, texts[:50])
    peer.ask(filters=names, start=0, stop=50)
    ours: list[str | None] = []
    theirs: list[str | None] = []
    cpu: dict[str, list[float]] = {"ours": [], "theirs": []}
    wall: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        start, stop = len(texts) * number // rounds, len(texts) * (number + 1) // rounds
        # Whoever goes first changes, so that neither always has the warmer or the busier machine.
        order = ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours")
        for side in order:
            answer = (
                judge(filters, texts[start:stop]) if side == "ours" else peer.ask(filters=names, start=start, stop=stop)
            )
            cpu[side].append(answer["cpu_seconds"])
            wall[side].append(answer["seconds"])
            (ours if side == "ours" else theirs).extend(answer["reasons"])
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    pairs = list(zip(ours, theirs, strict=True))
    same = sum((one is None) == (other is None) for one, other in pairs)
    same_rule = sum(one == (other and SAME_RULES[other]) for one, other in pairs)
    different = Counter(f"{one} / {other}" for one, other in pairs if one != (other and SAME_RULES[other]))
    return {
        "agreement": same / len(pairs),
        "agreement_on_the_rule": same_rule / len(pairs),
        "differences": dict(different.most_common(20)),
        "kept_fraction": sum(one is None for one in ours) / len(pairs),
        "reasons": dict(Counter(str(one) for one in ours).most_common()),
        **{
            side: {
                "documents_per_second": len(texts) / sum(cpu[side]),
                "megabytes_per_second": size / 1e6 / sum(cpu[side]),
                "wall_seconds": sum(wall[side]),
            }
            for side in ("ours", "theirs")
        },
        "ratio": sum(cpu["theirs"]) / sum(cpu["ours"]),
        "ratio_median_of_rounds": statistics.median(t / o for o, t in zip(cpu["ours"], cpu["theirs"], strict=True)),
        "ratio_by_wall_clock": sum(wall["theirs"]) / sum(wall["ours"]),
    }


def golden_texts(seed: int) -> list[str]:
    """Texts that fall on both sides of every rule: few to many words, lines and phrases that repeat or do not."""
    draw = random.Random(seed)
    words = "the of and to with be that have a river stone window letter morning engine paper garden winter"
    plain = words.split()
    texts = [
        "",
        "\n\n",
        " ",
        "one",
        "word " * 60,
        "- a\n" * 60,
        "the end...\n" * 5 + "and so to that be with more\n" * 50,
    ]
    for _ in range(150):
        known = plain + [f"{draw.choice(plain)}{draw.randrange(500)}" for _ in range(draw.randrange(1, 200))]
        known += draw.choices(
            ["#", "...", "-", "=", "42", "«x»", "—", "1.5", "naïve", "x" * 40], k=draw.randrange(0, 40)
        )
        phrases = [" ".join(draw.choices(known, k=draw.randrange(1, 14))) for _ in range(draw.randrange(3, 40))]
        phrases += [f"{draw.choice(['- ', '• ', '  - '])}{phrase}" for phrase in phrases[: draw.choice([0, 0, 30])]]
        ends = draw.choice([["."], [".", ""], [""], ["...", "", "."], ["?", "。", ""]])
        breaks = draw.choice([["\n"], ["\n\n"], [" "], [" ", "\n", "\n\n", "\n\n\n"]])
        count = draw.randrange(4, 45)
        chosen = draw.choices(phrases, k=count) if draw.random() < 0.5 else (phrases * 2)[:count]
        texts.append("".join(phrase + draw.choice(ends) + draw.choice(breaks) for phrase in chosen))
    return texts


def write_golden(python: str, path: Path) -> None:
    """What datatrove says of made-up texts, as the fixture that the tests read."""
    texts = golden_texts(seed=3)
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(python, "filters_peer.py", write_texts(Path(folder), texts))
        verdicts = {name: peer.ask(filters=(name,), start=0, stop=len(texts))["reasons"] for name in OURS}
        peer.close()
    named = {OURS[name]: [reason and SAME_RULES[reason] for reason in reasons] for name, reasons in verdicts.items()}
    content = {"datatrove": peer.ready["version"], "words": "whitespace", "verdicts": named, "texts": texts}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    for name, reasons in named.items():
        print(name, Counter(str(reason) for reason in reasons).most_common())


def write_texts(folder: Path, texts: list[str]) -> Path:
    """One text a line, as JSON."""
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    return path


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="a Python that has datatrove")
    parser.add_argument("--texts", type=Path, nargs="+", help="folders with .jsonl or .jsonl.gz files (key text)")
    parser.add_argument("--documents", type=int, default=4000, help="how many to draw")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--note", default="", help="kept in the result")
    parser.add_argument("--golden", type=Path, help="write the tests' fixture there and stop")
    args = parser.parse_args()
    if args.golden:
        write_golden(args.peer_python, args.golden)
        return
    texts = list(read_texts(args.texts))
    random.Random(args.seed).shuffle(texts)
    texts = texts[: args.documents]
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(args.peer_python, "filters_peer.py", write_texts(Path(folder), texts))
        result: dict[str, Any] = {
            **machine(),
            "note": args.note,
            "datatrove": peer.ready["version"],
            "documents": len(texts),
            "megabytes": sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6,
            "gopher_pair": compare(peer, PAIR, texts, args.rounds),
            **{OURS[name]: compare(peer, (name,), texts, args.rounds) for name in OURS},
        }
        peer.close()
    write_result(HERE / "results" / "filters.json", result)
    for name in ("gopher_pair", *OURS.values()):
        figures = result[name]
        agreed = f"agreement {figures['agreement']:.4f} (rule {figures['agreement_on_the_rule']:.4f})"
        speeds = " against ".join(f"{figures[side]['megabytes_per_second']:.2f}" for side in ("ours", "theirs"))
        print(f"{name}: {agreed}, {speeds} MB/s of processor time: {figures['ratio']:.1f}x")


if __name__ == "__main__":
    main()
