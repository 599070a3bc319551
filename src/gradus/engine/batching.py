"""Continuous batching: streams of tokens join and leave at every step, each with a slot of the cache.

A stream knows its prompt, how it samples, and what happens when a token is sampled (turn.py); here is only
the machinery: prompts packed end to end for the prefill, one decode step for all live streams, forced tokens
fed in place of sampled ones, a finished stream's slot handed to the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradus.engine.cache import SlotCache
from gradus.engine.logprobs import TokenLogprobs, token_logprobs
from gradus.engine.sampling import Sampling, SamplingBatch, penalise, sample, sampling_batch
from gradus.model.batch import Documents
from gradus.model.transformer import Transformer

PREFILL_TOKENS = 8192
"""Prompt tokens that one prefill packs at most; a single longer prompt still goes in whole."""


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


class DecodeBatch:
    """Up to `num_slots` live streams on one model."""

    @torch.inference_mode()
    def __init__(self, model: Transformer, num_slots: int, vocab_size: int, prefix_ids: Sequence[int] = ()) -> None:
        """vocab_size: tokens that may be sampled, the first of the model's (which may be padded).

        prefix_ids: with which every prompt that joins begins, and goes on; computed and stored once.
        """
        config = model.config
        self.model = model
        self.vocab_size = vocab_size
        self.prefix_ids = list(prefix_ids)
        self.num_slots = num_slots
        self.device = model.device
        prefix = None
        if prefix_ids:
            tokens = torch.tensor(self.prefix_ids, device=self.device)
            assert config.attends_to_all_alone, "this model's prompts cannot share a beginning"
            prefix = model.prefill(tokens, Documents.of_lengths([len(prefix_ids)], self.device))[1].keys_values
        self.cache = SlotCache(
            num_layers=config.depth,
            num_slots=num_slots,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            context=config.context,
            dtype=model.compute_dtype,
            device=self.device,
            prefix=prefix,
            windows=config.windows,
        )
        # Parallel lists, one entry a live slot.
        self._streams: list[TokenStream] = []
        self._lengths: list[int] = []  # positions stored so far, behind the common beginning
        self._next: list[int] = []  # the token to feed at that position
        self._seen: list[Tensor | None] = []  # (V,) bool: tokens of prompt and reply, where they are penalised
        self._sampling: SamplingBatch | None = None  # of all live streams, until the batch changes

    @property
    def num_live(self) -> int:
        return len(self._streams)

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self._streams)

    @torch.inference_mode()
    def join(self, streams: Sequence[TokenStream]) -> list[TokenStream]:
        """Prefill these streams, at most `num_free`, and sample their first tokens.

        Returns those that finished.
        """
        assert len(streams) <= self.num_free
        for group in _prefill_groups(streams, len(self.prefix_ids)):
            self._prefill(group)
        return self._drop_finished()

    @torch.inference_mode()
    def step(self) -> list[TokenStream]:
        """Feed one token to every live stream and take the next. Returns the streams that finished."""
        cancelled = self._drop_finished()
        if not self._streams:
            return cancelled
        tokens = torch.tensor(self._next, device=self.device)
        positions = torch.tensor(self._lengths, device=self.device) + len(self.prefix_ids)
        self.cache.begin_step(self._lengths)
        hidden = self.model.decode(tokens, positions, self.cache)
        self._lengths = [length + 1 for length in self._lengths]
        if self._sampling is None:
            rules = [stream.sampling for stream in self._streams]
            self._sampling = sampling_batch(rules, self.vocab_size, self.device)
        self._advance(0, hidden, self._sampling)
        return cancelled + self._drop_finished()

    def _prefill(self, streams: Sequence[TokenStream]) -> None:
        first = len(self._streams)
        behind = len(self.prefix_ids)
        prompts = [stream.prompt_ids[behind:] for stream in streams]
        lengths = [len(prompt) for prompt in prompts]
        tokens = torch.tensor([token for prompt in prompts for token in prompt], device=self.device)
        documents = Documents.of_lengths(lengths, self.device)
        self.cache.reserve(max(lengths))
        if behind:
            filling = self.cache.filling(documents, first)
            hidden = self.model.decode(tokens, documents.positions + behind, filling)
        else:
            hidden, recording = self.model.prefill(tokens, documents)
            slots = documents.index + first
            for layer, (keys, values) in enumerate(recording.keys_values):
                self.cache.fill(layer, slots, documents.positions, keys, values)
            self.cache.fill_recent(first, recording.recent)
        self._streams += streams
        self._lengths += lengths
        self._next += [0] * len(streams)
        self._seen += [self._prompt_tokens(stream) for stream in streams]
        self._sampling = None
        last = torch.tensor(documents.bounds[1:], device=self.device) - 1
        rules = [stream.sampling for stream in streams]
        columns = sampling_batch(rules, self.vocab_size, self.device)
        self._advance(first, hidden[last], columns)

    def _advance(self, first: int, hidden: Tensor, columns: SamplingBatch) -> None:
        """Settle what each live stream from slot `first` on is fed next.

        hidden: (B, width) at their last token.
        """
        streams = self._streams[first:]
        sampled: Sequence[int | None] = [None] * len(streams)
        told: list[TokenLogprobs | None] = [None] * len(streams)
        if not all(stream.forced for stream in streams):
            draws = [stream.num_sampled for stream in streams]
            logits = self.model.head(hidden)[:, : self.vocab_size]
            asked = [None if stream.forced else stream.num_logprobs for stream in streams]
            free = logits if all(number is None for number in asked) else logits.clone()
            for row, (stream, seen) in enumerate(zip(streams, self._seen[first:], strict=True)):
                if seen is not None:
                    logits[row] = penalise(logits[row], seen, stream.sampling.repetition_penalty)
            _forbid(logits, streams)
            sampled = sample(logits, columns, draws).tolist()
            told = token_logprobs(free, sampled, asked)
        for slot, (stream, token) in enumerate(zip(streams, sampled, strict=True), start=first):
            if stream.forced:
                token = stream.forced.popleft()
            else:
                assert token is not None
                stream.push(token, told[slot - first])
                if stream.finished:
                    continue
            seen = self._seen[slot]
            if seen is not None:
                seen[token] = True
            if self._lengths[slot] >= self.cache.limit:
                stream.run_out()
                continue
            self._next[slot] = token

    def _prompt_tokens(self, stream: TokenStream) -> Tensor | None:
        """(V,) bool: the tokens of its prompt, where repetition is penalised."""
        if stream.sampling.repetition_penalty == 1.0:
            return None
        seen = torch.zeros(self.vocab_size, dtype=torch.bool, device=self.device)
        seen[torch.tensor(stream.prompt_ids, device=self.device)] = True
        return seen

    def _drop_finished(self) -> list[TokenStream]:
        """Free the slots of finished streams; the last live one moves into each hole."""
        gone = [slot for slot, stream in enumerate(self._streams) if stream.finished]
        finished = [self._streams[slot] for slot in gone]
        for slot in reversed(gone):
            last = len(self._streams) - 1
            if slot != last:
                self.cache.move(last, slot, self._lengths[last])
            self._streams[slot] = self._streams[-1]
            self._lengths[slot] = self._lengths[-1]
            self._next[slot] = self._next[-1]
            self._seen[slot] = self._seen[-1]
            del self._streams[-1], self._lengths[-1], self._next[-1], self._seen[-1]
        if gone:
            self._sampling = None
        return finished


def _forbid(logits: Tensor, streams: Sequence[TokenStream]) -> None:
    """Set to -inf, in place, what the streams do not allow. logits: (B, V)."""
    masks = {row: stream.allowed() for row, stream in enumerate(streams) if not stream.forced}
    allowed = {row: mask for row, mask in masks.items() if mask is not None}
    if allowed:
        rows = torch.tensor(list(allowed), device=logits.device)
        forbidden = ~torch.from_numpy(np.stack(list(allowed.values()))).to(logits.device)  # (rows, V)
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
