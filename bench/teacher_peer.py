"""The openai package's side of bench/teacher.py, in its own interpreter: as many requests, so many at a time.

PEER_PYTHON bench/teacher_peer.py BASE_URL MODEL
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import time

from openai import AsyncOpenAI


async def ask(base_url: str, model: str, requests: int, concurrency: int) -> float:
    """Seconds for all answers."""
    slots = asyncio.Semaphore(concurrency)
    async with AsyncOpenAI(base_url=base_url, api_key="none") as client:

        async def one(number: int) -> None:
            async with slots:
                messages = [{"role": "user", "content": f'Question {number}\n- "question": x\n- "answer": y'}]
                await client.chat.completions.create(model=model, messages=messages, max_tokens=4096)

        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(requests)))
        return time.perf_counter() - began


def main() -> None:
    base_url, model = sys.argv[1:]
    print(json.dumps({"version": importlib.metadata.version("openai")}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": asyncio.run(ask(base_url, model, **json.loads(line)))}), flush=True)


if __name__ == "__main__":
    main()
