"""Many pieces of work at once over one endpoint: bounded, and ended in order when the money is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gradus.core.errors import BudgetError

Key = TypeVar("Key")
Done = TypeVar("Done")


async def in_flight(
    keys: Sequence[Key],
    work: Callable[[Key], Awaitable[Done]],
    most: int,
    watch: Callable[[Key, Done], None],
) -> dict[Key, Done]:
    """What became of each key; at most so many are worked on at a time. watch: called as each is done.

    Errors: BudgetError, after the others have finished what they had paid for; any other at once.
    """
    waiting = iter(keys)
    done: dict[Key, Done] = {}
    spent: list[BudgetError] = []

    async def worker() -> None:
        for key in waiting:
            if spent:
                return
            try:
                done[key] = await work(key)
            except BudgetError as error:
                spent.append(error)
                return
            watch(key, done[key])

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(most, len(keys))):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        # The first says why; the others met the same.
        raise errors.exceptions[0] from None
    if spent:
        raise spent[0]
    return done
