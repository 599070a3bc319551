"""Which prompts begin alike: those may share the stored keys and values of that beginning."""

from __future__ import annotations

from collections.abc import Sequence

MIN_SHARED_TOKENS = 32
MIN_SHARED_PROMPTS = 8


def prefix_groups(prompts: Sequence[Sequence[int]], min_tokens: int = MIN_SHARED_TOKENS) -> list[tuple[int, list[int]]]:
    """Groups of prompts as (tokens of their common beginning, their indices); each prompt is in one group.

    A beginning of fewer than min_tokens, or shared by fewer than MIN_SHARED_PROMPTS, is not worth it:
    such prompts form one group with 0 common tokens. No beginning is a whole prompt: what follows it is never
    empty.
    """
    order = sorted(range(len(prompts)), key=lambda index: list(prompts[index]))
    runs: list[tuple[int, list[int]]] = []
    for place, index in enumerate(order):
        # In sorted order a prompt shares most with its neighbours.
        shared = _common_length(prompts[order[place - 1]], prompts[index]) if place else 0
        if shared >= min_tokens:
            length, members = runs[-1]
            members.append(index)
            runs[-1] = (min(length, shared), members)
        else:
            runs.append((len(prompts[index]) - 1, [index]))
    groups = [(length, sorted(members)) for length, members in runs if len(members) >= MIN_SHARED_PROMPTS]
    alone = sorted(index for _, members in runs if len(members) < MIN_SHARED_PROMPTS for index in members)
    if alone:
        groups.append((0, alone))
    return groups


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens at the start that both share, short of either's last one."""
    limit = min(len(first), len(second)) - 1
    for place in range(limit):
        if first[place] != second[place]:
            return place
    return limit
