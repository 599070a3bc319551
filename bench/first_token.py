"""Claim: the first token behind a prompt whose beginning was read before comes within 100 ms on a CPU.

A fresh model of 96.5 M parameters of the portable family answers through `EngineService`: a prompt of 2,048 tokens,
then prompts that begin with it and end in a question of `--question` tokens of their own, and in turn others of that
length that are read anew. Besides, how long a stream that is decoding waits for its next token while a prompt of 2,048
tokens is read. Seconds are of the clock and of the processor: where others use the machine, compare the latter.

    OMP_NUM_THREADS=2 python bench/first_token.py
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from bench_record import idle_fraction, machine, write_result

from gradus.conversation.formats.hermes import HermesFormat
from gradus.engine.batching import DecodeBatch
from gradus.engine.continuation import Beginning, Continued
from gradus.engine.decoding import GreedyStream
from gradus.engine.engine import Engine
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.sampling import GREEDY
from gradus.engine.service import EngineService, Failed, ServiceEvent
from gradus.model.config import model_config
from gradus.model.cost import parameters
from gradus.model.frozen import freeze
from gradus.model.transformer import build_model
from gradus.tokenizer.training import train_tokenizer
from gradus.tools.toolbox import ToolBox

HERE = Path(__file__).resolve().parent
SHAPE = {"depth": 12, "width": 640, "num_heads": 10, "num_kv_heads": 10, "head_dim": 64, "mlp_width": 2424}
VOCABULARY, PREFIX = 32_768, 2048

Times = tuple[float, float]


def service(dtype: torch.dtype, int8: bool, num_slots: int) -> EngineService:
    config = model_config(SHAPE, vocab_size=VOCABULARY, context=4096)
    model = build_model(config, torch.Generator().manual_seed(0), compute_dtype=dtype)
    freeze(model.to(dtype), int8=int8)
    # Tokens come as ids; the tokenizer is there for what is said.
    tokenizer = train_tokenizer(["a few words to begin with"], vocab_size=280)
    return EngineService(Engine(model, tokenizer, HermesFormat(tokenizer), ToolBox()), num_slots=num_slots)


def now() -> Times:
    """Seconds of the clock and of the processor, all threads together."""
    return time.perf_counter(), time.process_time()


def first_token(served: EngineService, ids: list[int]) -> tuple[Times, int]:
    """Seconds from asking to the first token, and how many of the prompt's tokens were found."""
    over = threading.Event()
    told: list[tuple[Times, ServiceEvent]] = []

    def deliver(event: ServiceEvent) -> None:
        told.append((now(), event))
        if isinstance(event, Continued | Failed):
            over.set()

    began = now()
    ticket = served.submit(Beginning(ids, GREEDY, 1, stops=()), deliver)
    over.wait()
    (clock, processor), event = told[-1]
    assert isinstance(event, Continued), event
    return (clock - began[0], processor - began[1]), ticket.num_cached_tokens


class Timed(GreedyStream):
    """A stream that notes when each token came."""

    def __init__(self, prompt_ids: list[int], length: int) -> None:
        super().__init__(prompt_ids, length)
        self.times: list[Times] = []

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        super().push(token, logprobs)
        self.times.append(now())


def token_gaps(served: EngineService, ids: list[int]) -> tuple[Times, Times, Times]:
    """Between two tokens of a stream: the median alone; the median and the longest while a prompt is read beside it."""
    engine = served.engine
    batch = DecodeBatch(engine.model, 2, engine.tokenizer.vocab_size)
    first, second = Timed(ids[:8], 64), Timed(ids, 1)
    batch.enter(first)
    while not second.finished:
        batch.step()
        if first.num_sampled == 21:
            batch.enter(second)
    gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(first.times, first.times[1:], strict=False)]
    alone, beside = gaps[5:20], gaps[20:]
    return _each(statistics.median, alone), _each(statistics.median, beside), _each(max, beside)


def _each(fold: Callable[[list[float]], float], times: Sequence[Times]) -> Times:
    return fold([clock for clock, _ in times]), fold([processor for _, processor in times])


def _milliseconds(times: Times) -> dict[str, float]:
    return {"clock": round(1000 * times[0], 1), "processor": round(1000 * times[1], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--question", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "first_token.json")
    args = parser.parse_args()
    draw = torch.Generator().manual_seed(0)

    def random_ids(count: int) -> list[int]:
        return torch.randint(VOCABULARY, (count,), generator=draw).tolist()

    sides = {"fp32": (torch.float32, False), "bf16": (torch.bfloat16, False), "int8": (torch.bfloat16, True)}
    idle = idle_fraction()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, (dtype, int8) in sides.items():
        served = service(dtype, int8, num_slots=1)
        prefix = random_ids(PREFIX)
        first_token(served, [*prefix, *random_ids(args.question)])
        again, anew = [], []
        for number in range(args.rounds):
            seconds, cached = first_token(served, [*prefix, *random_ids(args.question)])
            assert cached == PREFIX, cached
            again.append(seconds)
            if number < 2:
                seconds, cached = first_token(served, random_ids(PREFIX + args.question))
                assert cached == 0
                anew.append(seconds)
        served.close()
        alone, usual, longest = token_gaps(served, random_ids(PREFIX))
        figures = {
            "found": _each(statistics.median, again),
            "read anew": _each(statistics.median, anew),
            "token of another, alone": alone,
            "token of another, beside a prompt": usual,
            "token of another, longest": longest,
        }
        found[name] = {what: _milliseconds(times) for what, times in figures.items()}
        print(name, found[name], flush=True)
    config = model_config(SHAPE, vocab_size=VOCABULARY, context=4096)
    write_result(
        args.out,
        {
            "parameters": parameters(config).total,
            "prefix_tokens": PREFIX,
            "question_tokens": args.question,
            "rounds": args.rounds,
            "threads": torch.get_num_threads(),
            "idle_fraction_before": round(idle, 2),
            "milliseconds": found,
            **machine(),
        },
    )


if __name__ == "__main__":
    main()
