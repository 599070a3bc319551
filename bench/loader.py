"""Claim: tokens a second of the loader against nanochat's, from token shards and from text, in one run, alternating.

    python bench/loader.py --texts ../shared/data/prose ../bench-data/debian --tokenizer FOLDER \\
        --nanochat DIR --nanochat-python PY --nanochat-base BASE

All sides read the same documents from the same parquet shard, in rows of 2,048 tokens, 32 a batch. nanochat has one
loader, which encodes as it goes with its own tokenizer of BASE and crops documents to fill rows; tokens are those that
it hands out. This project's are documents' tokens (row space that stays empty is not counted): from token shards, made
before, and from text that it encodes as it goes. What nobody waits for, in the background, is waited for here.
The start is that of a set of `--start-gigabytes`, whose token files are sparse and whose document boundaries are real,
in a process of its own: opening it, opening its kept plans, and the first batch. Making the plans is timed apart.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_record import machine, peak_bytes, wait_until_quiet, write_result
from peer import Peer
from real_text import texts_up_to

from gradus.core.machine import usable_cores
from gradus.data.live import LiveRows
from gradus.data.loader import RowLoader, TextLoader
from gradus.data.plans import Packing, ShardPlans
from gradus.data.shards import TokenStore
from gradus.data.token_manifest import SetFacts, ShardEntry, SourceCounts, extended_manifest, manifest_path
from gradus.data.token_task import TaskWriter
from gradus.data.token_writer import TokenAppend
from gradus.data.tokenise import tokenise_shards
from gradus.model.batch import Batch
from gradus.tokenizer.loading import load_tokenizer
from gradus.train.memory import keep_freed_memory

HERE = Path(__file__).resolve().parent
SHARD_TOKENS = 1 << 27


def prepare(args: argparse.Namespace) -> Path:
    """One parquet shard with the texts in a fixed mixed order, and a second one that nanochat keeps for validation."""
    folder = args.work / "base_data_climbmix"
    folder.mkdir(parents=True, exist_ok=True)
    shard: Path = folder / "shard_00000.parquet"
    texts = texts_up_to(args.texts, args.megabytes)
    random.Random(0).shuffle(texts)
    for path, part in ((shard, texts), (folder / "shard_99999.parquet", texts[:100])):
        table = pa.table({"text": part, "source": ["real"] * len(part)})
        # As both projects write their corpora.
        options = {"compression": "zstd", "compression_level": 3, "use_dictionary": False, "write_statistics": False}
        pq.write_table(table, path, row_group_size=1024, **options)
    link = args.work / "tokenizer"
    if not link.exists():
        link.symlink_to((args.nanochat_base / "tokenizer").resolve())
    return shard


def timed_steps(batches: Callable[[int], list[Batch]], first: int, number: int) -> dict[str, Any]:
    """Seconds and tokens of steps [first, first + number)."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(batch.num_tokens for step in range(first, first + number) for batch in batches(step))
    seconds, processor = time.perf_counter() - wall, time.process_time() - cpu
    return {"tokens": tokens, "seconds": seconds, "processor_seconds": processor}


def speeds(args: argparse.Namespace, shard: Path) -> dict[str, Any]:
    """Rounds of all three sides."""
    tokenizer = load_tokenizer(args.tokenizer)
    began = time.perf_counter()
    counts, notices = tokenise_shards([shard], args.tokenizer, args.work / "tokens", split="train", generation=1)
    seconds = time.perf_counter() - began
    print(f"tokenised {counts['bytes'] / seconds / 1e6:.1f} MB/s {notices}", flush=True)
    store = TokenStore(args.work / "tokens", "train")
    plans = ShardPlans(store, Packing(args.context))
    shape = {"rows_per_step": args.rows, "micro_rows": args.rows}
    loader = RowLoader(store, plans, seed=1, **shape)
    peer = Peer(
        args.nanochat_python,
        "loader_peer.py",
        *("--nanochat", args.nanochat, "--rows", args.rows, "--context", args.context),
        environment={"NANOCHAT_BASE_DIR": str(args.work.resolve())},
    )
    found: dict[str, list[dict[str, Any]]] = {"nanochat": [], "token shards": [], "on the fly": []}
    with LiveRows([shard], tokenizer, args.context, seed=1) as rows:
        live = TextLoader(rows, **shape)
        live.batches(0)
        steps = {"token shards": 1, "on the fly": 1}
        # As many steps as last about as long as the other side's batches.
        lengths = {"nanochat": args.batches, "token shards": 60 * args.batches, "on the fly": 15 * args.batches}
        for _ in range(args.rounds):
            found["nanochat"].append(peer.ask(batches=lengths["nanochat"]))
            for name, batches in (("token shards", loader.batches), ("on the fly", live.batches)):
                found[name].append(timed_steps(batches, steps[name], lengths[name]))
                steps[name] += lengths[name]
            last = {name: round(parts[-1]["tokens"] / parts[-1]["seconds"] / 1e6, 2) for name, parts in found.items()}
            print("million tokens a second:", last, flush=True)
    peer.close()
    encoded = sum(part["encoded"] for part in found["nanochat"])
    handed_out = sum(part["tokens"] for part in found["nanochat"])
    return {
        "rounds": found,
        "rows": plans.statistics(),
        "nanochat_used_fraction": handed_out / encoded,
        "tokenised_megabytes_per_second": counts["bytes"] / seconds / 1e6,
    }


