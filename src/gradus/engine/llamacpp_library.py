"""llama.cpp through the package llama-cpp-python: a GGUF file loaded, tokens read into its sequences, logits.

Only its C interface is used. What it prints is kept, for the reason of an error.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradus.core.errors import GenerationError, MissingPackageError
from gradus.core.machine import package_version

PACKAGE = "llama_cpp"
_BATCH, _MICRO_BATCH = 2048, 512
_CELLS = 256  # it rounds the room of a context up to a multiple
_KEPT_LOG = 4000
_ALL_FP32 = "0"  # general.file_type, of llama.cpp's enum


def has_llamacpp() -> bool:
    """Whether llama.cpp is installed where Python can reach it."""
    return importlib.util.find_spec(PACKAGE) is not None


def require_llamacpp() -> None:
    """Errors: MissingPackageError."""
    if not has_llamacpp():
        raise MissingPackageError("llama-cpp-python", "llamacpp")


class LlamaCppFile:
    """A GGUF file, loaded; its memory goes when nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        """Errors: MissingPackageError; GenerationError where llama.cpp does not load the file."""
        self.api = api = library()
        self.name = f"llama.cpp (llama-cpp-python {package_version('llama-cpp-python') or 'of another build'})"
        settings = api.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.handle = api.llama_model_load_from_file(str(path).encode(), settings)
        if not self.handle:
            raise GenerationError(f"{self.name} does not load {path.name}: {last_words()}")
        weakref.finalize(self, api.llama_model_free, self.handle)
        self._vocabulary = api.llama_model_get_vocab(self.handle)
        self.vocab_size = int(api.llama_vocab_n_tokens(self._vocabulary))
        self.num_parameters = int(api.llama_model_n_params(self.handle))
        self.trained_context = int(api.llama_model_n_ctx_train(self.handle))
        self.max_sequences = int(api.llama_max_parallel_sequences())
        self.has_windows = int(api.llama_model_n_swa(self.handle)) > 0
        self.is_fp32 = self.fact("general.file_type") == _ALL_FP32

    def fact(self, key: str) -> str:
        """A value of the file's header as text; "" where it has none."""
        room = ctypes.create_string_buffer(256)
        count = self.api.llama_model_meta_val_str(self.handle, key.encode(), room, len(room))
        return "" if count < 0 else room.value.decode()

    @property
    def values_per_token(self) -> int:
        """Numbers that keys and values of one token hold."""
        architecture = self.fact("general.architecture")
        head = int(self.fact(f"{architecture}.attention.key_length"))
        heads = int(self.api.llama_model_n_head_kv(self.handle))
        return 2 * int(self.api.llama_model_n_layer(self.handle)) * heads * head

    def encode(self, text: str) -> list[int]:
        """llama.cpp's own ids of a text. Errors: GenerationError."""
        data = text.encode()
        room = len(data) + 1
        found = (self.api.llama_token * room)()
        count = self.api.llama_tokenize(self._vocabulary, data, len(data), found, room, False, False)
        if count < 0:
            raise GenerationError(f"{self.name} cannot read the text {data[:40]!r}")
        return list(found[:count])


