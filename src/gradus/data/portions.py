"""Dividing a corpus's sources into portions: the units that are prepared, resumed and written one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gradus.data.shard_tasks import ShardTask

# A corpus is divided into about so many portions, each between these bounds of text: enough to keep many processes
# busy to the end, few enough to handle. Fixed, since it decides the names of the final shards.
_PORTIONS = 64
LEAST_BYTES = 1 << 22
_MOST_BYTES = 1 << 28
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


def portions_of(tasks: Sequence[ShardTask], first: int = 0) -> Iterator[Portion]:
    """The tasks in order, small ones of a source together, one of unknown size alone. first: the first number."""
    sizes = [task.text_bytes for task in tasks]
    enough = min(_MOST_BYTES, max(LEAST_BYTES, sum(size or 0 for size in sizes) // _PORTIONS))
    number = first
    pending: list[ShardTask] = []
    pending_bytes = 0
    for task, size in zip(tasks, sizes, strict=True):
        task_bytes = enough if size is None else size
        full = pending_bytes + task_bytes > enough or len(pending) >= _MOST_TASKS
        if pending and (full or task.source != pending[0].source):
            yield Portion(number, tuple(pending))
            number, pending, pending_bytes = number + 1, [], 0
        pending.append(task)
        pending_bytes += task_bytes
    if pending:
        yield Portion(number, tuple(pending))
