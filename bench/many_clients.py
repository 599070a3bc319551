"""Many clients at once: every answer equals its solo run, canaries never cross, memory stays flat, nothing sticks.

    python bench/many_clients.py --home HOME --model quickstart --clients 64 --seconds 300 --dtype fp32

Starts `gradus serve` and asks it over HTTP as clients do. First each question alone; then all clients at once for the
given time, each answer compared with the one alone (fp32; in bf16 only canaries are looked at); then malformed requests
and clients that leave in the middle; at last the same questions alone once more. A canary is a six-digit number that
only one client's questions hold: the model carries it into its calls of the calculator, and it must turn up in no
other client's answer. Writes bench/results/many_clients_DTYPE.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import psutil
from bench_record import machine, write_result

CHAT = "/v1/chat/completions"
TOPICS = ("What is {n} * 3?", "What is {n} plus 17?", "Add 5 to {n}.", "hello", "What is the capital of France?",
          "Spell the word apple.", "How many letters are in banana?", "What is 12% of {n}?")  # fmt: skip


def canary(client: int) -> str:
    """A six-digit number of this client's own."""
    return str(100_003 + 7919 * client % 899_981)


def question(model: str, client: int, number: int, max_tokens: int) -> dict[str, Any]:
    """Question `number` of a client, with a seed of its own."""
    text = TOPICS[(client + number) % len(TOPICS)].format(n=canary(client))
    return {
        "model": model, "messages": [{"role": "user", "content": text}], "temperature": 0.8, "top_p": 0.95,
        "seed": 1000 * client + number, "max_tokens": max_tokens, "stream": True,
        "gradus": {"tools": ["calculator"], "think": (client + number) % 3 == 0},
    }  # fmt: skip


async def answer(http: httpx2.AsyncClient, asked: dict[str, Any]) -> str:
    """All that a streamed reply says, its events among it; a refusal or an error in the stream as "!..."."""
    said = []
    async with http.stream("POST", CHAT, json=asked) as reply:
        if reply.status_code != 200:
            return f"!{reply.status_code}"
        async for line in reply.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                return f"!{chunk['error']['message']}"
            for choice in chunk["choices"]:
                delta = choice["delta"]
                said.append(delta.get("reasoning_content") or delta.get("content") or "")
                said.append(json.dumps(delta["gradus"]) if "gradus" in delta else "")
                said.append(f"[{choice['finish_reason']}]" if choice["finish_reason"] else "")
    return "".join(said)


async def alone(http: httpx2.AsyncClient, model: str, clients: int, each: int, max_tokens: int) -> dict[Any, str]:
    """The answers to all questions, one after the other, by (client, number)."""
    pairs = [(client, number) for client in range(clients) for number in range(each)]
    return {pair: await answer(http, question(model, *pair, max_tokens)) for pair in pairs}


async def crowd(
    http: httpx2.AsyncClient,
    model: str,
    expected: dict[Any, str],
    clients: int,
    each: int,
    max_tokens: int,
    seconds: float,
    least: int = 1,
) -> dict[str, Any]:
    """All clients at once until the time is over; what differed, and whose canaries turned up where.

    least: questions that every client asks, however long they take.
    """
    found: Counter[str] = Counter()
    examples: list[Any] = []
    waits: list[float] = []
    end = time.monotonic() + seconds
    canaries = {canary(client): client for client in range(clients)}

    async def one(client: int) -> None:
        draw = random.Random(client)
        asked = 0
        while asked < least or time.monotonic() < end:
            asked += 1
            pair = (client, draw.randrange(each))
            begun = time.monotonic()
            said = await answer(http, question(model, *pair, max_tokens))
            waits.append(time.monotonic() - begun)
            found["answers"] += 1
            found["refused or failed"] += said.startswith("!")
            seen = {canaries[word] for word in re.findall(r"\d{6}", said) if word in canaries}
            found["own canary seen"] += client in seen
            found["foreign canaries"] += bool(seen - {client})
            found["other than alone"] += said != expected[pair]
            if said.startswith("!") or seen - {client} or said != expected[pair]:
                examples.append([pair, expected[pair], said])

    await asyncio.gather(*(one(client) for client in range(clients)))
    return {**found, "median seconds": round(statistics.median(waits), 3), "examples": examples[:3]}


