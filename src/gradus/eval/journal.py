"""What has been worked out of a list of questions: divided among processes, and kept over interruptions.

A journal is lines in a folder, a file for each process. It says which questions and which model it belongs to; one of
other questions is begun anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from gradus.train.parallel import World


class Journal:
    """What was found, as JSON, by the number of what was asked. identity: of questions and model together."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity
        self._path = folder

    def read(self) -> dict[int, Any]:
        """What earlier runs of any number of processes have."""
        found: dict[int, Any] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            found |= self._lines(path)
        return found

    def open(self, rank: int) -> None:
        """Begin a process's file, unless it goes on with the same questions: lines go behind what it holds."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._folder / f"{rank}.jsonl"
        if not self._path.exists() or self._header(self._path) != self._identity:
            self._path.write_text(json.dumps({"identity": self._identity}) + "\n", encoding="utf-8")
            return
        written = self._path.read_bytes()
        if not written.endswith(b"\n"):
            # A line torn by a kill must not swallow the next one. Cut, not written anew: that could be torn again.
            os.truncate(self._path, written.rfind(b"\n") + 1)

    def append(self, found: Mapping[int, Any]) -> None:
        """Add what one batch gave to the file that is open."""
        with self._path.open("ab") as file:
            # In one call of the system, so that no two processes' lines ever mix.
            file.write("".join(json.dumps(entry) + "\n" for entry in found.items()).encode())

    def _header(self, path: Path) -> str | None:
        with path.open(encoding="utf-8") as file:
            try:
                line = file.readline()
                return str(json.loads(line)["identity"]) if line.endswith("\n") else None
            except (ValueError, KeyError, TypeError):
                return None

    def _lines(self, path: Path) -> dict[int, Any]:
        if self._header(path) != self._identity:
            return {}
        return dict(json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[1:-1])


class SharedWork:
    """Questions, numbered from 0, divided among processes; what each of them finds is kept over interruptions.

    kept: what earlier runs have; todo: the numbers that this process is to work out, all processes' together every one
    that is missing. on_progress: called with (questions done, all), of `shown` questions where that many are told. What
    is found is what JSON holds.
    """

    def __init__(
        self,
        count: int,
        journal: Journal | None = None,
        world: World | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        shown: int | None = None,
    ) -> None:
        self._count, self._shown = count, count if shown is None else shown
        self._journal, self._world, self._on_progress = journal, world or World(), on_progress
        self._own: dict[int, Any] = {}
        self.kept: dict[int, Any] = {}
        if journal is not None:
            # One process reads the files: others may see a network file system as it was a moment ago. None writes
            # before it has read.
            self.kept = _of_all_processes(journal.read() if self._world.is_main else {}, self._world)
            journal.open(self._world.rank)
        missing = [number for number in range(count) if number not in self.kept]
        self.todo = missing[self._world.rank :: self._world.size]

    def keep(self, found: Mapping[int, Any]) -> None:
        """Take what was found, by number."""
        self._own.update(found)
        if self._journal is not None and found:
            self._journal.append(found)
        if self._on_progress is not None:
            share = min(1.0, (len(self.kept) + len(self._own) * self._world.size) / max(1, self._count))
            self._on_progress(round(share * self._shown), self._shown)

    def everything(self) -> list[Any]:
        """What all processes have found, in order, on each of them. They call it together."""
        found = self.kept | _of_all_processes(self._own, self._world)
        return [found[number] for number in range(self._count)]


def _of_all_processes(own: dict[int, Any], world: World) -> dict[int, Any]:
    """What each process has, as JSON, together on every one."""
    if world.size == 1:
        return own
    text = json.dumps(list(own.items())).encode()
    lengths = torch.zeros(world.size, dtype=torch.int64)
    lengths[world.rank] = len(text)
    world.sum_([lengths])
    ends = lengths.cumsum(0).tolist()
    whole = torch.zeros(ends[-1], dtype=torch.uint8)
    whole[ends[world.rank] - len(text) : ends[world.rank]] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    world.sum_([whole])
    raw = whole.numpy().tobytes()
    found: dict[int, Any] = {}
    for begin, end in zip([0, *ends], ends, strict=False):
        found |= dict(json.loads(raw[begin:end]))
    return found
