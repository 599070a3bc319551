"""The slots of llama.cpp without it: a context of lists in its place, whose next token is a function of all before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gradus.engine import llamacpp
from gradus.engine.batching import DecodeBatch
from gradus.engine.decoding import GreedyStream
from gradus.engine.llamacpp import LlamaCppConfig, LlamaCppModel

VOCAB, CONTEXT = 50, 400


def next_token(history: Sequence[int]) -> int:
    return sum(place * token for place, token in enumerate(history, start=3)) % VOCAB


class Lists:
    """A context that knows the tokens of each sequence, and refuses what llama.cpp could not do."""

    def __init__(self, file: object, number: int, room: int, exact: bool) -> None:
        self.num_sequences, self.room = number, room
        self.held: list[list[int]] = [[] for _ in range(number)]

    def read(
        self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> NDArray[np.float32]:
        rows = []
        for token, position, sequence, is_wanted in zip(ids, positions, sequences, wanted, strict=True):
            assert position == len(self.held[sequence])
            self.held[sequence].append(token)
            if is_wanted:
                rows.append(np.eye(VOCAB, dtype=np.float32)[next_token(self.held[sequence])])
        return np.array(rows, dtype=np.float32).reshape(-1, VOCAB)

    def forget(self, sequence: int, start: int = 0) -> None:
        del self.held[sequence][start:]

    def share(self, source: int, target: int) -> None:
        self.held[target] = list(self.held[source])

    def grown(self, room: int) -> Lists:
        self.room = room
        return self


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> LlamaCppModel:
    monkeypatch.setattr(llamacpp, "LlamaCppContext", Lists)
    made: Any = LlamaCppModel.__new__(LlamaCppModel)
    made.file = SimpleNamespace(is_fp32=True, max_sequences=64, has_windows=False)
    made.config = LlamaCppConfig(CONTEXT, VOCAB, 8, 100, max_slots=63, num_at_once=4)
    made.device, made._idle = torch.device("cpu"), []
    return made


def expected(stream: GreedyStream) -> list[int]:
    history = list(stream.prompt_ids)
    while len(history) < stream.most_tokens:
        history.append(next_token(history))
    return history[len(stream.prompt_ids) :]


@pytest.mark.parametrize("prefix_length", [0, 9])
@pytest.mark.parametrize("enters", [False, True])
def test_streams_that_come_and_go_hear_what_their_own_tokens_say(
    model: LlamaCppModel, prefix_length: int, enters: bool
) -> None:
    draw = random.Random(2)
    beginning = [draw.randrange(VOCAB) for _ in range(prefix_length)]
    shared = [draw.randrange(VOCAB) for _ in range(90)]
    prompts = [[*beginning, *shared[: draw.choice([1, 30, 90])], draw.randrange(VOCAB)] for _ in range(12)]
    streams = [GreedyStream(prompt, draw.randrange(1, 30)) for prompt in prompts]
    batch = DecodeBatch(model, 3, VOCAB, beginning)
    waiting = list(streams)
    while waiting or batch.num_live:
        if waiting and batch.num_free:
            stream = waiting.pop(0)
            if enters:
                batch.enter(stream)
            else:
                batch.join([stream])
        batch.step()
    for stream in streams:
        assert stream.tokens == expected(stream)
    # Kept by sequences whose streams have left; behind a common beginning nothing is.
    assert (sum(stream.num_cached_tokens for stream in streams) > 0) == (enters and not prefix_length)


def test_forced_tokens_are_read_behind_what_was_said(model: LlamaCppModel) -> None:
    stream, other = GreedyStream([4, 5, 6], 60), GreedyStream([7], 30)
    batch = DecodeBatch(model, 2, VOCAB)
    batch.join([stream, other])
    batch.step()
    forced = [number % VOCAB for number in range(40)]
    stream.forced.extend(forced)
    while batch.num_live:
        batch.step()
    said = stream.tokens
    history = [4, 5, 6, *said[:2], *forced]
    for token in said[2:]:
        assert token == next_token(history)
        history.append(token)
    assert other.tokens == expected(other)
