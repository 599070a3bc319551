"""An exported GGUF file in llama.cpp itself, through the package llama-cpp-python: logits, greedy text, ids of text.

Its cache is fp32 here, where it is fp16 by default, and it computes attention step by step, so that what is compared is
the model and not their rounding.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradus.core.errors import ExportError
from gradus.core.machine import package_version

PACKAGE = "llama_cpp"
_BATCH = 512


def has_llamacpp() -> bool:
    """Whether llama.cpp is installed where Python can reach it."""
    return importlib.util.find_spec(PACKAGE) is not None


class LlamaCppReader:
    """One file, loaded; `close` it after use."""

    # Its splitter does not fold the long s: for the expression that all others follow, that is an 's.
    unread: tuple[str, ...] = ("'\u017f",)

    def __init__(self, path: Path, longest: int) -> None:
        """longest: tokens of the longest row. Errors: ExportError where llama.cpp does not load the file."""
        from llama_cpp import llama_cpp

        self._api: Any = llama_cpp
        self.name = f"llama.cpp (llama-cpp-python {package_version('llama-cpp-python') or 'of another build'})"
        self._said = bytearray()
        self._log = self._api.llama_log_callback(self._note)
        self._api.llama_log_set(self._log, ctypes.c_void_p(0))
        self._api.llama_backend_init()
        settings = self._api.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = self._api.llama_model_load_from_file(str(path).encode(), settings)
        if not self._model:
            raise ExportError(f"{self.name} does not load {path.name}: {self._last_error()}")
        self._vocabulary = self._api.llama_model_get_vocab(self._model)
        self._size = self._api.llama_vocab_n_tokens(self._vocabulary)
        self._longest = longest
        self._context = self._api.llama_init_from_model(self._model, self._settings())
        if not self._context:
            raise ExportError(f"{self.name} cannot read {longest} tokens of {path.name}: {self._last_error()}")
        self._batch = self._api.llama_batch_init(_BATCH, 0, 1)

    def _settings(self) -> Any:
        settings = self._api.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = self._longest + 64, _BATCH, _BATCH
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        settings.type_k = settings.type_v = self._api.GGML_TYPE_F32
        settings.flash_attn_type = 0
        return settings

    def _note(self, level: int, text: bytes, data: object) -> None:
        self._said = (self._said + text)[-4000:]

    def _last_error(self) -> str:
        lines = self._said.decode(errors="replace").strip().splitlines()
        told = [line for line in lines if "error" in line.lower()] or lines
        return told[-1].strip() if told else "no reason given"

    def close(self) -> None:
        """Give back its memory."""
        self._api.llama_batch_free(self._batch)
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def logits(self, ids: Sequence[int], places: Sequence[int]) -> Tensor:
        self._forget()
        wanted = set(places)
        rows = []
        for first in range(0, len(ids), _BATCH):
            part = ids[first : first + _BATCH]
            here = [first + index in wanted for index in range(len(part))]
            self._read(part, first, here)
            rows += [self._row(index) for index, is_wanted in enumerate(here) if is_wanted]
        return torch.from_numpy(np.stack(rows))

    def greedy(self, beginnings: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        answers = []
        for beginning in beginnings:
            self._forget()
            self._read(beginning, 0, [False] * (len(beginning) - 1) + [True])
            last = len(beginning) - 1
            answer = [int(self._row(last).argmax())]
            for place in range(len(beginning), len(beginning) + count - 1):
                self._read(answer[-1:], place, [True])
                answer.append(int(self._row(0).argmax()))
            answers.append(answer)
        return answers

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encoded(text.encode()) for text in texts]

    def _encoded(self, data: bytes) -> list[int]:
        room = len(data) + 1
        found = (self._api.llama_token * room)()
        count = self._api.llama_tokenize(self._vocabulary, data, len(data), found, room, False, False)
        if count < 0:
            raise ExportError(f"{self.name} cannot read the text {data[:40]!r}")
        return list(found[:count])

    def _forget(self) -> None:
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)

    def _read(self, ids: Sequence[int], first: int, wanted: Sequence[bool]) -> None:
        batch = self._batch
        batch.n_tokens = len(ids)
        for index, (token, is_wanted) in enumerate(zip(ids, wanted, strict=True)):
            batch.token[index], batch.pos[index] = token, first + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = is_wanted
        if self._api.llama_decode(self._context, batch) != 0:
            raise ExportError(f"{self.name} stopped at token {first}: {self._last_error()}")

    def _row(self, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        pointer = self._api.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, (self._size,)).copy()


@contextmanager
def llamacpp_reader(path: Path, longest: int) -> Iterator[LlamaCppReader]:
    """A reader of a file for as long as the block runs."""
    reader = LlamaCppReader(path, longest)
    try:
        yield reader
    finally:
        reader.close()
