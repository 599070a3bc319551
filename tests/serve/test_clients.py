"""Clients as they are: curl, and what Open WebUI sends to an OpenAI-compatible connection."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from small_server import Running, folded


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sees_a_stream_as_it_is_made(running: Running) -> None:
    asked = {"model": "small", "messages": [{"role": "user", "content": "coffee?"}], "stream": True, "temperature": 0}
    words = ["curl", "-sN", f"{running.url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    done = subprocess.run([*words, "-d", json.dumps(asked)], capture_output=True, text=True, check=True, timeout=30)
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    got = folded([json.loads(line[6:]) for line in lines[:-1]])
    assert (got["reasoning_content"], got["content"]) == ("I think of ☕ first.", "café ☕ déjà vu")


def test_open_webui_verifies_lists_streams_and_asks_for_a_title(running: Running) -> None:
    """Its backend/open_webui/routers/openai.py: an empty key is still sent; `metadata` is taken out before."""
    headers = {"Authorization": "Bearer", "Content-Type": "application/json"}
    models = running.http.get("/v1/models", headers=headers).json()["data"]
    assert [model["id"] for model in models] == ["small"]
    chat = {
        "stream": True, "model": "small", "messages": [{"role": "user", "content": "coffee?"}],
        "stream_options": {"include_usage": True}, "temperature": 0,
    }  # fmt: skip
    with running.http.stream("POST", "/v1/chat/completions", json=chat, headers=headers) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert folded([json.loads(line[6:]) for line in lines[:-1]])["content"] == "café ☕ déjà vu"
    title = {
        "model": "small", "stream": False, "max_completion_tokens": 50,
        "messages": [{"role": "user", "content": "### Task:\nA title for: hello"}],
    }  # fmt: skip
    told = running.http.post("/v1/chat/completions", json=title, headers=headers).json()
    assert isinstance(told["choices"][0]["message"]["content"], str)
