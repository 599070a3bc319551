"""Claim: every answer that is held to a JSON schema and not cut off satisfies it, and every forced call is one.

A chat model answers the questions of a probe suite at temperature 1, with thinking on, off and open in turn, and so
does a model of the same shape with random weights, the hard case. The schemas are of the kinds that clients send;
json and jsonschema judge. Forced calls are judged by parser and validator. A reply that `max_tokens` cuts off counts
apart. The cost is processor time a token, with and without, in alternation: the same requests, cut off alike.

    python bench/json_answers.py --model runs/quickstart/polish/model --suite roadmaps/probes/fresh.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import torch
from bench_record import machine, write_result
from constrained_calls import TOOLS, with_random_weights

from gradus.conversation.messages import Conversation
from gradus.conversation.probes import load_suite
from gradus.conversation.validate import call_faults
from gradus.engine.engine import Engine
from gradus.engine.load import load_engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import Reply, Request

HERE = Path(__file__).resolve().parent
ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string", "maxLength": 20}, "number": {"type": "integer", "minimum": 1}},
    "required": ["street", "number"],
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": {
        "type": "object",
        "properties": {
            "answer": {"type": "number"},
            "unit": {"enum": ["cm", "°C", None]},
            "sure": {"type": "boolean"},
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
        },
        "required": ["answer", "unit", "sure", "code"],
    },
    "nested": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "address": ADDRESS,
            "others": {"type": "array", "items": ADDRESS, "maxItems": 2},
        },
        "required": ["name", "address"],
        "additionalProperties": False,
    },
    "choice": {
        "$defs": {
            kind: {"type": "object", "properties": {"kind": {"const": kind}, kind: value}, "required": ["kind", kind]}
            for kind, value in (("word", {"type": "string", "maxLength": 8}), ("number", {"type": "integer"}))
        },
        "type": "object",
        "properties": {"given": {"oneOf": [{"$ref": "#/$defs/word"}, {"$ref": "#/$defs/number"}]}},
        "required": ["given"],
    },
    "list": {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "value": {"type": "integer"}},
        "required": ["next", "value"],
    },
    "any object": {"type": "object"},
}


def answers(engine: Engine, conversations: list[Conversation], samples: int) -> dict[str, dict[str, Any]]:
    """By schema: how many answers were whole, cut off, and against it."""
    results = {}
    for name, schema in SCHEMAS.items():
        judge = jsonschema.Draft202012Validator(schema)
        requests = [replace(one, answer_schema=schema) for one in requests_of(conversations, samples)]
        found: Counter[str] = Counter()
        for reply in engine.generate(requests):
            if reply.finish_reason == "length":
                found["cut_off"] += 1
                continue
            found["whole"] += 1
            try:
                judge.validate(json.loads(reply.turn.messages[-1].content))
            except (ValueError, jsonschema.ValidationError):
                found["wrong"] += 1
            found["wrong"] += bool(reply.turn.problems)
        results[name] = {"samples": samples, "wrong": 0, **found}
        print(name, results[name], flush=True)
    return results


def calls(engine: Engine, conversations: list[Conversation], samples: int) -> dict[str, Any]:
    """How many forced turns hold sound calls and nothing else."""
    declared = {tool.name: tool for tool in TOOLS}
    requests = [
        replace(
            one,
            conversation=replace(one.conversation, tools=TOOLS),
            must_call=True,
            single_call=i % 2 == 0,
            callable_tools=(TOOLS[i % len(TOOLS)].name,) if i % 3 == 0 else None,
        )
        for i, one in enumerate(requests_of(conversations, samples))
    ]
    found: Counter[str] = Counter()
    for request, reply in zip(requests, engine.generate(requests), strict=True):
        if reply.finish_reason == "length":
            found["cut_off"] += 1
            continue
        found["whole"] += 1
        found["wrong"] += not is_sound(request, reply, declared)
    print("calls", dict(found), flush=True)
    return {"samples": samples, "wrong": 0, **found}


def is_sound(request: Request, reply: Reply, declared: dict[str, Any]) -> bool:
    made, names = reply.turn.calls, request.callable_tools or list(declared)
    faults = [fault for call in made for fault in call_faults(call, declared)]
    is_one = len(made) == 1 or not request.single_call
    return bool(made) and is_one and not faults and not reply.turn.problems and all(c.name in names for c in made)


def requests_of(conversations: list[Conversation], samples: int) -> list[Request]:
    """So many requests over the questions; thinking is on, off and open in turn, and short."""
    return [
        Request(
            replace(conversations[i % len(conversations)], tools=(), think=(None, True, False)[i % 3]),
            sampling=Sampling(temperature=1.0, seed=i),
            max_tokens=200,
            max_calls=0,
            think_budget=16,
        )
        for i in range(samples)
    ]


def cost(engine: Engine, conversations: list[Conversation], rounds: int) -> dict[str, float]:
    """Microseconds of processor time a token, in batches, without a schema and with each."""
    plain = [replace(one, max_tokens=60) for one in requests_of(conversations, 64)]
    spent: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, schema in {"none": None, **SCHEMAS}.items():
            began = time.process_time()
            replies = engine.generate([replace(one, answer_schema=schema) for one in plain])
            seconds = time.process_time() - began
            spent.setdefault(name, []).append(1e6 * seconds / sum(reply.num_tokens for reply in replies))
    return {name: round(statistics.median(found), 1) for name, found in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1000, help="for each schema")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "json-answers.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    engine = load_engine(args.model)
    conversations = [probe.first_prompt() for probe in load_suite(args.suite).probes if not probe.later_turns]
    result: dict[str, Any] = {"machine": machine()}
    result["microseconds_a_token"] = cost(engine, conversations, args.rounds)
    print(result["microseconds_a_token"], flush=True)
    result["trained"] = answers(engine, conversations, args.samples)
    result["trained_calls"] = calls(engine, conversations, args.samples)
    raw = with_random_weights(engine)
    result["random_weights"] = answers(raw, conversations, args.samples)
    result["random_weights_calls"] = calls(raw, conversations, args.samples)
    write_result(args.out, result)


if __name__ == "__main__":
    main()
