"""Dividing a corpus's sources into portions: the units that are prepared, resumed and written one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gradus.data.shard_tasks import ShardTask

PORTION_BYTES = 1 << 26
"""Raw bytes at which a portion of several shards is full: fixed, since it decides the names of the final shards."""
_MOST_TASKS = 4096


@dataclass(frozen=True, slots=True)
class Portion:
    """Consecutive shards of one source. number: its place in the corpus."""

    number: int
    tasks: tuple[ShardTask, ...]

    @property
    def source(self) -> int:
        """Position of the source in the stage's list."""
        return self.tasks[0].source

    @property
    def label(self) -> str:
        """For messages: the name of its shard, or of the first and how many more."""
        more = len(self.tasks) - 1
        return self.tasks[0].name + (f" and {more} more" if more else "")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        return {"number": self.number, "label": self.label, "tasks": [task.to_json() for task in self.tasks]}


def portions_of(tasks: Iterable[ShardTask], first: int = 0) -> Iterator[Portion]:
    """The tasks in order, small ones of a source together, one of unknown size alone. first: the first number."""
    number = first
    pending: list[ShardTask] = []
    size = 0
    for task in tasks:
        task_bytes = PORTION_BYTES if task.size is None else task.size
        full = size + task_bytes > PORTION_BYTES or len(pending) >= _MOST_TASKS
        if pending and (full or task.source != pending[0].source):
            yield Portion(number, tuple(pending))
            number, pending, size = number + 1, [], 0
        pending.append(task)
        size += task_bytes
    if pending:
        yield Portion(number, tuple(pending))
