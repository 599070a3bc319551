"""An exported GGUF file in llama.cpp itself: logits, greedy text, ids of text.

Its cache is fp32 here, where it is fp16 by default, and it computes attention step by step, so that what is compared is
the model and not their rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from gradus.core.errors import ExportError, GenerationError
from gradus.engine.llamacpp_library import LlamaCppContext, LlamaCppFile


class LlamaCppReader:
    """One file, loaded, with room for rows of so many tokens."""

    # Its splitter does not fold the long s: for the expression that all others follow, that is an 's.
    unread: tuple[str, ...] = ("'\u017f",)

    def __init__(self, path: Path, longest: int) -> None:
        """longest: tokens of the longest row. Errors: GenerationError where llama.cpp does not load the file."""
        self._file = LlamaCppFile(path)
        self.name = self._file.name
        self._context = LlamaCppContext(self._file, 1, longest + 64, exact=True)

    def close(self) -> None:
        """Give back its memory."""
        self._context.close()

    def logits(self, ids: Sequence[int], places: Sequence[int]) -> Tensor:
        self._context.forget(0)
        wanted = set(places)
        here = [place in wanted for place in range(len(ids))]
        return torch.from_numpy(self._context.read(ids, range(len(ids)), [0] * len(ids), here))

    def greedy(self, beginnings: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        return [self._answer(beginning, count) for beginning in beginnings]

    def _answer(self, beginning: Sequence[int], count: int) -> list[int]:
        self._context.forget(0)
        length = len(beginning)
        last = [False] * (length - 1) + [True]
        rows = self._context.read(beginning, range(length), [0] * length, last)
        answer = [int(rows[0].argmax())]
        for place in range(length, length + count - 1):
            answer.append(int(self._context.read(answer[-1:], [place], [0], [True])[0].argmax()))
        return answer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._file.encode(text) for text in texts]


@contextmanager
def llamacpp_reader(path: Path, longest: int) -> Iterator[LlamaCppReader]:
    """A reader of a file for as long as the block runs. Errors: ExportError for all that llama.cpp refuses."""
    try:
        reader = LlamaCppReader(path, longest)
        try:
            yield reader
        finally:
            reader.close()
    except GenerationError as error:
        raise ExportError(str(error)) from error
