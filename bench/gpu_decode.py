"""One side of the part `decode` of bench/gpu.py, in a process of its own. Prints one line of JSON.

    python bench/gpu_decode.py SIDE JOB    SIDE: gradus, compiled, transformers; JOB: JSON of `DecodeJob`

All sides decode greedily with fresh weights of one shape, in bf16 (fp32 on a CPU): so many rows behind prompts of equal
length, prompts included in the time, as the fastest of some runs after one to warm up. compiled is ours with compiled
steps (`gradus serve --compile`), its graphs captured anew in every run, as the engine does for every batch;
transformers is the Hub's class by its `generate`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from bench_record import peak_bytes
from gpu_sides import ModelJob, hub_model, wait
from torch import Tensor

from gradus.engine.batching import DecodeBatch
from gradus.engine.compiled import compile_steps
from gradus.engine.decoding import GreedyStream
from gradus.model.cost import parameters
from gradus.model.frozen import freeze
from gradus.model.transformer import Transformer, build_model

Decode = Callable[[Tensor], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class DecodeJob(ModelJob):
    """batches: rows decoded together; prompt, generate: tokens of each; runs: timed, of each."""

    batches: list[int]
    prompt: int
    generate: int
    runs: int


def own_model(job: DecodeJob) -> Transformer:
    """Ours, ready to decode as `load_engine` makes it."""
    model = build_model(job.config, torch.Generator().manual_seed(0), job.device).to(job.dtype)
    model.compute_dtype = job.dtype
    freeze(model)
    return model


def own_decode(job: DecodeJob, model: Transformer) -> Decode:
    def decode(prompts: Tensor) -> list[list[int]]:
        streams = [GreedyStream(prompt, job.generate) for prompt in prompts.tolist()]
        batch = DecodeBatch(model, len(streams), job.vocab_size)
        batch.join(streams)
        while batch.num_live:
            batch.step()
        return [stream.tokens for stream in streams]

    return decode


def hub_decode(job: DecodeJob) -> Decode:
    model = hub_model(job).to(job.dtype).eval()

    def decode(prompts: Tensor) -> list[list[int]]:
        prompts = prompts.to(job.device)
        lengths = {"min_new_tokens": job.generate, "max_new_tokens": job.generate}
        with torch.inference_mode():
            out = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=False, pad_token_id=0, **lengths
            )
        found: list[list[int]] = out[:, prompts.shape[1] :].tolist()
        return found

    return decode


def prompts_of(job: DecodeJob, rows: int) -> Tensor:
    """(rows, prompt) int64 on the host."""
    return torch.randint(job.vocab_size, (rows, job.prompt), generator=torch.Generator().manual_seed(rows))


def measure(side: str, job: DecodeJob) -> dict[str, Any]:
    """The figures by name, units in the names."""
    found: dict[str, Any] = {"side": side, "parameters": parameters(job.config).total}
    if side == "transformers":
        decode = hub_decode(job)
    else:
        model = own_model(job)
        decode = own_decode(job, model)
        if side == "compiled":
            prompts = prompts_of(job, max(job.batches))
            plain = decode(prompts)
            began = time.perf_counter()
            compile_steps(model)
            found["compile_seconds"] = time.perf_counter() - began
            # In bf16 a tie may fall the other way, and all that follows it.
            alike = [mine == theirs for mine, theirs in zip(decode(prompts), plain, strict=True)]
            found["alike_fraction"] = sum(alike) / len(alike)
    for rows in job.batches:
        prompts = prompts_of(job, rows)
        decode(prompts)
        seconds = []
        for _ in range(job.runs):
            wait(job)
            began = time.perf_counter()
            decode(prompts)
            wait(job)
            seconds.append(time.perf_counter() - began)
        found[f"tokens_per_second_of_{rows}"] = rows * job.generate / min(seconds)
    on_gpu = job.device == "cuda"
    found["peak_allocated_bytes"] = torch.cuda.max_memory_allocated() if on_gpu else peak_bytes()
    return found


def main() -> None:
    """Run from the command line, by bench/gpu.py."""
    print(json.dumps(measure(sys.argv[1], DecodeJob(**json.loads(sys.argv[2])))))


if __name__ == "__main__":
    main()
