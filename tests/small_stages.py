"""Stages that many small roadmaps begin with, the text that they read, and a walk that is stopped."""

import json
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from gradus.roadmap.progress import QuietProgress

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

# Further keys may follow.
SFT = """
[[stage]]
name = "chat"
kind = "sft"
from = "base"
mixture = [{ source = "talk" }]
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


def base_of(steps: int, context: int = 128, depth: int = 1, batch_tokens: int = 256, samples: str = "[]") -> str:
    """Stage "base": the smallest model that trains, on stage "tokens". Further keys may follow."""
    return f"""
[[stage]]
name = "base"
kind = "pretrain"
tokens = "tokens"
model = {{ depth = {depth}, width = 32, head_dim = 16 }}
context = {context}
horizon = "{steps} steps"
batch_tokens = {batch_tokens}
samples = {samples}
"""


def write_lines(folder: Path, count: int) -> None:
    """What stage "prose" reads: so many documents of one line."""
    lines = [f"Line {i}: the cat number {i * 7} sat on mat {i % 13}." for i in range(count)]
    (folder / "text.txt").write_text("\n".join(lines))


def write_chats(folder: Path, chats: Iterable[tuple[str, str]]) -> None:
    """What stage "talk" reads: conversations of a question and its answer."""
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in chats
    ]
    (folder / "chats.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


class Stopping(QuietProgress):
    """Stops the walk, as Ctrl-C does, when training has come to a number of tokens."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def task(self, description, total=None, unit=""):
        @contextmanager
        def watched():
            with super(Stopping, self).task(description, total, unit) as task:
                before = task.update

                def update(done=None, **more):
                    before(done, **more)
                    if description == "training" and done is not None and done >= self.tokens:
                        raise KeyboardInterrupt

                task.update = update
                yield task

        return watched()
