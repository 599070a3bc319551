"""Claim: log-likelihood tasks against lm-eval's own transformers backend, same folder, items, threads, sides in turn.

A fresh `--depth` model of the portable family and a tokenizer trained on WikiText-2 are saved once and loaded by
both. Each side is asked the first `--items` items of each task, lm-eval by its own task files over the local data
sets, once for each of `--batch-sizes` (its default is 1); `times_best` compares with the best of them. A side's
figure is items a second of processor time, from texts to log-likelihoods and without loading, so that what else the
machine does counts for neither. The log-likelihoods of both are compared too. `arithmetic_times` is by how much less
has to be multiplied where a shared beginning is read once and the head is worked out for the told tokens alone, lm-
eval's batch of one holding no padding: beyond it nothing but better use of the processor is to be had.

    python bench/lm_eval_throughput.py --peer-python PEER/bin/python --data ../shared/data
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_record import idle_fraction, machine, write_result
from peer import Peer

from gradus.conversation.formats.hermes import HermesFormat
from gradus.engine.load import load_engine
from gradus.eval.task_run import answers_of
from gradus.eval.tasks import asked, task_items_of
from gradus.model.cost import parameters
from gradus.tokenizer.training import train_tokenizer

TASKS = ("arc_easy", "hellaswag", "piqa", "mmlu", "mmlu_5shot")
HERE = Path(__file__).resolve().parent
SUBJECT = "us_foreign_policy"


def prepare(folder: Path, args: argparse.Namespace) -> None:
    """The model folder that both sides load."""
    import torch

    from gradus.model.config import model_config
    from gradus.model.transformer import build_model
    from gradus.model.weights import save_model

    text = gzip.decompress((args.data / "wikitext2/valid.txt.gz").read_bytes()).decode()
    tokenizer = train_tokenizer(text.split("\n"), args.vocab_size)
    config = model_config({"preset": f"d{args.depth}", "init": "xavier"}, tokenizer.vocab_size, args.context)
    save_model(folder, build_model(config, torch.Generator().manual_seed(0)))
    tokenizer.save(folder, chat_template=HermesFormat(tokenizer).chat_template)


def texts_of(task: str, args: argparse.Namespace) -> list[Any]:
    """The items that both sides are asked."""
    found = task_items_of(task, args.data)
    return [pair for pair in found if not task.startswith("mmlu") or SUBJECT in pair[0]][: args.items]


def ours(engine: Any, task: str, args: argparse.Namespace) -> tuple[float, list[list[float]]]:
    """(seconds, log-likelihoods) of one task."""
    texts = texts_of(task, args)
    began = time.process_time()
    answers = answers_of(engine.model, asked(texts, engine.tokenizer))
    return time.process_time() - began, [[answer.logp for answer in found] for found in answers]


def arithmetic_times(items: list[Any], config: Any) -> float:
    """Products of lm-eval at one item a batch by those that cannot be avoided, attention's own left out.

    lm-eval scores answers of one token to the same context in one pass.
    """
    head = config.width * config.vocab_size
    body = parameters(config).total - head * (1 if config.tie_embeddings else 2)
    theirs = least = 0
    for item in items:
        lengths = [len(one.context) + len(one.tokens) - 1 for one in item.question]
        once = all(len(one.tokens) == 1 for one in item.question)
        theirs += (lengths[0] if once else sum(lengths)) * (body + head)
        told = sum(len(one.tokens) for one in item.question)
        shared = len(item.question[0].context)
        heads = 1 if once else told
        least += (shared + told - len(item.question)) * body + heads * head
    return theirs / least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results/lm_eval_throughput.json")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), args)
        engine = load_engine(name)
        peer = Peer(
            args.peer_python, "lm_eval_throughput_peer.py", name, args.data.resolve(), args.items, args.threads,
            environment={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads)},
        )  # fmt: skip
        tasks: dict[str, Any] = {}
        for task in TASKS:
            own: list[float] = []
            logp: list[list[float]] = []
            questions = asked(texts_of(task, args), engine.tokenizer)
            theirs: dict[int, list[float]] = {size: [] for size in args.batch_sizes}
            most = 0.0
            for _ in range(args.rounds):
                seconds, logp = ours(engine, task, args)
                own.append(len(logp) / seconds)
                for size in args.batch_sizes:
                    answer = peer.ask(task=task, batch_size=size)
                    theirs[size].append(len(logp) / answer["seconds"])
                    most = max(most, *(abs(a - b) for x, y in zip(logp, answer["logp"], strict=True)
                                       for a, b in zip(x, y, strict=True)))  # fmt: skip
            rate = statistics.median(own)
            rates = {size: statistics.median(found) for size, found in theirs.items()}
            best = max(rates.values())
            tasks[task] = {
                "times_best": rate / best, "arithmetic_times": arithmetic_times(questions, engine.model.config),
                "gradus_items_per_second": rate, "greatest_difference_nats": most,
                "lm_eval": {size: {"items_per_second": other, "times": rate / other} for size, other in rates.items()},
            }  # fmt: skip
            print(task, tasks[task], flush=True)
        result = machine() | {
            "peer": peer.ready, "idle_fraction_after": idle_fraction(), "tasks": tasks,
            "settings": {k: getattr(args, k) for k in ("items", "rounds", "depth", "vocab_size", "context", "threads")},
        }  # fmt: skip
        peer.close()
    write_result(args.out, result)


if __name__ == "__main__":
    main()
