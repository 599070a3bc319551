"""Encoding whole corpora: the fastest encoder whose ids are those of the tokenizer, watched while it works.

gigatoken keeps the ids of every piece of text that it has met, which makes it ten times faster than tiktoken and
also makes it grow; so each copy of it is replaced after a fixed amount of text. It is trusted where a sample of
difficult text gives the same ids, and then a part of every batch is encoded again by the tokenizer itself: a
difference ends the work, since ids written before may be wrong too. It never sees the control tokens, so that no
text can become one.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import ConfigError, DataError, MissingPackageError
from gradus.core.machine import usable_cores
from gradus.tokenizer.difficult_text import difficult_texts
from gradus.tokenizer.spread import spread
from gradus.tokenizer.tokenizer import Tokenizer, check_text

EncoderName = Literal["auto", "gigatoken", "tiktoken"]
GIGATOKEN_VERSION = "0.10.0"

# A copy that has read so much is replaced; more of it for vocabularies past 65,536, which take longer to load.
# Measured on text that is spelled anew every 4 MB: 330 MB in all at 24 MiB, 430 MB at 64 MiB, unbounded without.
RENEW_BYTES = 24 << 20
# Of each batch, this part of its characters is encoded a second time, and never fewer than the least.
_CHECKED_FRACTION = 1 / 512
_LEAST_CHECKED = 2048
# Before a blank between two letters every known split pattern begins a piece, so text may be cut there.
_BOUNDARY = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")

Ids = NDArray[np.int32] | NDArray[np.uint32]


class Encoder:
    """Encodes batches of texts, for one caller at a time; made by `open_encoder`.

    name: the encoder at work. notice: why it is not the fastest one, None where it is; to be shown to the user.
    checked_tokens: ids that were compared with the tokenizer's own so far.
    """

    def __init__(self, tokenizer: Tokenizer, gigatoken: _Gigatoken | None, notice: str | None) -> None:
        self._tokenizer, self._gigatoken = tokenizer, gigatoken
        self.notice = notice
        self.checked_tokens = 0
        self._batches = 0

    @property
    def name(self) -> str:
        """ "gigatoken", "tiktoken", or "tokenizers" where the vocabulary is one that only its own library encodes."""
        if self._gigatoken is not None:
            return f"gigatoken {GIGATOKEN_VERSION}"
        return "tiktoken" if self._tokenizer.is_fast else "tokenizers"

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, one array each, as `Tokenizer.encode_batch` gives them.

        Errors: DataError on unpaired surrogates, and where a checked part of the batch has other ids.
        """
        if self._gigatoken is None:
            return [*self._tokenizer.encode_batch(texts)]
        for text in texts:
            check_text(text)
        found = self._gigatoken.encode(texts)
        if texts:
            self._check(texts, found, self._gigatoken)
        return [*found]

    def _check(self, texts: Sequence[str], found: Sequence[Ids], gigatoken: _Gigatoken) -> None:
        """Encode a part of the batch again. Which part moves on with every batch."""
        room = max(_LEAST_CHECKED, int(_CHECKED_FRACTION * sum(map(len, texts))))
        first = self._batches * 7919 % len(texts)
        self._batches += 1
        for index in (*range(first, len(texts)), *range(first)):
            text, ids = texts[index], found[index]
            cut = _BOUNDARY.search(text, room, 2 * room) if len(text) > room else None
            if cut is not None:
                text = text[: cut.start()]
            elif len(text) > room:
                # Cut anywhere, it is a text of its own.
                text = text[:room]
                ids = gigatoken.encode([text])[0]
            expected = self._tokenizer.encode_batch([text])[0]
            # The ids of a text begin with those of its beginning.
            if not np.array_equal(ids if cut is None else ids[: len(expected)], expected):
                advice = 'ids written so far cannot be trusted: set encoder = "tiktoken" and encode again'
                raise DataError(_difference(text, ids, expected, advice))
            self.checked_tokens += len(expected)
            room -= len(text)
            if room <= 0:
                return


class _Copy(Protocol):
    """gigatoken's encoder, as much of it as is used here."""

    def encode(self, text: str, /) -> NDArray[np.uint32]: ...

    def encode_batch(self, texts: list[str], /, *, parallel: bool) -> Any: ...