def malformed(model: str, draw: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """A request that is wrong in one of many ways: (path, body, headers)."""
    good = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    junk: list[Any] = [
        None,
        -1,
        1e308,
        "",
        "x" * 2000,
        [],
        {},
        [[]],
        {"a": {}},
        True,
        "\u0000",
        "\ud7ff",
        2**70,
        [1, "a"],
    ]
    path = draw.choice([CHAT, "/v1/completions", "/v1/responses", "/tokenize"])
    headers = {"Content-Type": "application/json"}
    kind = draw.randrange(6)
    if kind == 0:
        text = json.dumps(good)
        return path, text[: draw.randrange(len(text))].encode(), headers
    if kind == 1:
        return path, draw.randbytes(draw.randrange(200)), headers
    if kind == 2:
        wrong = dict.fromkeys(good, draw.choice([None, 7, [3], {"role": 1}]))
        return path, json.dumps(wrong).encode(), headers
    if kind == 3:
        name = draw.choice(
            ["temperature", "n", "stop", "tools", "seed", "gradus", "logprobs", "stream_options", "top_k"]
        )
        value = draw.choice([j for j in junk if j not in (None, True)] + [{"x": 1}])
        return CHAT, json.dumps(good | {name: [value, {"no": value}]}).encode(), headers
    if kind == 4:
        message = {draw.choice(["role", "content", "tool_calls", "x"]): draw.choice(junk) for _ in range(2)}
        return CHAT, json.dumps(good | {"messages": [message]}).encode(), headers
    return path, json.dumps(good | {"model": draw.choice(["", "nix", 3, None, [], "../x"])}).encode(), headers


async def mistreat(http: httpx2.AsyncClient, model: str, requests: int, at_once: int = 16) -> Counter[str]:
    """Malformed requests; the statuses of their answers."""
    statuses: Counter[str] = Counter()

    async def some(share: int) -> None:
        draw = random.Random(share)
        for _ in range(share, requests, at_once):
            path, data, headers = malformed(model, draw)
            reply = await http.post(path, content=data, headers=headers)
            statuses[str(reply.status_code)] += 1
            if reply.status_code >= 400:
                assert isinstance(reply.json()["error"]["message"], str)

    await asyncio.gather(*(some(share) for share in range(at_once)))
    return statuses


async def leave(http: httpx2.AsyncClient, model: str, requests: int, at_once: int = 16) -> None:
    """Clients that go away in the midst of a stream, some before its first word."""

    async def some(share: int) -> None:
        draw = random.Random(share)
        for number in range(share, requests, at_once):
            asked = question(model, share, number, 400) | {"temperature": 5.0}
            async with http.stream("POST", CHAT, json=asked) as reply:
                lines = draw.randrange(12)
                async for _ in reply.aiter_lines():
                    lines -= 1
                    if lines < 0:
                        break

    await asyncio.gather(*(some(share) for share in range(at_once)))


async def slots_in_use(http: httpx2.AsyncClient) -> int:
    """Requests that the engines work on or keep waiting, as the metrics tell it."""
    text = (await http.get("/metrics")).text
    return int(sum(float(n) for n in re.findall(r"^gradus_(?:live|waiting)_requests\{.*\} (\S+)$", text, re.M)))


async def freed(http: httpx2.AsyncClient, seconds: float = 10.0) -> bool:
    """Whether all slots become free."""
    end = time.monotonic() + seconds
    while await slots_in_use(http):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True


async def watch_memory(process: psutil.Process, every: float, seen: list[int]) -> None:
    while True:
        seen.append(process.memory_info().rss)
        await asyncio.sleep(every)


async def measure(arguments: argparse.Namespace, url: str, process: psutil.Process) -> dict[str, Any]:
    limits = httpx2.Limits(max_connections=arguments.clients + 8)
    a = arguments
    async with httpx2.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        expected = await alone(http, a.model, a.clients, a.each, a.max_tokens)
        memory: list[int] = []
        watching = asyncio.create_task(watch_memory(process, max(0.5, a.seconds / 120), memory))
        result: dict[str, Any] = {
            "crowd": await crowd(http, a.model, expected, a.clients, a.each, a.max_tokens, a.seconds)
        }
        result["malformed"] = dict(await mistreat(http, a.model, a.malformed))
        await leave(http, a.model, a.disconnects)
        result["slots free after disconnects"] = await freed(http)
        watching.cancel()
        again = await alone(http, a.model, min(4, a.clients), a.each, a.max_tokens)
        result["alone again equal"] = all(expected[pair] == said for pair, said in again.items())
    quarter = max(1, len(memory) // 4)
    result["memory_mib"] = {
        "second quarter": round(statistics.median(memory[quarter : 2 * quarter]) / 2**20, 1),
        "last quarter": round(statistics.median(memory[-quarter:]) / 2**20, 1),
        "most": round(max(memory) / 2**20, 1),
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--each", type=int, default=4, help="questions of each client")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--disconnects", type=int, default=1_000)
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gradus.cli.main", "serve", arguments.model, "--home", str(arguments.home)]
    command += ["--port", str(port), "--dtype", arguments.dtype, "--slots", str(arguments.slots)]
    command += ["--max-waiting", str(arguments.clients)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                httpx2.get(f"{url}/health")
                break
            except httpx2.TransportError:
                time.sleep(0.2)
        result = asyncio.run(measure(arguments, url, psutil.Process(server.pid)))
        assert server.poll() is None, "the server ended"
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        result["exit code"] = server.wait(60)
        result["seconds to end"] = round(time.monotonic() - begun, 2)
    finally:
        server.kill()
    facts = machine() | {"threads": os.environ.get("OMP_NUM_THREADS")}
    write_result(Path(__file__).parent / "results" / f"many_clients_{arguments.dtype}.json", facts | {"result": result})
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
