"""The text on which an exported model is compared with ours: one long row, beginnings to go on from, hard cases.

The row is longer than what the model was trained on and than any window, where wrong positions and masks show.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation, Message
from gradus.model.config import ModelConfig
from gradus.tokenizer.difficult_text import difficult_texts
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

_LONGEST_BEGINNING = 48
_LONGEST_QUESTION = 200  # characters


@dataclass(frozen=True)
class CheckText:
    """source: what text it is, for the card. row: (T,) ids; beginnings: ids of each; texts: for tokenizers."""

    source: str
    row: list[int]
    beginnings: list[list[int]]
    texts: list[str]


def check_length(config: ModelConfig, most: int) -> int:
    """Tokens of the row: an eighth more than the context, more than twice any window, at most `most`."""
    windows = [window for window in config.windows if window is not None]
    wanted = max(config.context + max(64, config.context // 8), 2 * max(windows, default=0) + 64)
    return min(wanted, most)


def make_check_text(
    tokenizer: Tokenizer,
    documents: Sequence[str],
    source: str,
    *,
    length: int,
    context: int,
    num_beginnings: int,
    chats: bool,
) -> CheckText:
    """Text made of documents, each used again only where they are too short together.

    length: of the row; beginnings leave a third of the context at least to go on. chats: every second beginning is a
    question in the conversation format, with and without thinking.
    """
    draw = random.Random(0)
    row: list[int] = []
    for document in _drawn(documents, draw):
        row += [tokenizer.special(END_OF_TEXT), *tokenizer.encode(document)]
        if len(row) >= length:
            break
    row = row[:length]
    form, longest = HermesFormat(tokenizer), min(_LONGEST_BEGINNING, context * 2 // 3)
    beginnings = []
    texts = _drawn(documents, draw)
    for number in range(num_beginnings):
        if chats and number % 2:
            think = [None, True, False][number // 2 % 3]
            beginnings.append(_question(form, next(texts)[:_LONGEST_QUESTION], think, context * 2 // 3))
        else:
            start = draw.randrange(max(1, length - longest))
            beginnings.append(row[start : start + draw.randint(1, longest)])
    samples = [document for document, _ in zip(_drawn(documents, draw), range(200), strict=False)]
    # Where text spells a control token, other programs see one, and only ours does not.
    readable = [text for text in [*samples, *difficult_texts(())] if not _spells(text, tokenizer)]
    return CheckText(source, row, beginnings, readable)


def _question(form: HermesFormat, question: str, think: bool | None, most: int) -> list[int]:
    """A prompt that asks it, cut short until it has at most `most` tokens."""
    while True:
        ids: list[int] = form.render_prompt(Conversation((Message("user", question),)), think).tolist()
        if len(ids) <= most or not question:
            return ids
        question = question[: len(question) // 2]


def _spells(text: str, tokenizer: Tokenizer) -> bool:
    return any(name in text for name in tokenizer.special_tokens)


def _drawn(documents: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Documents in random order, over and over."""
    while True:
        order = list(range(len(documents)))
        draw.shuffle(order)
        yield from (documents[index] for index in order)


def own_documents() -> list[str]:
    """The paragraphs of gradus's own files: English and code, where a model came without text."""
    package = Path(__file__).parents[1]
    texts = [path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))]
    return [part.strip() for text in texts for part in text.split("\n\n") if part.strip()]
