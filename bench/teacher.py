"""How near the teacher's client comes to the ideal rate, and what a second run costs; beside the openai package.

    python bench/teacher.py [--requests 640 --concurrency 64 --delay 1 --openai-python P]

A stand-in service in a process of its own answers after `delay` seconds. Ideal is `concurrency` answers each `delay`.
Ours is synthesis as a stage does it: briefs, requests, reading, judging, answers kept in SQLite. The openai package
sends as many requests, under a semaphore, and keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench_record import machine, write_result
from peer import Peer

from gradus.posttrain.synthesis.material import Material
from gradus.posttrain.synthesis.synthesize import SynthesisSettings, synthesize
from gradus.tools.answers import Answers
from gradus.tools.endpoint import Endpoint
from gradus.tools.endpoint_settings import EndpointSettings

HERE = Path(__file__).resolve().parent
MODEL = "teacher-1"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", type=float, default=1.0)
    parser.add_argument("--openai-python", help="an interpreter that has the openai package")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "teacher.json")
    options = parser.parse_args()
    ideal = options.concurrency / options.delay
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [sys.executable, HERE.parent / "tests" / "teacher_mind.py", "--port", port, "--delay", options.delay]
        server = subprocess.Popen(list(map(str, command)))
        try:
            base_url = f"http://127.0.0.1:{port}/v1"
            wait_for(base_url)
            settings = EndpointSettings(base_url=base_url, model=MODEL, concurrency=options.concurrency)
            first = ours(settings, Path(folder), options.requests)
            second = ours(settings, Path(folder), options.requests)
            peer = {}
            if options.openai_python:
                asked = Peer(options.openai_python, "teacher_peer.py", base_url, MODEL)
                peer = asked.ask(requests=options.requests, concurrency=options.concurrency) | asked.ready
                asked.close()
        finally:
            server.terminate()
            server.wait()
    result = {
        "requests": options.requests,
        "concurrency": options.concurrency,
        "delay_seconds": options.delay,
        "ideal_per_second": ideal,
        "ours": first | {"fraction_of_ideal": first["answered"] / first["seconds"] / ideal},
        "ours_again": second,
        **machine(),
    }
    if peer:
        result["openai"] = peer | {"fraction_of_ideal": options.requests / peer["seconds"] / ideal}
    write_result(options.out, result)
    print({key: result[key] for key in ("ours", "ours_again", "openai") if key in result})


def ours(settings: EndpointSettings, folder: Path, rows: int) -> dict[str, float]:
    """Synthesis of so many rows of one request each."""

    async def go() -> dict[str, float]:
        with Answers(folder / "answers.sqlite") as answers:
            async with Endpoint(settings, answers, "bench") as endpoint:
                began = time.perf_counter()
                cpu = time.process_time()
                result = await synthesize(endpoint, Material(), SynthesisSettings({"tone": rows}, seed=1))
                return {
                    "seconds": time.perf_counter() - began,
                    "processor_seconds": time.process_time() - cpu,
                    "answered": endpoint.traffic.answered,
                    "reused": endpoint.traffic.reused,
                    "rows": len(result.rows),
                }

    return asyncio.run(go())


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(base_url: str) -> None:
    """Return when the service answers."""
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{base_url}/models", timeout=1).read()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit("the stand-in service did not start")


if __name__ == "__main__":
    main()