class _Gigatoken:
    """Copies of the gigatoken encoder, one a thread, each replaced when it has read `renew_bytes` of text."""

    def __init__(self, plain_json: str, threads: int, renew_bytes: int) -> None:
        self._json, self._threads, self._renew_bytes = plain_json, threads, renew_bytes
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encoder")
        self._copies: list[_Copy | None] = [None] * threads
        self._read = [0] * threads
        self._copy(0)  # an unsupported tokenizer shows here

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return spread(self._work, texts, self._threads, self._pool)

    def _work(self, index: int, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        if self._threads > 1:
            # Only this call releases the interpreter; its array type costs a third of a second to import.
            rows = self._copy(index).encode_batch([*texts], parallel=False).layout
            self._read[index] += sum(map(len, texts))
            ids, bounds = np.asarray(rows.content.data), np.asarray(rows.offsets.data).tolist()
            return [ids[first:last] for first, last in pairwise(bounds)]
        found = []
        for text in texts:
            # The copy is not kept in a name here: an old one has to be gone before the next is made.
            found.append(self._copy(index).encode(text))
            self._read[index] += len(text)
        return found

    def _copy(self, index: int) -> _Copy:
        if self._read[index] >= self._renew_bytes:
            self._copies[index] = None
            _return_freed_memory()
        copy = self._copies[index]
        if copy is None:
            from gigatoken.gigatoken_rs import load_hf_json

            copy = self._copies[index] = load_hf_json(self._json)
            self._read[index] = 0
        return copy


def open_encoder(
    tokenizer: Tokenizer,
    name: EncoderName = "auto",
    *,
    threads: int | None = None,
    renew_bytes: int | None = None,
) -> Encoder:
    """An encoder whose ids are those of `tokenizer`.

    name: "auto" takes gigatoken where it is installed, knows the split pattern and passes the check, and says in
    `Encoder.notice` why not where it does not; a name is taken or refused. threads: all usable cores if None.
    renew_bytes: text after which a copy of gigatoken is replaced, each thread having its own.
    Errors: MissingPackageError, ConfigError for a tokenizer that gigatoken cannot encode, DataError where its ids
    differ.
    """
    if name == "tiktoken":
        return Encoder(tokenizer, None, None)
    try:
        return Encoder(tokenizer, _open_gigatoken(tokenizer, threads, renew_bytes), None)
    except (MissingPackageError, ConfigError, DataError) as error:
        if name == "gigatoken":
            raise
        if isinstance(error, MissingPackageError):
            reason = f'pip install "gradus[{error.extra}]" brings an encoder that is ten times faster'
        else:
            reason = str(error)
        slow = Encoder(tokenizer, None, None)
        slow.notice = f"{slow.name} encodes: {reason}"
        return slow


def _open_gigatoken(tokenizer: Tokenizer, threads: int | None, renew_bytes: int | None) -> _Gigatoken:
    _require_gigatoken()
    renew_bytes = renew_bytes or RENEW_BYTES * max(1, tokenizer.vocab_size >> 16)
    try:
        found = _Gigatoken(tokenizer.plain_json, threads or usable_cores(), renew_bytes)
    except (RuntimeError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ConfigError(
            f"tokenizer: gigatoken cannot encode it ({reason}); "
            'take pattern = "qwen2" or "cl100k", or encoder = "tiktoken", which is slower'
        ) from error
    texts = difficult_texts(tokenizer.special_tokens)
    for text, ids, expected in zip(texts, found.encode(texts), tokenizer.encode_batch(texts), strict=True):
        if not np.array_equal(ids, expected):
            raise DataError(_difference(text, ids, expected, 'set encoder = "tiktoken"'))
    return found


def _return_freed_memory() -> None:
    """Have glibc give back what a dropped copy held; it would keep it in pieces too small for the next one."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _require_gigatoken() -> None:
    try:
        version = importlib.metadata.version("gigatoken")
    except importlib.metadata.PackageNotFoundError:
        version = None
    # Another version may encode otherwise: the one that was tested is the one that is used.
    if version != GIGATOKEN_VERSION:
        raise MissingPackageError(f"gigatoken=={GIGATOKEN_VERSION}", "data")


def _difference(text: str, found: Ids, expected: Ids, advice: str) -> str:
    shared = min(len(found), len(expected))
    differ = found[:shared].astype(np.int64) != expected[:shared].astype(np.int64)
    place = int(np.argmax(differ)) if differ.any() else shared
    there = [int(ids[place]) if place < len(ids) else "the end" for ids in (found, expected)]
    return (
        f"tokenizer: gigatoken {GIGATOKEN_VERSION} gives other ids than the tokenizer: token {place} of the text that "
        f"begins {text[:60]!r} is {there[0]}, expected {there[1]}; {advice}"
    )
