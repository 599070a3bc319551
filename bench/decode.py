"""Claim: greedy decoding on a CPU against transformers' generate: same weights, prompts and threads, sides in turn.

A fresh model of 96.5 M parameters of the portable family is saved and loaded by both. Every run decodes `--generate`
tokens behind a prompt of 64, for one row and for eight, its prefill included. Seconds are of the clock and of the
processor: on a machine that others use, compare the latter. All sides' tokens are compared in fp32. Where llama.cpp is
installed, it is a third side: the backend llamacpp, behind the same batch as our own model.

    OMP_NUM_THREADS=2 python bench/decode.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_record import idle_fraction, machine, write_result
from torch import Tensor

from gradus.engine.batching import DecodeBatch, Decoder
from gradus.engine.decoding import GreedyStream
from gradus.engine.llamacpp import LlamaCppModel
from gradus.engine.llamacpp_library import has_llamacpp
from gradus.model.config import model_config
from gradus.model.cost import parameters
from gradus.model.frozen import freeze
from gradus.model.portable import portable_form
from gradus.model.transformer import build_model
from gradus.model.weights import load_model, save_model
from gradus.release.settings import GgufType
from gradus.tokenizer.training import train_tokenizer

HERE = Path(__file__).resolve().parent
SHAPE = {"depth": 12, "width": 640, "num_heads": 10, "num_kv_heads": 10, "head_dim": 64, "mlp_width": 2432}
VOCABULARY, PROMPT = 32_768, 64

Decode = Callable[[Tensor, int], list[list[int]]]


def ours(folder: Path, dtype: torch.dtype, int8: bool = False) -> Decode:
    model = load_model(folder, dtype=dtype)
    freeze(model, int8=int8)
    return batched(model)


def llamacpp(folder: Path, kind: GgufType) -> Decode:
    from gradus.release.gguf_file import write_gguf

    # Any tokenizer: ids are all that is asked for.
    tokenizer = train_tokenizer([(HERE.parent / "LICENSE").read_text()], 400)
    portable = portable_form(load_model(folder))
    assert portable is not None
    file = folder / f"{kind}.gguf"
    write_gguf(file, portable, tokenizer, kind, "bench")
    return batched(LlamaCppModel(file))


def batched(model: Decoder) -> Decode:
    """Greedy decoding as the engine does it."""

    def decode(prompts: Tensor, length: int) -> list[list[int]]:
        streams = [GreedyStream(prompt, length) for prompt in prompts.tolist()]
        batch = DecodeBatch(model, len(streams), VOCABULARY)
        batch.join(streams)
        while batch.num_live:
            batch.step()
        return [stream.tokens for stream in streams]

    return decode


def transformers(folder: Path, dtype: torch.dtype) -> Decode:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()  # type: ignore[no-untyped-call]

    def decode(prompts: Tensor, length: int) -> list[list[int]]:
        with torch.inference_mode():
            out = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=False,
                min_new_tokens=length,
                max_new_tokens=length,
                pad_token_id=0,
            )
        found: list[list[int]] = out[:, prompts.shape[1] :].tolist()
        return found

    return decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "decode.json")
    args = parser.parse_args()
    config = model_config(SHAPE, vocab_size=VOCABULARY, context=1024)
    generator = torch.Generator().manual_seed(0)

    def drawn() -> dict[int, Tensor]:
        """Prompts by their number; new ones in every round, for what was read before may be found again."""
        return {number: torch.randint(VOCABULARY, (number, PROMPT), generator=generator) for number in (1, 8)}

    rows = drawn()
    with tempfile.TemporaryDirectory() as work:
        save_model(Path(work), build_model(config, torch.Generator().manual_seed(0)))
        sides = {
            "gradus fp32": ours(Path(work), torch.float32),
            "transformers fp32": transformers(Path(work), torch.float32),
            "gradus bf16": ours(Path(work), torch.bfloat16),
            "transformers bf16": transformers(Path(work), torch.bfloat16),
            "gradus int8": ours(Path(work), torch.bfloat16, int8=True),
        }
        if has_llamacpp():
            sides |= {f"llamacpp {kind}": llamacpp(Path(work), kind) for kind in ("f32", "bf16", "q8_0")}
    exact = [name for name in sides if name.endswith(("fp32", "f32"))]
    same = all(sides[name](rows[n], 16) == sides[exact[0]](rows[n], 16) for n in rows for name in exact)
    idle = idle_fraction()
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.rounds):
        for number, prompts in drawn().items():
            for name, decode in sides.items():
                began, began_cpu = time.perf_counter(), time.process_time()
                decode(prompts, args.generate)
                times = seconds.setdefault(f"{name}, batch {number}", {"clock": [], "processor": []})
                times["clock"].append(time.perf_counter() - began)
                times["processor"].append(time.process_time() - began_cpu)
    speeds: dict[str, dict[str, float]] = {}
    for name, times in seconds.items():
        tokens = args.generate * int(name.rpartition(" ")[2])
        speeds[name] = {clock: round(tokens / statistics.median(found), 1) for clock, found in times.items()}
        print(name, speeds[name], flush=True)

    def ratio(one: str, other: str) -> dict[str, float]:
        return {clock: round(speeds[one][clock] / speeds[other][clock], 2) for clock in speeds[one]}

    ratios = {
        "bf16, batch 1, over transformers": ratio("gradus bf16, batch 1", "transformers bf16, batch 1"),
        "bf16, batch 8, over transformers": ratio("gradus bf16, batch 8", "transformers bf16, batch 8"),
        "fp32, batch 1, over transformers": ratio("gradus fp32, batch 1", "transformers fp32, batch 1"),
        "int8 over transformers fp32, batch 1": ratio("gradus int8, batch 1", "transformers fp32, batch 1"),
        "int8 over own fp32, batch 1": ratio("gradus int8, batch 1", "gradus fp32, batch 1"),
    }
    if has_llamacpp():
        ratios |= {
            f"llamacpp {kind}, batch {n}, over transformers {precision}": ratio(
                f"llamacpp {kind}, batch {n}", f"transformers {precision}, batch {n}"
            )
            for kind, precision in (("bf16", "bf16"), ("f32", "fp32"), ("q8_0", "bf16"))
            for n in rows
        }
    result: dict[str, Any] = {
        "parameters": parameters(config).total,
        "prompt_tokens": PROMPT,
        "generated_tokens": args.generate,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "same_tokens_in_fp32": same,
        "idle_fraction_before": round(idle, 2),
        "tokens_per_second": speeds,
        "ratios": ratios,
        **machine(),
    }
    print(ratios, "same tokens:", same)
    write_result(args.out, result)


if __name__ == "__main__":
    main()
