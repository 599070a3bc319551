"""Raw text to token shards, end to end, against datatrove: the same documents, steps, words and processes.

    python bench/corpus.py --peer-python PEER/bin/python --texts ../shared/data/prose ../bench-data/debian

Steps: language (pycld2), Gopher quality and repetition, near-duplicates (14 x 8 of word 5-grams), tokens of one
tokenizer of 16,384; ours also normalises, divides into train and validation, and writes the corpus with every drop and
a pack plan. The texts are first written as JSON lines of equal size, which both sides read; megabytes are of their
text. Sides alternate; `--words spacy` times the peer with its own English words too (once).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_record import idle_fraction, machine, write_result
from real_text import read_texts

from gradus.data.build import build_corpus
from gradus.data.corpus import SPLITS, corpus_shards, read_corpus
from gradus.data.files import FilesSource
from gradus.data.minhash import MinHashSettings
from gradus.data.prepare import PrepareSettings
from gradus.data.tokenise import tokenise_shards
from gradus.data.worker import run_jobs
from gradus.tokenizer.training import train_tokenizer

HERE = Path(__file__).resolve().parent
SHARDS = 32


def write_shards(folders: list[Path], out: Path) -> tuple[int, int]:
    """The texts in turn over SHARDS files; how many, and their UTF-8 bytes."""
    out.mkdir()
    files = [(out / f"{number:03d}.jsonl").open("w", encoding="utf-8") for number in range(SHARDS)]
    count = size = 0
    for text in read_texts(folders):
        files[count % SHARDS].write(json.dumps({"text": text, "id": str(count)}) + "\n")
        count, size = count + 1, size + len(text.encode("utf-8", "surrogatepass"))
    for file in files:
        file.close()
    return count, size


def ours(shards: Path, work: Path, tokenizer: Path, processes: int) -> dict[str, Any]:
    """Our side: seconds of each step, documents and tokens."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    began = time.perf_counter()
    counts = build_corpus(
        [FilesSource(path=str(shards))],
        work / "corpus",
        roadmap_dir=work,
        settings=PrepareSettings(filters=("english", "gopher"), minhash=MinHashSettings()),
        processes=processes,
    )
    built = time.perf_counter()
    tokens = 0
    for split in SPLITS:
        written, _ = tokenise_shards(
            corpus_shards(work / "corpus", split),
            tokenizer,
            work / "tokens",
            split=split,
            threads=1,
            # As the stage does: the validation side is not worth the start of another process.
            run_jobs=lambda job, jobs, count=processes if split == "train" else 1: run_jobs(  # type: ignore[misc]
                job, jobs, count, work / "log"
            ),
        )
        tokens += written["tokens"]
    ended = time.perf_counter()
    return {
        "seconds": [built - began, ended - built],
        "documents": counts["kept"],
        "tokens": tokens,
        "dropped": counts["dropped"],
    }


def theirs(python: str, shards: Path, work: Path, tokenizer: Path, processes: int, words: str) -> dict[str, Any]:
    """The peer's side."""
    done = subprocess.run(
        [python, str(HERE / "corpus_peer.py"), "--shards", str(shards), "--work", str(work), "--words", words,
         "--tokenizer", str(tokenizer / "tokenizer.json"), "--processes", str(processes)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--words", choices=("whitespace", "spacy"), default="whitespace")
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    result: dict[str, Any] = machine() | {"note": args.note, "idle_fraction_before": idle_fraction()}
    with tempfile.TemporaryDirectory() as scratch:
        shards, tokenizer = Path(scratch, "shards"), Path(scratch, "tokenizer")
        tokenizer.mkdir()
        count, size = write_shards(args.texts, shards)
        build_corpus(
            [FilesSource(path=str(shards / "000.jsonl"))],
            Path(scratch, "some"),
            roadmap_dir=shards,
            validation_fraction=0,
        )
        train_tokenizer((d.text for d in read_corpus(Path(scratch, "some"), "train")), 16_384).save(tokenizer)
        result |= {"documents": count, "megabytes": size / 1e6, "processes": args.processes, "words": args.words}
        sides: dict[str, list[dict[str, Any]]] = {"gradus": [], "datatrove": []}
        for number in range(args.rounds):
            for side in ("gradus", "datatrove")[:: 1 if number % 2 == 0 else -1]:
                work = Path(scratch, side)
                if side == "gradus":
                    one = ours(shards, work, tokenizer, args.processes)
                else:
                    one = theirs(args.peer_python, shards, work, tokenizer, args.processes, args.words)
                one["megabytes_per_second"] = size / 1e6 / sum(one["seconds"])
                print(f"{side}: {one['megabytes_per_second']:.2f} MB/s, {one['documents']:,} documents", flush=True)
                sides[side].append(one)
                shutil.rmtree(work, ignore_errors=True)
    rates = {side: statistics.median(one["megabytes_per_second"] for one in runs) for side, runs in sides.items()}
    result |= {"sides": sides, "ratio": rates["gradus"] / rates["datatrove"]}
    print(f"{result['ratio']:.1f} x datatrove")
    name = "corpus.json" if args.words == "whitespace" else "corpus-spacy.json"
    write_result(HERE / "results" / name, result)


if __name__ == "__main__":
    main()
