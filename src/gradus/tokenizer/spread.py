"""Texts spread over threads: contiguous groups of about equal size, results in the order of the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import TypeVar

T = TypeVar("T")


def groups_of(texts: Sequence[str], most: int) -> list[Sequence[str]]:
    """The texts in at most `most` contiguous groups, each of about the same number of characters."""
    ends = list(accumulate(len(text) for text in texts))
    if not ends or most < 2:
        return [texts] if texts else []
    share = ends[-1] / most
    groups: list[Sequence[str]] = []
    first = 0
    for index, end in enumerate(ends):
        is_full = len(groups) < most - 1 and end >= share * (len(groups) + 1)
        if is_full or index == len(ends) - 1:
            groups.append(texts[first : index + 1])
            first = index + 1
    return groups


def spread(
    work: Callable[[int, Sequence[str]], list[T]],
    texts: Sequence[str],
    threads: int,
    pool: ThreadPoolExecutor | None = None,
) -> list[T]:
    """`work(i, group)` of each group joined; i < threads is no other group's, so that it may own what it works with.

    `work` gains only where it releases the interpreter. pool: threads that are kept from call to call; each new
    thread may get a heap of its own from the C library, and what it frees stays there.
    """
    groups = groups_of(texts, threads)
    if len(groups) < 2:
        return [result for index, group in enumerate(groups) for result in work(index, group)]
    if pool is not None:
        parts = list(pool.map(work, range(len(groups)), groups))
    else:
        with ThreadPoolExecutor(len(groups)) as own:
            parts = list(own.map(work, range(len(groups)), groups))
    return [result for part in parts for result in part]
