"""Claim: supervised fine-tuning against TRL's SFTTrainer: same weights, conversations, ids, threads; sides alternating.

Conversations of one question and one answer are imported from `--conversations` (any record shape that `gradus` takes),
those longer than a row are left out, and the rest is written once as prompt and completion, which TRL trains as they
are: by its defaults the loss counts the completion only, as ours does. The model is a fresh `--depth` one of the
portable family, saved and loaded by both. Tokens are those of conversations, without padding; a side's figure is the
median over its steps after warm-up, as each times its own step. TRL pads rows to the longest of a micro-batch; with
packing it fills rows without keeping conversations apart (that needs a GPU), which is shown too.

    python bench/trl_sft.py --peer-python PEER/bin/python --conversations ../shared/data/instruct_small
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench_record import machine, wait_until_quiet, write_result

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation
from gradus.conversation.records import import_records
from gradus.core.machine import usable_cores
from gradus.tokenizer.loading import load_tokenizer
from gradus.tokenizer.training import train_tokenizer

HERE = Path(__file__).resolve().parent
WARM_UP_STEPS = 3


def conversations(folder: Path) -> Iterator[Conversation]:
    """One question and one answer each, from every file of a folder."""
    for path in sorted(folder.iterdir()):
        if ".json" not in path.name:
            continue
        for found in import_records(path):
            if isinstance(found, Conversation) and [m.role for m in found.messages] == ["user", "assistant"]:
                yield found


def prepare(folder: Path, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The tokenizer, the model and the conversations that both sides load; what was prepared."""
    import torch

    from gradus.model.config import model_config
    from gradus.model.transformer import build_model
    from gradus.model.weights import save_model

    found = list(conversations(folder))
    texts = [message.content for conversation in found for message in conversation.messages]
    tokenizer = train_tokenizer(texts, args.vocab_size)
    form = HermesFormat(tokenizer)
    config = model_config(f"d{args.depth}", vocab_size=tokenizer.vocab_size, context=args.context)
    (work / "model").mkdir()
    save_model(work / "model", build_model(config, torch.Generator().manual_seed(0)))
    tokenizer.save(work / "model", chat_template=form.chat_template)
    kept = [c for c in found if len(form.render(c).ids) <= args.context]
    with (work / "train.jsonl").open("w", encoding="utf-8") as file:
        for conversation in kept:
            prompt, answer = ({"role": m.role, "content": m.content} for m in conversation.messages)
            file.write(json.dumps({"prompt": [prompt], "completion": [answer]}) + "\n")
    tokens = sum(len(form.render(c).ids) for c in kept)
    return {"conversations": len(kept), "too_long": len(found) - len(kept), "mean_tokens": tokens / len(kept)}


