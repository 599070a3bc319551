"""Stages that many small roadmaps begin with, as their authors write them, and the text that they read."""

from pathlib import Path

PROSE = """\
[[stage]]
name = "prose"
kind = "corpus"
sources = [{ kind = "files", path = "text.txt", split = "line" }]
validation_fraction = 0.1
"""

TALK = """
[[stage]]
name = "talk"
kind = "pool"
sources = [{ path = "chats.jsonl" }]
validation_fraction = 0.1
"""


def tokens_of(vocab_size: int) -> str:
    """Stages "bpe" and "tokens": a tokenizer trained on stage "prose", and that one's tokens."""
    return f"""
[[stage]]
name = "bpe"
kind = "tokenizer"
corpus = "prose"
vocab_size = {vocab_size}

[[stage]]
name = "tokens"
kind = "tokenize"
corpus = "prose"
tokenizer = "bpe"
"""


def write_lines(folder: Path, count: int) -> None:
    """What stage "prose" reads: so many documents of one line."""
    lines = [f"Line {i}: the cat number {i * 7} sat on mat {i % 13}." for i in range(count)]
    (folder / "text.txt").write_text("\n".join(lines))
