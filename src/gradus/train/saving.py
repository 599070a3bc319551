"""Writing one checkpoint: every process its part, then one commit, in the foreground or behind the training.

Parts hold whole tensors, each by one process, so that a checkpoint does not know how many processes wrote it. A
process tells what it wrote by a report, the last that it does in the folder; the main process takes the reports into
the manifest and renames the folder. Until then nothing counts. No process waits for another here except by those files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor

from gradus.core.errors import TrainingError
from gradus.core.files import fsync_file, fsync_folder, write_atomic
from gradus.core.fingerprint import file_digest
from gradus.model.tensor_files import index_file, part_file, save_tensors
from gradus.train.parallel import World

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Part:
    """What one process writes.

    shared: tensors by the file that all writers' parts make up together; texts and tensors: files that this process
    writes alone. All tensors lie on the host and belong to nobody else.
    """

    shared: Mapping[str, Mapping[str, Tensor]]
    tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class Saving:
    """One checkpoint on its way to the disk.

    work: the folder it is written in, which exists; target: what it becomes; replaced: is called where the target
    exists already. `finish` ends it, on all processes together.
    """

    def __init__(self, work: Path, target: Path, part: Part, world: World, background: bool) -> None:
        self.work, self.target, self.part, self.world = work, target, part, world
        self._abandoned = Event()
        self._executor = ThreadPoolExecutor(1, "saving") if background else None
        # Both in turn on the one thread: the main process waits for the others' reports after its own part.
        self._written = self._start(self._write)
        self._committed: Future[None] | None = None
        if background and world.is_main:
            self._committed = self._start(self._commit)

    def abandon(self) -> None:
        """Wait for no part that is not there yet. What is written in full is still committed."""
        self._abandoned.set()

    def finish(self) -> None:
        """Wait until the checkpoint is whole. Errors are raised on every process, and leave nothing behind."""
        problem = self._written.exception()
        try:
            if not self.world.all_agree(problem is None):
                raise problem or TrainingError(f"{self.target.name}: another process could not write its part")
            if self.world.is_main:
                problem = (self._committed or self._start(self._commit)).exception()
            if not self.world.all_agree(problem is None):
                raise problem or TrainingError(f"{self.target.name}: the main process could not save the checkpoint")
        finally:
            self.abandon()  # where a collective failed another process is gone, and the thread would wait for its part
            if self._executor is not None:
                self._executor.shutdown()
            if self.world.is_main:
                shutil.rmtree(self.work, ignore_errors=True)  # gone where it was renamed

    def _start(self, act: Callable[[], None]) -> Future[None]:
        if self._executor is not None:
            return self._executor.submit(act)
        done: Future[None] = Future()
        try:
            act()
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 (kept, and raised by `finish`)
            done.set_exception(error)
        return done

    def _write(self) -> None:
        """This process's files and its report, durable."""
        if not self.world.holds_first_copy:
            return
        part, parts = self.world.sharer, self.world.sharers
        own = {name if parts == 1 else part_file(name, part, parts): t for name, t in self.part.shared.items() if t}
        for name, tensors in (own | dict(self.part.tensors)).items():
            save_tensors(self.work / name, tensors)
        for name, text in self.part.texts.items():
            (self.work / name).write_text(text, encoding="utf-8")
        files = {}
        for name in sorted({*own, *self.part.tensors, *self.part.texts}):
            files[name] = describe_file(self.work / name)
        maps = {}
        if parts > 1:
            for name, tensors in self.part.shared.items():
                maps[name] = dict.fromkeys(tensors, part_file(name, part, parts))
        fsync_folder(self.work)
        report = self._report(part)
        unfinished = report.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"files": files, "maps": maps}), encoding="utf-8")
        unfinished.rename(report)  # nothing after it: once all reports are there, the main process renames the folder

    def _report(self, part: int) -> Path:
        return self.work / f"report-{part}.json"

    def _commit(self) -> None:
        """Make the folder a checkpoint once every writer has reported."""
        if self._written.exception() is not None:
            return
        files: dict[str, Any] = {}
        maps: dict[str, dict[str, str]] = {}
        for part in range(self.world.sharers):
            report = self._report(part)
            while not report.exists():
                if self._abandoned.wait(_POLL_SECONDS) and not report.exists():
                    raise TrainingError(f"{self.target.name}: process {part} is gone and has not written its part")
            found = json.loads(report.read_text(encoding="utf-8"))
            files |= found["files"]
            for name, weight_map in found["maps"].items():
                maps.setdefault(name, {}).update(weight_map)
            report.unlink()
        for name, weight_map in maps.items():
            index = self.work / index_file(name)
            index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1), encoding="utf-8")
            files[index.name] = describe_file(index)
        manifest = {"format_version": FORMAT_VERSION, "torch": torch.__version__, "files": files}
        write_atomic(self.work / MANIFEST_FILE, json.dumps(manifest, indent=1))
        self.work.rename(self.target)
        fsync_folder(self.target.parent)


def describe_file(path: Path) -> dict[str, Any]:
    """Push a file to the disk; its size and checksum for a manifest."""
    fsync_file(path)
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}
