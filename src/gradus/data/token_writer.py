"""Writing token shards: tasks in any order and in any process, joined to the set all together or not at all.

An append has numbered tasks, each of which writes shards under names of its own (`00012-000`, `00012-001`, ...), so
the files are the same in any number of processes. A finished task leaves a marker in `<side>/pending/`; the append is
done when the manifest, replaced at once, has their entries and a new generation. Until then the set is what it was:
files that no manifest and no marker knows are half-written, and the next append removes them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.files import link_or_copy, write_atomic
from gradus.core.fingerprint import digest
from gradus.data.lengths import counted_length_statistics, merged_counts
from gradus.data.token_manifest import (
    Layout,
    SetFacts,
    ShardEntry,
    TokenManifest,
    extended_manifest,
    manifest_path,
    read_manifest,
    set_facts,
)
from gradus.data.token_task import PENDING, TaskWriter, TokenTask, finished_task, marker_path
from gradus.tokenizer.tokenizer import Tokenizer

# 256 MiB of uint16.
SHARD_TOKENS = 1 << 27


class TokenAppend:
    """One append to a token shard set: its tasks, and their commit as a new generation."""

    def __init__(
        self,
        folder: Path,
        split: str,
        facts: SetFacts,
        source_shards: Sequence[str],
        *,
        filters: str = "",
        content: str = "",
        shard_tokens: int = SHARD_TOKENS,
        generation: int | None = None,
    ) -> None:
        """Begin an append, or go on with the same one where it was interrupted.

        source_shards: one task each, by the name of what it reads. filters: fingerprint of what judged the texts.
        content: digest of what the source shards hold; these three, the facts and shard_tokens are what "the same"
        means, and whether a finished task is taken over. generation: the one that this append
        makes, the next if None; where the set has it from the same append, there is nothing left to do, and 1 makes
        a new set in the place of any other. Errors: DataError where the set holds ids of another tokenizer or another
        layout, or is not at the generation before.
        """
        self._folder, self._split, self._facts = folder, split, facts
        self._shards, self._path = folder / split, manifest_path(folder, split)
        self._names, self._same = list(source_shards), [filters, content, shard_tokens]
        self._before = read_manifest(folder, split) if self._path.exists() else None
        self.is_committed = self._is_done(generation)
        if self.is_committed:
            self.tasks, self._finished = [], {}
            return
        if generation == 1:
            self._clear()
        (self._shards / PENDING).mkdir(parents=True, exist_ok=True)
        if self._before is not None:
            _refuse_other_facts(self._path, self._before.facts, facts)
        first, identity = self._before.generations[-1].tasks if self._before else 0, self._identity(self._before)
        self.tasks = [
            TokenTask(str(folder), split, first + index, facts, shard_tokens, identity, name, filters)
            for index, name in enumerate(self._names)
        ]
        self._finished = self._sweep()

    def _identity(self, before: TokenManifest | None, generations: int | None = None) -> str:
        """What this append is, after that many generations of the set, all of them if None."""
        old = before.generations[:generations] if before else ()
        chain = old[-1].chain if old else ""
        return digest([chain, asdict(self._facts), self._names, *self._same])

    def _is_done(self, generation: int | None) -> bool:
        """Whether the set has that generation from this very append."""
        generations = self._before.generations if self._before else ()
        made = len(generations)
        if generation is None or generation == made + 1:
            return False
        if generation == made and generations[-1].append == self._identity(self._before, made - 1):
            return True
        if generation == made == 1:
            return False
        raise DataError(
            f"{self._path}: the set has {made} generations, so this cannot become its generation {generation}"
        )

    def _clear(self) -> None:
        """Remove the set that is there; finished tasks of an append that was never committed stay."""
        if self._before is not None:
            self._path.unlink()
            shutil.rmtree(self._shards, ignore_errors=True)
            self._before = None

    @property
    def pending(self) -> list[TokenTask]:
        """The tasks that no marker says are finished."""
        return [task for task in self.tasks if task.number not in self._finished]

    def _sweep(self) -> dict[int, list[ShardEntry]]:
        """Remove what no manifest and no marker knows; the entries of tasks that an earlier run finished."""
        finished: dict[int, list[ShardEntry]] = {}
        for task in self.tasks:
            entries = finished_task(task)
            if entries is not None:
                finished[task.number] = entries
        known = {entry.name for entry in self._before.shards} if self._before else set()
        known |= {entry.name for entries in finished.values() for entry in entries}
        markers = {marker_path(task).name for task in self.tasks if task.number in finished}
        for path in self._shards.iterdir():
            if path.is_file() and path.name.split(".", 1)[0] not in known:
                path.unlink()
        for path in (self._shards / PENDING).iterdir():
            if path.name not in markers:
                path.unlink()
        for path in self._folder.glob(f".{self._path.name}.tmp-*"):
            path.unlink()
        return finished

    def commit(self) -> dict[str, Any]:
        """Join the tasks' shards to the set as a new generation; returns the counts of the whole set.

        Errors: DataError where a task is not finished, or the set was appended to by somebody else meanwhile.
        """
        if self._before is not None and self.is_committed:
            return dict(self._before.generations[-1].counts)
        entries: list[ShardEntry] = []
        for task in self.tasks:
            found = finished_task(task)
            if found is None:
                raise DataError(f"{self._shards}: task {task.number} ({task.source_shard}) is not finished; run again")
            entries += found
        found_now = self._path.read_bytes() if self._path.exists() else None
        if found_now != (self._before.content if self._before else None):
            raise DataError(f"{self._path}: the set was appended to by another process; run again")
        counts = self._counts(entries)
        append = self._identity(self._before)
        content = extended_manifest(
            self._before, self._facts, entries, tasks=len(self.tasks), append=append, counts=counts
        )
        write_atomic(self._path, content)
        self._before, self.is_committed = read_manifest(self._folder, self._split), True
        self.tasks = []
        self._sweep()
        (self._shards / PENDING).rmdir()
        return counts

    def _counts(self, entries: Sequence[ShardEntry]) -> dict[str, Any]:
        """Counts over the set as it will be."""
        every = [*(self._before.shards if self._before else ()), *entries]
        by_source: dict[str, dict[str, int]] = {}
        for entry in every:
            for source in entry.by_source:
                counts = by_source.setdefault(source.name, {"documents": 0, "tokens": 0, "bytes": 0})
                counts["documents"] += source.documents
                counts["tokens"] += source.tokens
                counts["bytes"] += source.bytes
        lengths = merged_counts(self._counted_lengths(entry) for entry in every)
        return {
            "documents": sum(entry.documents for entry in every),
            "tokens": sum(entry.tokens for entry in every),
            "bytes": sum(counts["bytes"] for counts in by_source.values()),
            "by_source": dict(sorted(by_source.items())),
            "document_tokens": counted_length_statistics(lengths[0], lengths[1]),
        }

    def _counted_lengths(self, entry: ShardEntry) -> NDArray[np.int64]:
        bounds = np.fromfile(self._shards / f"{entry.name}.idx", dtype="<u8").astype(np.int64)
        return np.stack(np.unique(np.diff(bounds), return_counts=True))


def _refuse_other_facts(path: Path, before: SetFacts, facts: SetFacts) -> None:
    for name, found in asdict(facts).items():
        expected = getattr(before, name)
        if found != expected:
            raise DataError(
                f"{path}: the set has {name} {str(expected)[:16]}, what would be appended has {str(found)[:16]}; "
                "append with the tokenizer and layout that wrote the set, or write a set of its own"
            )


def adopt_set(old: Path, new: Path, split: str) -> None:
    """Begin the side of `new` with that of `old`, to append to it: the same files under a second name, or copies.

    Nothing is done where `new` has the side already. Errors: DataError where `old` has none.
    """
    if manifest_path(new, split).exists():
        return
    manifest = read_manifest(old, split)
    shutil.rmtree(new / split, ignore_errors=True)
    (new / split).mkdir(parents=True)
    for entry in manifest.shards:
        for suffix in entry.files:
            name = f"{entry.name}.{suffix}"
            link_or_copy(old / split / name, new / split / name)
    write_atomic(manifest_path(new, split), manifest.content)


class TokenWriter:
    """Writes documents of one process into a set; `close` commits them."""

    def __init__(
        self,
        out: Path,
        split: str,
        layout: Layout,
        tokenizer: Tokenizer,
        *,
        separator: int | None = None,
        shard_tokens: int = SHARD_TOKENS,
        append: bool = False,
    ) -> None:
        """append: a new generation of the set that is there; otherwise an earlier set of this name is replaced."""
        facts = set_facts(tokenizer, layout, separator)
        if not append:
            manifest_path(out, split).unlink(missing_ok=True)
            shutil.rmtree(out / split, ignore_errors=True)
        self._append = TokenAppend(out, split, facts, [""], shard_tokens=shard_tokens)
        # What an interrupted writer had finished is written again: nothing says that the documents are the same.
        self._writer = TaskWriter(self._append.tasks[0])
        self.add = self._writer.add

    def close(self) -> dict[str, Any]:
        """Finish the last shard and write the manifest; returns {documents, tokens, bytes, ...} of the set."""
        self._writer.finish()
        return self._append.commit()
