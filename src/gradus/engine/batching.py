"""Continuous batching: streams of tokens join and leave at every step, each with a slot of the cache.

A stream knows its prompt, how it samples, and what happens when a token is sampled (turn.py); here is only
the machinery: prompts packed end to end for the prefill (`join`) or read chunk by chunk beside the others' steps
(`enter`), one decode step for all live streams, forced tokens fed in place of sampled ones, a finished stream's slot
handed to the last one. A stream that waits for something keeps its slot and is passed over. Who computes, and keeps
what was read for who begins alike, is behind the slots (slots.py).

An exact batch makes each stream's tokens a function of that stream alone, to the last bit: chunks end at fixed
positions, whether they are worked out or found, and the products of a step have so many rows that the bits of one row
do not go by the others (exactness.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradus.engine.llamacpp import LlamaCppModel, LlamaCppSlots
from gradus.engine.logprobs import TokenLogprobs, token_logprobs
from gradus.engine.model_slots import ModelSlots
from gradus.engine.prefix_cache import PrefixCache
from gradus.engine.sampling import Sampling, SamplingBatch, penalise, sample, sampling_batch
from gradus.engine.slots import CHUNK_TOKENS, Slots
from gradus.model.batch import to_device
from gradus.model.transformer import Transformer

PREFILL_TOKENS = 8192
"""Prompt tokens that one prefill packs at most; a single longer prompt still goes in whole."""

_LEAST_READ = 32
"""So many forced tokens are read in chunks; fewer are fed one by one, with the others' steps."""

Decoder = Transformer | LlamaCppModel
"""What computes the steps."""


class TokenStream(Protocol):
    """What the batch needs of one request."""

    @property
    def prompt_ids(self) -> Sequence[int]: ...

    @property
    def sampling(self) -> Sampling: ...

    @property
    def forced(self) -> deque[int]:
        """Tokens that the model reads next whatever it would have sampled; the batch takes them from it."""
        ...

    @property
    def finished(self) -> bool:
        """Set by `push`, or by who no longer wants the rest."""
        ...

    @property
    def num_sampled(self) -> int: ...

    num_cached_tokens: int
    """Of the prompt, those that were found read; told by the batch."""

    def waits(self) -> bool:
        """Whether it waits for something and is not to be fed meanwhile."""
        ...

    @property
    def num_logprobs(self) -> int | None:
        """How many likeliest tokens to tell with each sampled one's log-probability; None for neither."""
        ...

    def allowed(self) -> NDArray[np.bool_] | None:
        """(V,): the tokens that may be sampled next, at least one; None where all may. Not called while `forced`."""
        ...

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        """Take a sampled token; may set `finished` or queue `forced`. logprobs: where they were asked for."""
        ...

    def run_out(self) -> None:
        """No position is left in the context: finish now."""
        ...


@dataclass(eq=False)
class _Row:
    """A live stream in its slot.

    length: positions stored so far, behind the common beginning; next: the token to feed at that position; seen: (V,)
    bool, tokens of prompt and reply where they are penalised; unread: tokens to read before anything is sampled;
    last_chunk: the number, among all rows' chunks, of the last one read for it.
    """

    stream: TokenStream
    length: int
    next: int
    seen: Tensor | None
    unread: deque[int] = field(default_factory=deque)
    last_chunk: int = 0


