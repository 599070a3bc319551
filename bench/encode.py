"""Claim: encoding against tiktoken's batch path and HF encode_batch_fast, exact ids, in one run, sides alternating.

    python bench/encode.py --tokenizer FOLDER --texts ../shared/data/prose ../bench-data/debian

Each round encodes all texts once with `Encoder` (gigatoken, checks included, arrays of ids) begun anew, so that its
cache is cold, and with tiktoken's `encode_ordinary_batch`; HF gets an even sample, since it is slow. Seconds are of
the wall clock, with processor seconds beside them, since other work may run. Ids of both are compared one by one.
`--memory-megabytes N` also writes token shards of 50 MB and of N MB, in which every 25 megabytes have their own
spelling, in processes of their own, and records the most memory that each held. Without a tokenizer one is trained on
a part of the texts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tiktoken
from bench_record import machine, peak_bytes, wait_until_quiet, write_result
from real_text import texts_up_to

from gradus.core.machine import usable_cores
from gradus.data.document import Document
from gradus.data.tokenise import write_token_shards
from gradus.tokenizer.encoder import open_encoder
from gradus.tokenizer.loading import load_tokenizer
from gradus.tokenizer.tokenizer import Tokenizer, is_hard_for_tiktoken
from gradus.tokenizer.training import train_tokenizer

HERE = Path(__file__).resolve().parent
BATCH_BYTES = 1 << 22


def batches(texts: list[str]) -> list[list[str]]:
    """The texts in batches of about four million characters, as the corpus is encoded."""
    found: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size >= BATCH_BYTES:
            found.append([])
            size = 0
        found[-1].append(text)
        size += len(text)
    return found


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def tiktokens(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """The same tokenizer as tiktoken has it."""
    assert tokenizer._fast is not None
    return tokenizer._fast


def exactness(tokenizer: Tokenizer, texts: list[str]) -> dict[str, int]:
    """Ids compared one by one with tiktoken's. Exits where any differs."""
    encoder, tokens = open_encoder(tokenizer, "gigatoken"), 0
    for batch in batches(texts):
        found = encoder.encode(batch)
        expected = tiktokens(tokenizer).encode_ordinary_batch(batch, num_threads=usable_cores())
        for ids, other in zip(found, expected, strict=True):
            if not np.array_equal(ids, other):
                sys.exit("ids differ: nothing to time")
            tokens += len(ids)
    return {"tokens": tokens, "different": 0}


def respelled(text: str, number: int) -> str:
    """The text with its letters exchanged: as many words as before, none of them seen before."""
    letters = list(string.ascii_lowercase)
    random.Random(number).shuffle(letters)
    exchanged = "".join(letters)
    return text.translate(str.maketrans(string.ascii_letters, exchanged + exchanged.upper()))


