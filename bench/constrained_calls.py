"""Claim: under a constraint no tool call is malformed, however hot the sampling; what that costs a token.

A chat model answers the questions of a probe suite, over and over with other seeds, with a set of tools declared: the
calculator that it knows, and tools that it has never seen (numbers, choices, nested objects, lists, optional keys, no
arguments). The same weights' shapes with random values are the hard case. A call counts as malformed where the parser
says so or the validator finds a fault; one that `max_tokens` cuts off is counted apart. Under "turn" every violation of
the invariants of thinking with tools counts, in turns that were not cut off. Calls are not answered (max_calls = 0).

The cost: the mask of one step, for plain text and inside a call, at vocabularies of several sizes; and a whole decode
of the same greedy answers with and without constraint.

    python bench/constrained_calls.py --model runs/quickstart/polish/model --suite roadmaps/probes/fresh.jsonl
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_record import machine, write_result
from real_text import texts_up_to

from gradus.conversation.calculator_marks import CALCULATOR
from gradus.conversation.constraint import Constraint
from gradus.conversation.formats.hermes import HermesFormat, call_text
from gradus.conversation.messages import Conversation, ToolCall, ToolSchema
from gradus.conversation.probes import Suite, load_suite
from gradus.conversation.validate import call_faults, turn_violations
from gradus.engine.constraint import Constraints
from gradus.engine.engine import Engine
from gradus.engine.load import load_engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import Reply, Request
from gradus.eval.probes import ProbeSettings, run_suite
from gradus.eval.result import passed_measure
from gradus.tokenizer.training import train_tokenizer

HERE = Path(__file__).resolve().parent


def tool(name: str, required: list[str], **properties: Any) -> ToolSchema:
    return ToolSchema(name, "", {"type": "object", "properties": properties, "required": required})


PLACE = {
    "type": "object",
    "properties": {
        "lat": {"type": "number", "minimum": -90, "maximum": 90},
        "name": {"type": "string", "maxLength": 9},
    },
    "required": ["lat"],
}
UNSEEN = (
    tool("weather", ["place"], place=PLACE, unit={"enum": ["°C", "°F", None]}, days={"type": "integer", "minimum": 1}),
    tool("tag", ["ids"], ids={"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}),
    tool("pay", ["amount"], amount={"type": "number", "exclusiveMinimum": 0}, ok={"type": "boolean"}),
    tool("now", []),
)
TOOLS = (CALCULATOR, *UNSEEN)
CONSTRAINTS: tuple[Constraint | None, ...] = (None, "calls", "turn")


def requests_of(
    conversations: list[Conversation], samples: int, temperature: float, constrain: Constraint | None
) -> list[Request]:
    """So many requests over the questions; every seventh declares no tools, thinking is on, off and open in turn."""
    asked = []
    for i in range(samples):
        tools = () if i % 7 == 6 else TOOLS
        conversation = replace(conversations[i % len(conversations)], tools=tools, think=(None, True, False)[i % 3])
        sampling = Sampling(temperature=temperature, seed=i)
        asked.append(Request(conversation, sampling=sampling, max_tokens=160, max_calls=0, constrain=constrain))
    return asked


def judged(requests: list[Request], replies: list[Reply]) -> dict[str, Any]:
    """Counts over all samples."""
    found: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for request, reply in zip(requests, replies, strict=True):
        conversation = request.conversation
        declared = {schema.name: schema for schema in conversation.tools}
        was_cut = reply.finish_reason == "length"
        found["turns_cut_off"] += was_cut
        found["calls"] += len(reply.turn.calls)
        faults = [reason for call in reply.turn.calls for reason, _ in call_faults(call, declared)]
        problems = [problem.split(":")[0] for problem in reply.turn.problems]
        found["calls_cut_off"] += was_cut and "a tool call never closed" in problems
        faults += [p for p in problems if "tool call" in p and p != "a tool call inside thinking"
                   and p != "text after a tool call" and not (was_cut and p == "a tool call never closed")]  # fmt: skip
        found["malformed_calls"] += len(faults)
        if not was_cut:
            # A call of max_calls = 0 has no answer behind it; nothing else may be wrong.
            violations = turn_violations(reply.turn.messages, conversation.tools, conversation.think)
            faults += [v.reason for v in violations if v.reason not in ("unfinished", "unknown_tool", "bad_arguments")]
            faults += [problem for problem in problems if problem not in faults]
            found["unsound_turns"] += bool(faults)
        reasons.update(faults)
    return {**found, "reasons": dict(reasons.most_common())}


def soundness(
    engine: Engine, conversations: list[Conversation], samples: int, temperature: float
) -> dict[str, dict[str, Any]]:
    """What each constraint lets through, with the tokens decoded each second; a fifth of the samples without one."""
    results = {}
    for constrain in CONSTRAINTS:
        requests = requests_of(conversations, samples if constrain else samples // 5, temperature, constrain)
        began = time.perf_counter()
        replies = engine.generate(requests)
        seconds = time.perf_counter() - began
        tokens = sum(reply.num_tokens for reply in replies)
        results[str(constrain)] = {
            "samples": len(replies),
            "temperature": temperature,
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds),
            **judged(requests, replies),
        }
        print(constrain, results[str(constrain)], flush=True)
    return results


def suite_score(engine: Engine, suite: Suite) -> dict[str, Any]:
    """Probes passed by the likeliest answers under each constraint, and how many answers a constraint changes."""
    found = {constrain: run_suite(engine, suite, ProbeSettings(constrain=constrain)) for constrain in CONSTRAINTS}
    free = found[None].items
    return {
        str(constrain): {
            **passed_measure(result.items),
            "answers_changed": sum(item.samples != was.samples for item, was in zip(result.items, free, strict=True)),
        }
        for constrain, result in found.items()
    }


def with_random_weights(engine: Engine) -> Engine:
    """The same engine with every weight drawn anew."""
    model = engine.model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return Engine(model, engine.tokenizer, engine.form, engine.toolbox)


def greedy_cost(engine: Engine, conversations: list[Conversation], rounds: int) -> dict[str, Any]:
    """Tokens a second of the same greedy answers, constraints in turn, many at once and one at a time."""
    asked = [Request(replace(c, tools=(CALCULATOR,)), max_tokens=128) for c in conversations]
    speeds: dict[str, list[float]] = {}
    sections = (("batch", asked[:256]), ("alone", asked[:12]))
    for _ in range(rounds):
        for name, requests in sections:
            for constrain in CONSTRAINTS:
                held = [replace(request, constrain=constrain) for request in requests]
                groups = [held] if name == "batch" else [[request] for request in held]
                began = time.perf_counter()
                tokens = sum(reply.num_tokens for group in groups for reply in engine.generate(group))
                speeds.setdefault(f"{name} {constrain}", []).append(tokens / (time.perf_counter() - began))
    return {name: round(statistics.median(found)) for name, found in speeds.items()}


def mask_cost(texts: list[str], sizes: list[int]) -> dict[str, Any]:
    """Microseconds of one step's mask and push at each vocabulary, and of a grammar's compilation."""
    results = {}
    call = ToolCall("", "weather", {"place": {"lat": 48.25, "name": "Wien <ö>"}, "unit": "°C", "days": 3})
    for size in sizes:
        form = HermesFormat(train_tokenizer(texts, size))
        shared = Constraints(form)
        began = time.perf_counter()
        shared.check(TOOLS)
        compiled = time.perf_counter() - began
        marker = form.tokenizer.special("<tool_call>")
        inside = [marker, *form.tokenizer.encode(f"\n{call_text(call)}\n")]
        outside = form.tokenizer.encode("Let me see: 12 * 3 = 36, which is less than 40.")
        found: dict[str, float] = {"compile_microseconds": compiled * 1e6}
        for name, ids in (("call", inside), ("text", outside)):
            times = []
            for _ in range(30):
                segment = shared.segment("turn", TOOLS, think=False, opens=True)
                for token in ids:
                    began = time.perf_counter()
                    mask = segment.allowed()
                    segment.push(token)
                    times.append(time.perf_counter() - began)
                    assert mask[token]
            found[f"{name}_microseconds"] = statistics.median(times) * 1e6
        results[str(size)] = {key: round(value, 1) for key, value in found.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="text for larger vocabularies")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--vocabularies", type=int, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "constrained-calls.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    engine = load_engine(args.model)
    suite = load_suite(args.suite)
    conversations = [probe.first_prompt() for probe in suite.probes if not probe.later_turns]
    result: dict[str, Any] = {"machine": machine()}
    result["greedy_tokens_per_second"] = greedy_cost(engine, conversations, args.rounds)
    print(result["greedy_tokens_per_second"], flush=True)
    if args.vocabularies:
        result["mask"] = mask_cost(texts_up_to(args.texts, 8), args.vocabularies)
        print(result["mask"], flush=True)
    result["suite"] = suite_score(engine, suite)
    print(result["suite"], flush=True)
    result["trained"] = soundness(engine, conversations, args.samples, 1.0)
    result["trained_hot"] = soundness(engine, conversations, args.samples // 5, 2.5)
    result["random_weights"] = soundness(with_random_weights(engine), conversations, args.samples // 5, 1.0)
    write_result(args.out, result)


if __name__ == "__main__":
    main()
