"""A small tokenizer, the hermes format over it, and conversations that use every part of the format."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation, Message, ToolCall, ToolSchema
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

TEXTS = [
    "system You are a helpful assistant. user What is 17 times 45? assistant Let me think, then calculate.",
    '{"name": "calculator", "arguments": {"expression": "17 * 45"}}\n\n{"type":"object","properties":{}}',
    "naïve café 中文 🙂 it's they'll\n\n\tNumbers: 3.14, 1,000.\r\n",
] * 4

CALCULATOR = ToolSchema(
    "calculator",
    "Evaluate arithmetic.",
    {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
)
SEARCH = ToolSchema(
    "search",
    "",
    {"type": "object", "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}},
)


def call(number: int, expression: str) -> ToolCall:
    return ToolCall(f"call_{number}", "calculator", {"expression": expression})


FULL = Conversation(
    messages=(
        Message("system", "You are Ada."),
        Message("user", "What is 17 * 45, and 2 + 2?"),
        Message("assistant", "One moment.", "Two sums.\nUse the tool.", (call(1, "17 * 45"), call(2, "2 + 2"))),
        Message("tool", "765", tool_call_id="call_1"),
        Message("tool", "4", tool_call_id="call_2"),
        Message("assistant", "765 and 4."),
        Message("user", "\n Thanks! "),
        Message("assistant", "You are welcome.", ""),
        Message("user", "And 9 / 3?"),
        Message("assistant", "", None, (call(3, "9 / 3"),)),
        Message("tool", "3", tool_call_id="call_3"),
        Message("assistant", "3."),
        Message("user", "Say nothing new."),
        Message("assistant", "Nothing new.", train=False),
    ),
    tools=(CALCULATOR, SEARCH),
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 400)


@pytest.fixture(scope="session")
def hermes(tokenizer: Tokenizer) -> HermesFormat:
    return HermesFormat(tokenizer)


@pytest.fixture(scope="session")
def full() -> Conversation:
    return FULL


@pytest.fixture(scope="session")
def calculator() -> ToolSchema:
    return CALCULATOR


@pytest.fixture(scope="session")
def real_file() -> Callable[[str], Path]:
    """Finds a file of the real data, or skips."""

    def find(name: str) -> Path:
        path = Path(os.environ.get("GRADUS_DATA", "../shared/data")) / name
        if not path.exists():
            pytest.skip(f"{path} is not here; set GRADUS_DATA")
        return path

    return find