def memory_run(args: argparse.Namespace) -> None:
    """Write token shards of respelled texts; prints the most memory that this process held."""
    tokenizer = load_tokenizer(args.tokenizer)
    parts = batches(texts_up_to(args.texts, 25))

    def documents() -> Iterator[Document]:
        number, done = 0, 0.0
        while done < args.memory_megabytes:
            for text in parts[number % len(parts)]:
                text = respelled(text, number // len(parts))
                done += len(text.encode()) / 1e6
                yield Document(text, "", "respelled")
            number += 1

    with tempfile.TemporaryDirectory(dir=args.out.parent) as out:
        counts = write_token_shards(
            documents(), tokenizer, Path(out), split="train", encoder=open_encoder(tokenizer, "gigatoken")
        )
    print(json.dumps({"megabytes": counts["bytes"] / 1e6, "most_bytes": peak_bytes()}))


def memory(args: argparse.Namespace) -> dict[str, object]:
    """What 50 MB and the size asked for need."""
    found = []
    for size in (50.0, args.memory_megabytes):
        command = [
            sys.executable,
            __file__,
            "--memory-only",
            "--tokenizer",
            str(args.tokenizer),
            "--out",
            str(args.out),
        ]
        command += ["--memory-megabytes", str(size), "--texts", *map(str, args.texts)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        found.append(json.loads(done.stdout))
    return {"runs": found, "growth": found[1]["most_bytes"] / found[0]["most_bytes"] - 1}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="folders of .jsonl and .txt files")
    parser.add_argument("--megabytes", type=float, default=1e9, help="of the texts, at most")
    parser.add_argument("--tokenizer", type=Path, help="folder with a tokenizer.json; made here where there is none")
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hf-megabytes", type=float, default=15)
    parser.add_argument("--memory-megabytes", type=float, default=0)
    parser.add_argument("--memory-only", action="store_true", help="the part that runs in a process of its own")
    parser.add_argument("--wait-quiet", type=float, default=60, help="seconds to wait for an idle machine")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "encode.json")
    args = parser.parse_args()
    if args.memory_only:
        memory_run(args)
        return
    texts = texts_up_to(args.texts, args.megabytes)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    if args.tokenizer is None:
        args.tokenizer = HERE / ".work" / "tokenizer"
    if not (args.tokenizer / "tokenizer.json").exists():
        args.tokenizer.mkdir(parents=True, exist_ok=True)
        train_tokenizer(random.Random(0).sample(texts, len(texts) // 8), args.vocab_size).save(args.tokenizer)
    tokenizer = load_tokenizer(args.tokenizer)
    easy = [text for text in texts if not is_hard_for_tiktoken(text)]
    step = max(1, round(megabytes / args.hf_megabytes))
    sample = easy[::step]
    sample_megabytes = sum(len(text.encode()) for text in sample) / 1e6
    print(f"{len(texts):,} texts, {megabytes:.0f} MB; HF gets {sample_megabytes:.1f} MB of them", flush=True)
    exact = exactness(tokenizer, easy)
    cores = usable_cores()
    reference = tokenizer._reference

    def ours() -> None:
        encoder = open_encoder(tokenizer, "gigatoken")
        for batch in batches(easy):
            encoder.encode(batch)

    sides: dict[str, tuple[Callable[[], object], float]] = {
        "gradus": (ours, megabytes),
        "tiktoken batch": (
            lambda: [tiktokens(tokenizer).encode_ordinary_batch(b, num_threads=cores) for b in batches(easy)],
            megabytes,
        ),
        "hf encode_batch_fast": (
            lambda: [reference.encode_batch_fast(b, add_special_tokens=False) for b in batches(sample)],
            sample_megabytes,
        ),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    idle = wait_until_quiet(args.wait_quiet)
    for _ in range(args.rounds):
        for name, (work, size) in sides.items():
            wall, cpu = timed(work)
            rates[name].append(size / wall)
            processor[name].append(size / cpu)
            print(f"{name}: {rates[name][-1]:.1f} MB/s, {processor[name][-1]:.1f} MB a processor second", flush=True)
    median = {name: statistics.median(values) for name, values in rates.items()}
    median_processor = {name: statistics.median(values) for name, values in processor.items()}
    others = ("tiktoken batch", "hf encode_batch_fast")
    result: dict[str, object] = {
        "claim": "encoding with exact ids, MB of UTF-8 a second",
        "megabytes_per_second": median,
        "megabytes_per_second_by_round": rates,
        "megabytes_per_processor_second": median_processor,
        "ratio": {f"gradus over {name}": median["gradus"] / median[name] for name in others},
        "ratio_by_processor_time": {
            f"gradus over {name}": median_processor["gradus"] / median_processor[name] for name in others
        },
        "bars": {"gradus over tiktoken batch": 5, "gradus over hf encode_batch_fast": 20, "memory growth": 0.1},
        "ids": exact,
        "texts": {"documents": len(texts), "megabytes": megabytes, "hf_megabytes": sample_megabytes},
        "tokenizer": {"vocab_size": tokenizer.vocab_size, "encoder": open_encoder(tokenizer, "gigatoken").name},
        "threads": cores,
        "idle_fraction_before": idle,
        **machine(),
    }
    if args.memory_megabytes:
        result["memory"] = memory(args)
    write_result(args.out, result)
    print(
        json.dumps(
            {key: result[key] for key in ("ratio", "ratio_by_processor_time", "memory") if key in result}, indent=1
        )
    )


if __name__ == "__main__":
    main()