class LlamaCppContext:
    """Sequences of tokens that were read, with their keys and values in one store of `room` tokens."""

    def __init__(self, file: LlamaCppFile, num_sequences: int, room: int, *, exact: bool) -> None:
        """exact: keys and values are in fp32 and attention is computed step by step, as in the model itself.

        Else they are in fp16 and attention is computed in one pass, which rounds more, and skips what a sequence does
        not see of the common store. Errors: GenerationError where there is no memory for it.
        """
        self.file = file
        self.is_exact = exact
        self.num_sequences = num_sequences
        self.room = -(-room // _CELLS) * _CELLS
        api = file.api
        settings = api.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.kv_unified = self.room, num_sequences, True
        settings.n_batch, settings.n_ubatch = _BATCH, _MICRO_BATCH
        settings.n_threads = settings.n_threads_batch = num_threads()
        settings.swa_full = True  # what lies before a window stays, to be gone on from
        settings.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if exact:
            settings.type_k = settings.type_v = api.GGML_TYPE_F32
            settings.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._handle = api.llama_init_from_model(file.handle, settings)
        if not self._handle:
            raise GenerationError(f"{file.name} has no room for {self.room:,} tokens: {last_words()}")
        self._memory = api.llama_get_memory(self._handle)
        self._batch = batch = api.llama_batch_init(_BATCH, 0, 1)
        # The file outlives its contexts: the finalizer refers to it.
        self._end = weakref.finalize(self, _end_context, file, self._handle, batch)
        self._tokens, self._positions = (np.ctypeslib.as_array(part, (_BATCH,)) for part in (batch.token, batch.pos))
        self._wanted = np.ctypeslib.as_array(batch.logits, (_BATCH,))
        np.ctypeslib.as_array(batch.n_seq_id, (_BATCH,))[:] = 1

    def close(self) -> None:
        """Give back its memory."""
        self._end()

    def read(
        self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> NDArray[np.float32]:
        """Read tokens, each at a position of a sequence; the logits (places, V) behind those that are wanted.

        Errors: GenerationError.
        """
        found = []
        for first in range(0, len(ids), _BATCH):
            part = slice(first, first + _BATCH)
            count = len(ids[part])
            self._batch.n_tokens = count
            self._tokens[:count] = ids[part]
            self._positions[:count] = positions[part]
            self._wanted[:count] = wanted[part]
            for index, sequence in enumerate(sequences[part]):
                self._batch.seq_id[index][0] = sequence
            if self.file.api.llama_decode(self._handle, self._batch) != 0:
                raise GenerationError(f"{self.file.name} could not read {count} tokens: {last_words()}")
            if rows := sum(wanted[part]):
                logits = self.file.api.llama_get_logits(self._handle)
                found.append(np.ctypeslib.as_array(logits, (rows, self.file.vocab_size)).copy())
        if not found:
            return np.empty((0, self.file.vocab_size), dtype=np.float32)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def forget(self, sequence: int, start: int = 0) -> None:
        """Drop what a sequence holds from a position on."""
        self.file.api.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def share(self, source: int, target: int) -> None:
        """Have another sequence, which is empty, begin with all that one holds, which is stored once."""
        self.file.api.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def grown(self, room: int) -> LlamaCppContext:
        """A context with the same content and more room; this one is closed. Errors: GenerationError."""
        api = self.file.api
        size = int(api.llama_state_get_size(self._handle))
        content = (ctypes.c_uint8 * size)()
        written = api.llama_state_get_data(self._handle, content, size)
        self.close()
        larger = LlamaCppContext(self.file, self.num_sequences, room, exact=self.is_exact)
        if written == 0 or api.llama_state_set_data(larger._handle, content, written) != written:
            raise GenerationError(f"{self.file.name} could not move what it had read: {last_words()}")
        return larger


def last_words() -> str:
    """The line in which llama.cpp last told of an error, or its last one."""
    lines = _said.decode(errors="replace").strip().splitlines()
    told = [line for line in lines if "error" in line.lower()] or lines
    return told[-1].strip() if told else "no reason given"


_said = bytearray()


def _note(level: int, text: bytes, data: object) -> None:
    _said.extend(text)
    del _said[:-_KEPT_LOG]


def library() -> Any:
    """The package's C interface, started, its log kept. Errors: MissingPackageError."""
    require_llamacpp()
    return _started()


def num_threads() -> int:
    """That llama.cpp is to compute with: as many as torch does."""
    return torch.get_num_threads()


@functools.cache
def _started() -> Any:
    from llama_cpp import llama_cpp

    llama_cpp.llama_log_set(_log_callback(), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


@functools.cache  # it must live as long as the library
def _log_callback() -> Any:
    from llama_cpp import llama_cpp

    return llama_cpp.llama_log_callback(_note)


def _end_context(file: LlamaCppFile, handle: Any, batch: Any) -> None:
    file.api.llama_batch_free(batch)
    file.api.llama_free(handle)