class DecodeBatch:
    """Up to `num_slots` live streams on one model."""

    @torch.inference_mode()
    def __init__(
        self,
        model: Decoder,
        num_slots: int,
        vocab_size: int,
        prefix_ids: Sequence[int] = (),
        *,
        row_tile: int | None = None,
        prefixes: PrefixCache | None = None,
    ) -> None:
        """vocab_size: tokens that may be sampled, the first of the model's (which may be padded).

        prefix_ids: with which every prompt that joins begins, and goes on; computed and stored once. row_tile: the
        batch is exact, with products of so many rows or a multiple; None where it need not be. prefixes: where streams
        that enter look for what was read before.
        """
        self.vocab_size = vocab_size
        self.prefix_ids = list(prefix_ids)
        self.num_slots = num_slots
        self.device = model.device
        self.slots: Slots
        if isinstance(model, LlamaCppModel):  # whose sequences keep what was read
            self.slots = LlamaCppSlots(model, num_slots, prefix_ids)
        else:
            self.slots = ModelSlots(model, num_slots, prefix_ids, row_tile=row_tile, prefixes=prefixes)
        self._rows: list[_Row] = []  # by slot
        self._num_chunks = 0
        self._sampling: tuple[list[_Row], SamplingBatch] | None = None  # of the rows that last took a step together

    @property
    def num_live(self) -> int:
        return len(self._rows)

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self._rows)

    @torch.inference_mode()
    def join(self, streams: Sequence[TokenStream]) -> list[TokenStream]:
        """Prefill these streams, at most `num_free`, and sample their first tokens.

        Returns those that finished.
        """
        assert len(streams) <= self.num_free
        for group in _prefill_groups(streams, len(self.prefix_ids)):
            self._prefill(group)
        return self.drop_finished()

    @torch.inference_mode()
    def enter(self, stream: TokenStream, salt: str = "") -> None:
        """Take this stream in, where a slot is free; the next steps read its prompt, a chunk each.

        salt: it finds what streams with the same one left.
        """
        assert self.num_free
        prompt = stream.prompt_ids[len(self.prefix_ids) :]
        found = self.slots.open(len(self._rows), prompt, salt)
        stream.num_cached_tokens += found
        self._rows.append(_Row(stream, found, 0, self._prompt_tokens(stream), deque(prompt[found:])))

    @torch.inference_mode()
    def step(self) -> list[TokenStream]:
        """Read one chunk of what is unread, then feed one token to every other live stream and take the next.

        Those that wait are passed over. Returns the streams that finished.
        """
        finished = self.drop_finished()
        ready = {row for row in self._rows if not row.unread and not row.stream.waits()}
        for row in ready:
            self._unread_forced(row)
        unread = [slot for slot, row in enumerate(self._rows) if row.unread]
        fed = [
            slot for slot, row in enumerate(self._rows) if row in ready and not row.unread and not row.stream.finished
        ]
        if unread:
            self._read_chunk(min(unread, key=lambda slot: self._rows[slot].last_chunk))
        if fed:
            self._feed(fed)
        return finished + self.drop_finished()

    @property
    def can_step(self) -> bool:
        """Whether a step would do anything: not where all that live wait."""
        return any(row.stream.finished or row.unread or not row.stream.waits() for row in self._rows)

    def _prefill(self, streams: Sequence[TokenStream]) -> None:
        first = len(self._rows)
        behind = len(self.prefix_ids)
        prompts = [stream.prompt_ids[behind:] for stream in streams]
        hidden, found = self.slots.prefill(first, prompts)
        for stream, count in zip(streams, found, strict=True):
            stream.num_cached_tokens += count
        rows = [_Row(s, len(prompt), 0, self._prompt_tokens(s)) for s, prompt in zip(streams, prompts, strict=True)]
        self._rows += rows
        columns = sampling_batch([stream.sampling for stream in streams], self.vocab_size, self.device)
        self._advance(rows, hidden, columns)

    def _unread_forced(self, row: _Row) -> None:
        """Have many forced tokens read in chunks."""
        forced = row.stream.forced
        if len(forced) < _LEAST_READ:
            return
        if row.length + 1 + len(forced) > self.slots.limit:
            row.stream.run_out()
            return
        row.unread.extend((row.next, *forced))
        if row.seen is not None:
            row.seen[torch.tensor(list(forced), device=self.device)] = True
        forced.clear()

    def _read_chunk(self, slot: int) -> None:
        """Read what is unread in a slot up to the end of a chunk; behind the last one its stream samples."""
        row = self._rows[slot]
        # Up to the prompt's last chunk, which is read for what it says next.
        while found := self.slots.find(slot, row.length, list(islice(row.unread, CHUNK_TOKENS + 1))):
            row.length += found
            row.stream.num_cached_tokens += found
            for _ in range(found):
                row.unread.popleft()
        count = min(CHUNK_TOKENS - row.length % CHUNK_TOKENS, len(row.unread))
        hidden = self.slots.read(slot, row.length, [row.unread.popleft() for _ in range(count)])
        row.length += count
        self._num_chunks += 1
        row.last_chunk = self._num_chunks
        if not row.unread:
            columns = sampling_batch([row.stream.sampling], self.vocab_size, self.device)
            self._advance([row], hidden, columns)

    def _feed(self, slots: Sequence[int]) -> None:
        """Feed one token to the streams in these slots, in rising order, and take the next."""
        rows = [self._rows[slot] for slot in slots]
        hidden = self.slots.step(slots, [row.length for row in rows], [row.next for row in rows])
        for row in rows:
            row.length += 1
        if self._sampling is None or self._sampling[0] != rows:
            rules = [row.stream.sampling for row in rows]
            self._sampling = rows, sampling_batch(rules, self.vocab_size, self.device)
        self._advance(rows, hidden, self._sampling[1])

    def _advance(self, rows: Sequence[_Row], hidden: Tensor, columns: SamplingBatch) -> None:
        """Settle what each of these live streams is fed next.

        hidden: (B, width) at their last token, and maybe more rows that are nobody's.
        """
        streams = [row.stream for row in rows]
        sampled: Sequence[int | None] = [None] * len(streams)
        told: list[TokenLogprobs | None] = [None] * len(streams)
        if not all(stream.forced for stream in streams):
            draws = [stream.num_sampled for stream in streams]
            logits = self.slots.head(hidden)[: len(rows), : self.vocab_size]
            asked = [None if stream.forced else stream.num_logprobs for stream in streams]
            free = logits if all(number is None for number in asked) else logits.clone()
            for place, row in enumerate(rows):
                if row.seen is not None:
                    logits[place] = penalise(logits[place], row.seen, row.stream.sampling.repetition_penalty)
            _forbid(logits, streams)
            sampled = sample(logits, columns, draws).tolist()
            told = token_logprobs(free, sampled, asked)
        for row, token, logprobs in zip(rows, sampled, told, strict=True):
            stream = row.stream
            if stream.forced:
                token = stream.forced.popleft()
            else:
                assert token is not None
                stream.push(token, logprobs)
                if stream.finished:
                    continue
            if row.seen is not None:
                row.seen[token] = True
            if row.length >= self.slots.limit:
                stream.run_out()
                continue
            row.next = token

    def _prompt_tokens(self, stream: TokenStream) -> Tensor | None:
        """(V,) bool: the tokens of its prompt, where repetition is penalised."""
        if stream.sampling.repetition_penalty == 1.0:
            return None
        seen = torch.zeros(self.vocab_size, dtype=torch.bool, device=self.device)
        seen[torch.tensor(stream.prompt_ids, device=self.device)] = True
        return seen

    @torch.inference_mode()
    def drop_finished(self) -> list[TokenStream]:
        """Free the slots of finished streams; the last live one moves into each hole."""
        gone = [(slot, row) for slot, row in enumerate(self._rows) if row.stream.finished]
        for slot, _ in reversed(gone):
            self.slots.leave(slot)
            last = self._rows.pop()
            if slot != len(self._rows):
                self.slots.move(len(self._rows), slot)
                self._rows[slot] = last
        return [row.stream for _, row in gone]


def _forbid(logits: Tensor, streams: Sequence[TokenStream]) -> None:
    """Set to -inf, in place, what the streams do not allow. logits: (B, V)."""
    masks = {row: stream.allowed() for row, stream in enumerate(streams) if not stream.forced}
    allowed = {row: mask for row, mask in masks.items() if mask is not None}
    if allowed:
        rows = to_device(torch.tensor(list(allowed)), logits.device)
        forbidden = to_device(torch.from_numpy(~np.stack(list(allowed.values()))), logits.device)  # (rows, V)
        logits[rows] = logits[rows].masked_fill(forbidden, -torch.inf)


def _prefill_groups(streams: Sequence[TokenStream], behind: int) -> list[list[TokenStream]]:
    """Runs of streams whose prompts, behind their common beginning, hold at most PREFILL_TOKENS."""
    groups: list[list[TokenStream]] = []
    room = 0
    for stream in streams:
        length = len(stream.prompt_ids) - behind
        if not groups or length > room:
            groups.append([])
            room = PREFILL_TOKENS
        groups[-1].append(stream)
        room -= length
    return groups