def medians(rounds: dict[str, list[dict[str, Any]]], seconds: str) -> dict[str, float]:
    """Tokens a second of each side."""
    return {name: statistics.median(p["tokens"] / p[seconds] for p in parts) for name, parts in rounds.items()}


def writing(args: argparse.Namespace, megatokens: int = 200) -> dict[str, float]:
    """Tokens a second of writing shards with their checksums, to the end of the commit."""
    drawn = np.random.default_rng(0)
    ids = [drawn.integers(0, 50_000, size=1000).astype(np.uint32) for _ in range(4000)]
    wall, cpu = time.perf_counter(), time.process_time()
    append = TokenAppend(args.work / "written", "train", SetFacts("stream", 50_001, "0" * 64, 50_000), ["drawn"])
    with TaskWriter(append.tasks[0]) as writer:
        for _ in range(megatokens // 4):
            writer.add(ids, ["drawn"] * len(ids), [4000] * len(ids))
        writer.finish()
    tokens = append.commit()["tokens"]
    seconds, processor = time.perf_counter() - wall, time.process_time() - cpu
    shutil.rmtree(args.work / "written")
    return {"tokens_per_second": tokens / seconds, "tokens_per_processor_second": tokens / processor}


# A large set


def sparse_set(folder: Path, gigabytes: float, mean_tokens: float) -> None:
    """A set whose token files are holes of so many bytes in all and whose document boundaries are drawn at random."""
    facts = SetFacts("stream", 50_000, "0" * 64, 0)
    (folder / "train").mkdir(parents=True)
    drawn = np.random.default_rng(0)
    entries = []
    for number in range(max(1, round(gigabytes * 1e9 / 2 / SHARD_TOKENS))):
        lengths = drawn.lognormal(np.log(mean_tokens) - 0.5, 1.0, int(2 * SHARD_TOKENS / mean_tokens))
        bounds = np.concatenate([[0], np.cumsum(lengths.astype(np.int64) + 1)])
        documents = int(np.searchsorted(bounds, SHARD_TOKENS))
        bounds = bounds[: documents + 1].astype("<u8")
        tokens, name = int(bounds[-1]), f"00000-{number:03d}"
        sizes = {"bin": 2 * (tokens + 1), "idx": bounds.nbytes, "src": 2 * documents}
        bounds.tofile(folder / "train" / f"{name}.idx")
        for suffix in ("bin", "src"):
            with (folder / "train" / f"{name}.{suffix}").open("wb") as file:
                file.truncate(sizes[suffix])
        files = {suffix: {"bytes": size, "sha256": f"{number:064x}"} for suffix, size in sizes.items()}
        source = SourceCounts("drawn", documents, tokens, 4 * tokens)
        entries.append(ShardEntry(name, 0, documents, tokens, (source,), files))
    counts = {"documents": sum(e.documents for e in entries), "tokens": sum(e.tokens for e in entries), "by_source": {}}
    content = extended_manifest(None, facts, entries, tasks=1, append="", counts=counts)
    manifest_path(folder, "train").write_bytes(content)


def start_once(args: argparse.Namespace) -> None:
    """Open the set and load one batch; prints seconds and memory as JSON."""
    keep_freed_memory()
    times = [time.perf_counter()]
    store = TokenStore(args.work / "large", "train")
    times.append(time.perf_counter())
    plans = ShardPlans(store, Packing(args.context), args.work / "large-plans")
    times.append(time.perf_counter())
    loader = RowLoader(store, plans, seed=1, rows_per_step=args.rows, micro_rows=args.rows)
    loader.batches(0)
    times.append(time.perf_counter())
    names = ("open_seconds", "plans_seconds", "first_batch_seconds")
    found: dict[str, Any] = dict(zip(names, np.diff(times).tolist(), strict=True))
    found |= {"seconds": times[-1] - times[0], "shards": len(store.shards), "tokens": store.num_tokens}
    found |= {"documents": store.num_documents, "rows": plans.num_rows, "fill_fraction": plans.fill_fraction}
    found["peak_bytes"] = peak_bytes()
    print(json.dumps(found))


def starts(args: argparse.Namespace) -> dict[str, Any]:
    """The first start of a large set, which makes the plans, and the starts after it."""
    for name in ("large", "large-plans"):
        shutil.rmtree(args.work / name, ignore_errors=True)
    sparse_set(args.work / "large", args.start_gigabytes, args.mean_tokens)
    command = [sys.executable, __file__, "--start-only", "--work", str(args.work), "--context", str(args.context)]
    command += ["--rows", str(args.rows)]
    runs = []
    for _ in range(1 + args.rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
        print("start:", {k: round(v, 3) for k, v in runs[-1].items() if k.endswith("seconds")}, flush=True)
    for name in ("large", "large-plans"):
        shutil.rmtree(args.work / name)
    median = statistics.median(run["seconds"] for run in runs[1:])
    return {"first_with_planning": runs[0], "later": runs[1:], "median_seconds": median}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", default=[], help="folders of .jsonl and .txt files")
    parser.add_argument("--megabytes", type=float, default=1e9, help="of the texts, at most")
    parser.add_argument("--tokenizer", type=Path, help="folder with a tokenizer.json")
    parser.add_argument("--nanochat", type=Path, help="checkout of nanochat")
    parser.add_argument("--nanochat-python", help="python of its environment")
    parser.add_argument("--nanochat-base", type=Path, help="its NANOCHAT_BASE_DIR with a tokenizer")
    parser.add_argument("--work", type=Path, default=HERE / ".work" / "loader", help="for shards; some GB")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--batches", type=int, default=60, help="nanochat's batches in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--start-gigabytes", type=float, default=100)
    parser.add_argument("--mean-tokens", type=float, default=1000, help="of the large set's documents")
    parser.add_argument("--start-only", action="store_true", help="the part that runs in a process of its own")
    parser.add_argument("--wait-quiet", type=float, default=60, help="seconds to wait for an idle machine")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "loader.json")
    args = parser.parse_args()
    if args.start_only:
        start_once(args)
        return
    keep_freed_memory()  # as training does
    shard = prepare(args)
    idle = wait_until_quiet(args.wait_quiet)
    measured = speeds(args, shard)
    wall, processor = (medians(measured["rounds"], name) for name in ("seconds", "processor_seconds"))
    ours = ("token shards", "on the fly")
    result: dict[str, object] = {
        "claim": "tokens a second of the loader against nanochat's",
        "tokens_per_second": wall,
        "tokens_per_processor_second": processor,
        "ratio": {f"{name} over nanochat": wall[name] / wall["nanochat"] for name in ours},
        "ratio_by_processor_time": {f"{name} over nanochat": processor[name] / processor["nanochat"] for name in ours},
        "bars": {
            "token shards over nanochat": 50,
            "on the fly over nanochat": 20,
            "start seconds": 1,
            "used": 0.999,
            "written": 2e7,
        },
        **measured,
        "writing": writing(args),
        "start": starts(args) if args.start_gigabytes else None,
        "threads": usable_cores(),
        "idle_fraction_before": idle,
        **machine(args.nanochat, args.nanochat_python),
    }
    write_result(args.out, result)
    print(
        json.dumps({name: result[name] for name in ("ratio", "ratio_by_processor_time", "rows", "writing")}, indent=1)
    )


if __name__ == "__main__":
    main()
