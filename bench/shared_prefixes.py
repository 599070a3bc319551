"""Claim: fine-tuning, DPO and GRPO take fewer seconds a step where prefixes that documents share are computed once.

    python bench/shared_prefixes.py --data ../shared/data

The same batches with and without sharing, sides alternating in one run, fp32 or bf16 as the machine computes fastest,
one thread. Conversations: those that quickstart makes; pairs: of `preference`, 16 a step; groups: four conversations,
each eight times, so that prompts are shared and answers are not. GRPO's step holds the passes of policy and reference;
DPO's has no reference. Seconds are the processor's, so that work beside it counts little; the low quartile over steps.
Also stated: the share of the tokens that is computed, and the last losses of both sides.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_record import machine, write_result

from gradus.conversation.formats.hermes import HermesFormat, text_runs
from gradus.conversation.messages import Pair
from gradus.conversation.records import import_records
from gradus.data.loader import PairLoader, RowLoader, batch_of_documents, pair_lengths
from gradus.data.pack import pack_plan, unpacked_plan
from gradus.data.rows import render_pairs, render_pool
from gradus.data.shards import TokenStore
from gradus.data.synthetic.config import ConversationSettings
from gradus.data.synthetic.conversations import conversations
from gradus.model.batch import Batch
from gradus.model.config import model_config
from gradus.model.sharing import share_prefixes
from gradus.model.transformer import Transformer, build_model
from gradus.posttrain.config import DPOSettings
from gradus.posttrain.dpo import dpo_loss
from gradus.posttrain.grpo import ADVANTAGE, GRPOSettings, grpo_loss, with_policy
from gradus.tokenizer.training import train_tokenizer
from gradus.train.config import GuardSettings, OptimizerSettings
from gradus.train.guard import Guard
from gradus.train.losses import Loss, next_token_loss
from gradus.train.memory import keep_freed_memory
from gradus.train.optimizers import build_optimizer
from gradus.train.parallel import World
from gradus.train.precision import compute_dtype
from gradus.train.step import train_step

CPU = torch.device("cpu")
CONTEXT, VOCABULARY, ROWS, GROUP = 512, 768, 4, 8
Complete = Callable[[Batch, Transformer], Batch]
# Without a reference, whose log-probabilities a stage computes once and keeps.
DPO = DPOSettings(loss="simpo", beta=2.0)


def prepared(data: Path, work: Path, steps: int) -> tuple[TokenStore, TokenStore]:
    """Quickstart's conversations and the pairs, rendered by one tokenizer."""
    talk = list(conversations(ConversationSettings(rows=40 * steps), seed=1))
    found = import_records(data / "preference/rasbt_instruction-data-with-preference.json")
    pairs = [row for row in found if isinstance(row, Pair)]
    texts = chain.from_iterable(map(text_runs, [*talk, *(pair.prompt for pair in pairs)]))
    form = HermesFormat(train_tokenizer(texts, VOCABULARY))
    rows, _ = render_pool(talk, form, work / "talk", split="train", row_length=CONTEXT)
    sides, _ = render_pairs(pairs, form, work / "pairs", split="train", row_length=CONTEXT)
    return rows, sides


def groups(store: TokenStore, step: int) -> list[Batch]:
    """Four prompts, each with eight times its answer."""
    documents = np.repeat(np.arange(4 * step, 4 * step + 4), GROUP)
    batch = batch_of_documents(store, documents)
    return [replace(batch, extra={ADVANTAGE: torch.linspace(-1, 1, GROUP).repeat(4)})]


def complete(batch: Batch, model: Transformer) -> Batch:
    """What GRPO's loss needs besides, with the model as its own reference."""
    return with_policy(batch, model, model, 1.0)


def measured(
    name: str, make: Callable[[int], Sequence[Batch]], loss: Loss, complete: Complete | None, *, steps: int
) -> dict[str, Any]:
    """Seconds a step with and without sharing."""
    sides: dict[str, Any] = {}
    for side in ("whole", "shared"):
        model = build_model(
            model_config({"depth": 4, "width": 128, "head_dim": 32}, vocab_size=VOCABULARY, context=CONTEXT),
            torch.Generator().manual_seed(1),
            compute_dtype=compute_dtype("auto", CPU),
        )
        sides[side] = (model, build_optimizer(model, OptimizerSettings()), Guard(GuardSettings(), CPU), [], [])
    computed = all_tokens = 0
    for step in range(steps + 3):
        for side, (model, optimizer, guard, seconds, losses) in sides.items():
            batches = [share_prefixes(b, CPU) if side == "shared" else b for b in make(step)]
            if side == "shared":
                computed += sum(batch.num_computed for batch in batches)
                all_tokens += sum(batch.num_tokens for batch in batches)
            began = time.process_time()
            if complete is not None:
                batches = [complete(batch, model) for batch in batches]
            done = train_step(model, optimizer, batches, loss, step=step, lr_scale=0.1, guard=guard, world=World())
            seconds.append(time.process_time() - began)
            losses.append(float(done.loss_sum / done.count))
    times = {side: statistics.quantiles(found[3][3:], n=4)[0] for side, found in sides.items()}
    result = {
        "step_seconds": times,
        "faster": times["whole"] / times["shared"],
        "computed_fraction": computed / all_tokens,
        "last_losses": {side: found[4][-1] for side, found in sides.items()},
    }
    print(f"{name}: {result['faster']:.2f}x, {result['computed_fraction']:.1%} of the tokens computed", flush=True)
    return result


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20, help="of each side, after three that are not counted")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/shared-prefixes.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as work:
        rows, sides = prepared(args.data, Path(work), args.steps + 3)
        plan = pack_plan(rows.lengths, CONTEXT, mode="whole")
        loader = RowLoader(rows, plan, seed=1, rows_per_step=ROWS, micro_rows=ROWS)
        pairs = PairLoader(sides, unpacked_plan(pair_lengths(sides)), seed=1, pairs_per_step=16, micro_pairs=16)
        answers = grpo_loss(GRPOSettings())
        kinds: dict[str, tuple[Callable[[int], Sequence[Batch]], Loss, Complete | None]] = {
            "sft": (loader.batches, next_token_loss, None),
            "dpo": (pairs.batches, dpo_loss(DPO), None),
            "grpo": (partial(groups, rows), answers, complete),
        }
        found = {name: measured(name, *kind, steps=args.steps) for name, kind in kinds.items()}
    result = {
        "claim": "seconds of a step with prefixes computed once, against the same batches computed whole",
        **machine(),
        "dtype": str(compute_dtype("auto", CPU)),
        "kinds": found,
    }
    write_result(args.out, result)


if __name__ == "__main__":
    main()
