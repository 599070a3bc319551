"""Conversations and pairs rendered to token shards with a mask, under a stated length policy, all counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gradus.conversation.formats.wire import Format, Rendered
from gradus.conversation.messages import Conversation, Message, Pair
from gradus.data.drops import DropLog, Dropped
from gradus.data.length_policy import LengthPolicy, fit_conversation
from gradus.data.lengths import length_statistics
from gradus.data.shards import TokenStore
from gradus.data.token_writer import TokenWriter

_BATCH_CONVERSATIONS = 1024


def render_pool(
    conversations: Iterable[Conversation],
    format: Format,
    out: Path,
    *,
    split: str,
    row_length: int,
    length_policy: LengthPolicy = "drop",
    check: Callable[[Sequence[Conversation], Sequence[Rendered]], None] | None = None,
) -> tuple[TokenStore, dict[str, Any]]:
    """Render conversations into `out`/`split` in the "documents" layout; the store and the counts.

    No document of the store is longer than `row_length`, and each has a trained token. The counts are the
    store's (documents, tokens, by_source, document_tokens) with conversations, whole_tokens (their lengths before the
    policy), trained_tokens, too_long
    (conversations that the policy was applied to), split, truncated, lost_turns (left out of split or
    truncated conversations), and dropped by reason; samples of the drops are in `<split>.drops.json`. check is
    shown each batch of conversations as rendered, before the policy, and raises where they may not be used.
    """
    writer = TokenWriter(out, split, "documents", format.tokenizer)
    drops = DropLog()
    names = ("conversations", "trained_tokens", "too_long", "split", "truncated", "lost_turns")
    tally = dict.fromkeys(names, 0)
    lengths: list[int] = []
    waiting = iter(conversations)
    while batch := list(islice(waiting, _BATCH_CONVERSATIONS)):
        tally["conversations"] += len(batch)
        kept: list[tuple[str, Rendered]] = []
        whole = format.render_many(batch)
        if check is not None:
            check(batch, whole)
        lengths += [len(rendered.ids) for rendered in whole]
        for conversation, rendered in zip(batch, whole, strict=True):
            parts = [rendered]
            if len(rendered.ids) > row_length:
                parts = _fit(conversation, len(rendered.ids), format, row_length, length_policy, tally, drops)
            for part in parts:
                # The first token is nobody's target.
                if part.mask[1:].any():
                    kept.append((conversation.source, part))
                else:
                    drops.add(conversation.source, Dropped("nothing_trained", conversation.id))
        tally["trained_tokens"] += _add(writer, format, kept)
    counts = {
        **writer.close(),
        **tally,
        "whole_tokens": length_statistics(lengths),
        "dropped": dict(sorted(drops.by_reason.items())),
    }
    drops.write(out / f"{split}.drops.json")
    return TokenStore(out, split), counts


def _fit(
    conversation: Conversation,
    num_tokens: int,
    format: Format,
    row_length: int,
    policy: LengthPolicy,
    tally: dict[str, int],
    drops: DropLog,
) -> list[Rendered]:
    tally["too_long"] += 1
    parts = fit_conversation(conversation, row_length, policy, measure=lambda part: len(format.render(part).ids))
    if not parts:
        detail = f"{num_tokens} tokens, more than the row's {row_length}"
        first = next((m.content for m in conversation.messages if m.role == "user"), "")
        drops.add(conversation.source, Dropped("too_long", conversation.id, detail, first))
    else:
        tally["split" if policy == "split" else "truncated"] += 1
        tally["lost_turns"] += _num_turns(conversation) - sum(map(_num_turns, parts))
    return format.render_many(parts)


def _num_turns(conversation: Conversation) -> int:
    return sum(message.role == "user" for message in conversation.messages)


def render_pairs(
    pairs: Iterable[Pair], format: Format, out: Path, *, split: str, row_length: int
) -> tuple[TokenStore, dict[str, Any]]:
    """Render pairs: documents 2i and 2i + 1 of the store are the chosen and the rejected side of pair i.

    Only the answers are trained on, whatever the prompt holds. A pair with a side longer than `row_length`,
    or with sides that render alike, is left out whole and counted.
    """
    writer = TokenWriter(out, split, "documents", format.tokenizer)
    drops = DropLog()
    tally = {"pairs": 0, "kept_pairs": 0, "trained_tokens": 0}
    waiting = iter(pairs)
    while batch := list(islice(waiting, _BATCH_CONVERSATIONS // 2)):
        tally["pairs"] += len(batch)
        rendered = iter(format.render_many(side for pair in batch for side in _sides(pair)))
        kept: list[tuple[str, Rendered]] = []
        for pair, chosen, rejected in zip(batch, rendered, rendered, strict=True):
            longest = max(len(chosen.ids), len(rejected.ids))
            if longest > row_length:
                detail = f"{longest} tokens, more than the row's {row_length}"
                drops.add(pair.source, Dropped("too_long", pair.id, detail))
            elif np.array_equal(chosen.ids, rejected.ids):
                drops.add(pair.source, Dropped("same_answers", pair.id, "both sides render to the same tokens"))
            elif not (chosen.mask[1:].any() and rejected.mask[1:].any()):
                drops.add(pair.source, Dropped("nothing_trained", pair.id))
            else:
                kept += [(pair.source, chosen), (pair.source, rejected)]
        tally["kept_pairs"] += len(kept) // 2
        tally["trained_tokens"] += _add(writer, format, kept)
    counts = {**writer.close(), **tally, "dropped": dict(sorted(drops.by_reason.items()))}
    drops.write(out / f"{split}.drops.json")
    return TokenStore(out, split), counts


def _sides(pair: Pair) -> Iterator[Conversation]:
    """Chosen and rejected as whole conversations whose prompt is not learned from."""
    prompt = tuple(replace(message, train=False) for message in pair.prompt.messages)
    for answer in (pair.chosen, pair.rejected):
        trained: tuple[Message, ...] = tuple(replace(message, train=True) for message in answer)
        yield replace(pair.prompt, messages=(*prompt, *trained))


def _add(writer: TokenWriter, format: Format, kept: list[tuple[str, Rendered]]) -> int:
    """Write the rendered documents; the number of trained targets."""
    if not kept:
        return 0
    token_bytes = format.tokenizer.token_bytes
    rendered = [part for _, part in kept]
    writer.add(
        [part.ids for part in rendered],
        [source for source, _ in kept],
        [int(token_bytes[part.ids].sum()) for part in rendered],
        [part.mask for part in rendered],
    )
    return sum(int(part.mask[1:].sum()) for part in rendered)
