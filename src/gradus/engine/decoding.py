"""Decoding many streams to their ends: in as few batches as memory allows, common beginnings read once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from gradus.engine.batching import DecodeBatch, Decoder, TokenStream
from gradus.engine.llamacpp import LlamaCppModel
from gradus.engine.logprobs import TokenLogprobs
from gradus.engine.prefixes import prefix_groups
from gradus.engine.sampling import GREEDY
from gradus.model.cost import kv_bytes_per_token

MAX_BATCH = 128
CACHE_BYTES = 2**29
_JOIN_SHARE = 16  # wait until 1/16 of the slots are free: a prefill costs about a step however small it is


class BoundedStream(TokenStream, Protocol):
    """A stream that knows how long it may get."""

    @property
    def most_tokens(self) -> int:
        """About how many positions prompt and output may take together."""
        ...


class GreedyStream:
    """A stream of the likeliest tokens, so many of them whatever they are: what two models are compared by."""

    def __init__(self, prompt_ids: Sequence[int], count: int) -> None:
        self.prompt_ids: Sequence[int] = list(prompt_ids)
        self.sampling = GREEDY
        self.forced: deque[int] = deque()
        self.num_logprobs: int | None = None
        self.num_cached_tokens = 0
        self.tokens: list[int] = []
        self.most_tokens = len(prompt_ids) + count
        self.finished = False

    @property
    def num_sampled(self) -> int:
        return len(self.tokens)

    def waits(self) -> bool:
        return False

    def allowed(self) -> None:
        return None

    def push(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        self.tokens.append(token)
        self.finished = len(self.prompt_ids) + len(self.tokens) >= self.most_tokens

    def run_out(self) -> None:
        self.finished = True


def decode_streams(
    model: Decoder,
    streams: Sequence[BoundedStream],
    vocab_size: int,
    *,
    max_batch: int = MAX_BATCH,
    cache_bytes: int = CACHE_BYTES,
) -> Iterator[TokenStream]:
    """Hands out each stream as it ends. What a stream samples depends on no other, up to rounding.

    max_batch: streams decoded at once, fewer where their keys and values would outgrow cache_bytes.
    """
    if not streams:
        return
    groups = [(0, list(range(len(streams))))]
    if model.config.attends_to_all_alone:
        groups = prefix_groups([stream.prompt_ids for stream in streams])
    for shared, members in groups:
        group = [streams[index] for index in members]
        slots = min(_most_slots(model, group, shared, max_batch, cache_bytes), len(group))
        batch = DecodeBatch(model, slots, vocab_size, group[0].prompt_ids[:shared])
        # Longest first, so that neighbours in the cache are about equally long.
        waiting = sorted(group, key=lambda stream: len(stream.prompt_ids))
        join_at = max(1, batch.num_slots // _JOIN_SHARE)
        while waiting or batch.num_live:
            if waiting and (batch.num_free >= join_at or not batch.num_live):
                yield from batch.join([waiting.pop() for _ in range(min(batch.num_free, len(waiting)))])
            yield from batch.step()


def _most_slots(model: Decoder, streams: Sequence[BoundedStream], shared: int, max_batch: int, cache_bytes: int) -> int:
    """How many slots keep to max_batch and cache_bytes, if every slot grew to the longest stream; at least 1."""
    longest = min(model.config.context, max(stream.most_tokens for stream in streams)) - shared
    if isinstance(model, LlamaCppModel):
        token_bytes, max_batch = model.config.bytes_per_token, min(max_batch, model.config.num_at_once)
    else:
        token_bytes = kv_bytes_per_token(model.config, model.compute_dtype.itemsize)
    return max(1, min(max_batch, cache_bytes // (longest * token_bytes)))
