"""What has been worked out of a task's items, kept over interruptions, and shared between processes.

A journal is lines in a folder, a file for each process. It says which questions and which model it belongs to; one of
other questions is begun anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from gradus.train.parallel import World


class Journal:
    """What was found, as JSON, by the number of what was asked. identity: of questions and model together."""

    def __init__(self, folder: Path, identity: str, rank: int = 0) -> None:
        self._folder, self._identity = folder, identity
        self._path = folder / f"{rank}.jsonl"

    def begin(self) -> dict[int, Any]:
        """What earlier runs of any number of processes have; lines from now on go behind it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found: dict[int, Any] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            found |= self._read(path)
        return found

    def open_own(self) -> None:
        """Begin this process's file unless it goes on with the same questions."""
        if not self._path.exists() or self._header(self._path) != self._identity:
            self._path.write_text(json.dumps({"identity": self._identity}) + "\n", encoding="utf-8")
            return
        written = self._path.read_bytes()
        if not written.endswith(b"\n"):
            # A line torn by a kill must not swallow the next one. Cut, not written anew: that could be torn again.
            os.truncate(self._path, written.rfind(b"\n") + 1)

    def append(self, found: dict[int, Any]) -> None:
        """Add what one batch gave."""
        with self._path.open("a", encoding="utf-8") as file:
            for entry in found.items():
                file.write(json.dumps(entry) + "\n")

    def _header(self, path: Path) -> str | None:
        with path.open(encoding="utf-8") as file:
            try:
                return str(json.loads(file.readline())["identity"])
            except (ValueError, KeyError, TypeError):
                return None

    def _read(self, path: Path) -> dict[int, Any]:
        if self._header(path) != self._identity:
            return {}
        return dict(json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[1:-1])


def begin_together(journal: Journal | None, world: World) -> dict[int, Any]:
    """What the journal holds, on every process, each of which may write from now on."""
    done = journal.begin() if journal is not None else {}
    # Nobody may write while another still reads what there is.
    world.all_agree(True)
    if journal is not None:
        journal.open_own()
    return done


def of_all_processes(own: dict[int, Any], world: World) -> dict[int, Any]:
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