def ours(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Our side, in a process of its own: tokens and seconds of each step."""
    import torch

    from gradus.data.loader import RowLoader
    from gradus.data.pack import pack_plan
    from gradus.data.prefetch import Prefetch
    from gradus.data.rows import render_pool
    from gradus.model.batch import Batch
    from gradus.model.weights import load_model
    from gradus.train.config import OptimizerSettings, ScheduleSettings
    from gradus.train.loop import fit
    from gradus.train.losses import next_token_loss
    from gradus.train.optimizers import build_optimizer
    from gradus.train.parallel import World
    from gradus.train.schedule import Schedule
    from gradus.train.sharding import can_compile, prepare_model

    torch.set_num_threads(usable_cores())
    tokenizer = load_tokenizer(work / "model")
    device = torch.device(args.device)
    prepare = partial(prepare_model, world=World(), compile=can_compile(device))
    model = load_model(work / "model", device, prepare=prepare)
    lines = (work / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    with tempfile.TemporaryDirectory() as out:
        store, _ = render_pool(
            (Conversation.from_json({"messages": row["prompt"] + row["completion"]}) for row in rows),
            HermesFormat(tokenizer),
            Path(out),
            split="train",
            row_length=args.context,
        )
        plan = pack_plan(store.lengths, args.context, mode="whole")
        per_step = max(1, args.batch_tokens // args.context)
        loader = RowLoader(store, plan, seed=0, rows_per_step=per_step, micro_rows=per_step)

        def batches(step: int) -> list[Batch]:
            made = loader.batches(step)
            return [batch.pinned() for batch in made] if device.type == "cuda" else list(made)

        with Prefetch(batches) as ahead:
            reports = fit(
                model,
                build_optimizer(model, OptimizerSettings()),
                ahead,
                next_token_loss,
                Schedule(ScheduleSettings(), args.steps),
                steps=args.steps,
                checkpoints=None,
                log_every=1,
                precision=args.precision,
            )
            steps, tokens, began = [], 0, time.perf_counter()
            for report in reports:
                now = time.perf_counter()
                steps.append([report.tokens - tokens, now - began])
                tokens, began = report.tokens, time.perf_counter()
    return {"steps": steps, "loss": report.loss, "fill": plan.statistics()["fill_fraction"]}


def run_side(command: list[str]) -> dict[str, Any]:
    """The last line that a side printed, as JSON."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def precisions(args: argparse.Namespace) -> tuple[str, ...]:
    """Both are measured where it is not clear which is faster."""
    return ("bf16", "fp32") if args.device == "cpu" else ("bf16",)


def sides(work: Path, args: argparse.Namespace) -> dict[str, list[str]]:
    """The command of each side."""
    shape = ["--context", str(args.context), "--batch-tokens", str(args.batch_tokens), "--steps", str(args.steps)]
    shape += ["--device", args.device]
    found = {}
    for precision in precisions(args):
        own = [sys.executable, str(HERE / "trl_sft.py"), "--ours", str(work), *shape, "--precision", precision]
        found[f"gradus {precision}"] = own
        peer = [args.peer_python, str(HERE / "trl_peer.py"), str(work), *shape, "--precision", precision]
        found[f"trl {precision}"] = peer
        found[f"trl {precision} packed"] = [*peer, "--packing"]
    return found


def rate(answer: dict[str, Any]) -> float:
    """Tokens a second: all tokens after the warm-up over all seconds, so that no step's size matters."""
    steps = answer["steps"][WARM_UP_STEPS:]
    return float(sum(tokens for tokens, _ in steps) / sum(seconds for _, seconds in steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python that has trl")
    parser.add_argument("--conversations", type=Path)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--wait-quiet", type=float, default=60)
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "trl-sft.json")
    args = parser.parse_args()
    if args.ours is not None:
        print(json.dumps(ours(args.ours, args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        prepared = prepare(args.conversations, work, args)
        print(prepared, flush=True)
        idle = wait_until_quiet(args.wait_quiet)
        rates: dict[str, list[float]] = {}
        versions: dict[str, str] = {}
        for _ in range(args.rounds):
            for name, command in sides(work, args).items():
                answer = run_side(command)
                rates.setdefault(name, []).append(rate(answer))
                versions |= answer.get("versions", {})
                print(f"{name}: {rates[name][-1]:,.0f} tok/s, loss {answer['loss']:.3f}", flush=True)
    median = {name: statistics.median(values) for name, values in rates.items()}
    best = {side: max(v for name, v in median.items() if name.startswith(side)) for side in ("gradus", "trl")}
    result = {
        "claim": "supervised fine-tuning, tokens of conversations a second",
        "tokens_per_second": median,
        "tokens_per_second_by_round": rates,
        "ratio": best["gradus"] / best["trl"],
        "ratio_by_precision": {p: median[f"gradus {p}"] / median[f"trl {p}"] for p in precisions(args)},
        "bar": 3,
        "data": prepared,
        "shape": {k: getattr(args, k) for k in ("depth", "vocab_size", "context", "batch_tokens", "steps")},
        "idle_fraction_before": idle,
        "peer_versions": versions,
        **machine(),
    }
    write_result(args.out, result)
    print(json.dumps({k: result[k] for k in ("ratio", "ratio_by_precision")}, indent=1))


if __name__ == "__main__":
    main()
