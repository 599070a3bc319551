"""Passkey retrieval: a number is told somewhere in a long stretch of filler, and asked for at its end.

Source: Mohtashami & Jaggi 2023, "Landmark Attention", section 4.2, whose sentences these are. The answer is read off
the probabilities of the right number's tokens: where each is the likeliest, greedy decoding would have said it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradus.core.statistics import wilson
from gradus.model.batch import IGNORE, Batch, Documents
from gradus.model.transformer import Transformer
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.train.losses import supervised_hidden

_TASK = "There is a pass key hidden inside a lot of text. Find it and remember it.\n"
_FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
_KEY = "The pass key is {key}. Remember it. {key} is the pass key.\n"
_QUESTION = "What is the pass key? The pass key is"


@dataclass(frozen=True)
class PasskeyItem:
    """One question. tokens: the answer is the last `answer` of them; length: the context it is to fill."""

    tokens: tuple[int, ...]
    answer: int
    length: int
    depth: float


@dataclass(frozen=True)
class PasskeyResult:
    """Of each item: whether every token of the key was the likeliest, and the key's mean nats a token."""

    items: tuple[PasskeyItem, ...]
    found: tuple[bool, ...]
    nats: tuple[float, ...]

    def measure(self, length: int | None = None) -> dict[str, Any]:
        """Share found at a length, or at all: {"value", "n", "successes", "lower", "upper", "nats_per_token"}."""
        chosen = [i for i, item in enumerate(self.items) if length is None or item.length == length]
        n, successes = len(chosen), sum(self.found[i] for i in chosen)
        lower, upper = wilson(successes, n)
        nats = sum(self.nats[i] for i in chosen) / n
        return {
            "value": successes / n,
            "n": n,
            "successes": successes,
            "lower": lower,
            "upper": upper,
            "nats_per_token": nats,
        }

    def measures(self) -> dict[str, Any]:
        """ "total" and "at_<length>" of each length."""
        lengths = sorted({item.length for item in self.items})
        return {"total": self.measure()} | {f"at_{length}": self.measure(length) for length in lengths}


def passkey_items(
    tokenizer: Tokenizer, lengths: Sequence[int], *, depths: int, samples: int, seed: int
) -> tuple[PasskeyItem, ...]:
    """Questions that fill each length as whole sentences do, with the key at evenly spaced depths.

    A length that cannot hold the question itself is left out.
    """
    draw = random.Random(seed)
    ids = {text: tokenizer.encode(text) for text in (_TASK, _FILLER, _QUESTION)}
    items = []
    for length in lengths:
        for place in range(depths):
            depth = (place + 0.5) / depths
            for _ in range(samples):
                key = str(draw.randrange(10_000, 100_000))
                told, answer = tokenizer.encode(_KEY.format(key=key)), tokenizer.encode(f" {key}")
                room = length - sum(map(len, (ids[_TASK], ids[_QUESTION], told, answer)))
                number = room // len(ids[_FILLER])
                if number < 1:
                    continue
                before = round(depth * number)
                tokens = (*ids[_TASK], *ids[_FILLER] * before, *told, *ids[_FILLER] * (number - before),
                          *ids[_QUESTION], *answer)  # fmt: skip
                items.append(PasskeyItem(tuple(tokens), len(answer), length, depth))
    return tuple(items)


@torch.no_grad()
def passkey_retrieval(
    model: Transformer,
    items: Sequence[PasskeyItem],
    *,
    tokens_per_batch: int = 8192,
    measured: Callable[[int], None] = lambda tokens: None,
) -> PasskeyResult:
    """Ask every item, several together. measured: is told of so many tokens more, after each batch."""
    device = model.device
    found: list[bool] = []
    nats: list[float] = []
    batch: list[PasskeyItem] = []

    def ask() -> None:
        hidden, targets = supervised_hidden(model, _batch(batch).to(device))
        logp = torch.log_softmax(model.head(hidden).float(), dim=-1)
        right = (logp.argmax(-1) == targets).tolist()
        losses = (-logp.gather(1, targets[:, None])[:, 0]).tolist()
        end = 0
        for item in batch:
            begin, end = end, end + item.answer
            found.append(all(right[begin:end]))
            nats.append(sum(losses[begin:end]) / item.answer)
        measured(sum(len(item.tokens) for item in batch))
        batch.clear()

    for item in items:
        if batch and sum(len(i.tokens) for i in batch) + len(item.tokens) > tokens_per_batch:
            ask()
        batch.append(item)
    if batch:
        ask()
    return PasskeyResult(tuple(items), tuple(found), tuple(nats))


def _batch(items: Sequence[PasskeyItem]) -> Batch:
    """The items end to end; targets on the answers only."""
    tokens = torch.tensor([token for item in items for token in item.tokens])
    targets = torch.full_like(tokens, IGNORE)
    end = 0
    for item in items:
        end += len(item.tokens)
        # The token before each answer token is where it is told.
        targets[end - item.answer - 1 : end - 1] = tokens[end - item.answer : end]
    return Batch(tokens, targets, Documents.of_lengths([len(item.tokens) for item in items]))
