"""A small tokenizer, trained on text written here, and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradus.tokenizer.tokenizer import Tokenizer
from gradus.tokenizer.training import train_tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog didn't mind.",
    "Numbers: 17 * 45 = 765; 3.14; 1,000,000; 2024-05-06.",
    "naïve café Ελληνικά русский 中文字符 日本語 🙂👍🏽 e\u0301",
    '{"name": "calculator", "arguments": {"expression": "17 * 45"}}\n',
    "def f(x):\n    return x  # indented\n\n\n\tTabs\r\nand returns   and spaces \n",
    "IT'S we'RE they'll I'd o'clock",
] * 3


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> Tokenizer:
    return train_tokenizer(texts, 400)


@pytest.fixture(scope="session")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(path, chat_template="{{ messages[0].content }}")
    return path
