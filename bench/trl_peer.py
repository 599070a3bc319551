"""TRL's side of bench/trl_sft.py, in its own interpreter: SFTTrainer with its defaults, timed step by step.

    PEER_PYTHON bench/trl_peer.py WORK --context 512 --batch-tokens 8192 --steps 20 --precision bf16 [--packing]

Prints JSON: tokens (without padding) and seconds of each step, the last loss, versions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    """Seconds of each step, and the trainer's own count of tokens after it."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []
        self.loss = float("nan")
        self._seconds = 0.0
        self._tokens = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._seconds = time.perf_counter() - self._began

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "num_tokens" in logs and "loss" in logs:
            self.steps.append([logs["num_tokens"] - self._tokens, self._seconds])
            self._tokens, self.loss = logs["num_tokens"], float(logs["loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--batch-tokens", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--precision", choices=("bf16", "fp32"), required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--packing", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = AutoTokenizer.from_pretrained(args.work / "model")
    model = AutoModelForCausalLM.from_pretrained(args.work / "model", dtype=torch.float32)
    rows = load_dataset("json", data_files=str(args.work / "train.jsonl"), split="train")
    lengths = [
        len(tokenizer.apply_chat_template(r["prompt"] + r["completion"], tokenize=True, return_dict=False))
        for r in rows.select(range(min(200, len(rows))))
    ]
    # As many conversations a step as make its tokens; eight at a time are the trainer's default.
    in_a_step = (
        args.batch_tokens // args.context if args.packing else args.batch_tokens // (sum(lengths) // len(lengths))
    )
    accumulation = max(1, round(in_a_step / 8))
    with tempfile.TemporaryDirectory() as out:
        settings = SFTConfig(
            output_dir=out,
            max_length=args.context,
            max_steps=args.steps,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=accumulation,
            gradient_checkpointing=False,
            packing=args.packing,
            bf16=args.precision == "bf16",
            use_cpu=args.device == "cpu",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        clock = Clock()
        trainer = SFTTrainer(
            model=model, args=settings, train_dataset=rows, processing_class=tokenizer, callbacks=[clock]
        )
        trainer.train()
    versions = {name: importlib.metadata.version(name) for name in ("trl", "transformers", "torch")}
    print(json.dumps({"steps": clock.steps, "loss": clock.loss, "versions": versions}))


if __name__ == "__main__":
    main()
