"""Checkpoints: folders that are either whole or not there.

Commit: write `step-N.tmp-<nonce>/`, push every file to the disk, write manifest.json with sizes and
checksums last, rename to `step-N`. A folder counts only while its files match its manifest; others are
passed over with a warning and left where they are. model.safetensors and config.json are a model folder by
themselves.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradus.core.errors import ArtifactError, TrainingError
from gradus.core.files import fsync_file, fsync_folder, is_disk_full, write_atomic
from gradus.core.fingerprint import file_digest
from gradus.model.transformer import Transformer
from gradus.model.weights import WEIGHTS_FILE, from_stored, load_config, save_model
from gradus.train.optimizers import Optimizer

_LOG = logging.getLogger(__name__)
_FORMAT_VERSION = 1
_NAME = re.compile(r"step-(\d{8})")
_TEMPORARY = re.compile(r"step-\d{8}\.tmp-[0-9a-f]+")
OPTIMIZER_FILE = "optimizer.safetensors"
EXTRA_FILE = "extra.safetensors"
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint; state is the JSON that was saved beside the tensors."""

    path: Path
    step: int
    state: dict[str, Any]

    def load_weights(self, model: Transformer) -> None:
        """Copy the weights into a model of the same config."""
        config = load_config(self.path)
        if config != model.config:
            raise ArtifactError(f"{self.path}: made for another model: {config}, expected {model.config}")
        from_stored(model, load_file(self.path / WEIGHTS_FILE), str(self.path / WEIGHTS_FILE))

    def load_optimizer(self, optimizer: Optimizer) -> None:
        """Copy the optimizer state."""
        optimizer.load_state(load_file(self.path / OPTIMIZER_FILE), str(self.path / OPTIMIZER_FILE))

    def extra(self) -> dict[str, Tensor]:
        """The tensors saved beside weights and optimizer."""
        return load_file(self.path / EXTRA_FILE)


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint folder, every file checked against the manifest; ArtifactError says what is wrong."""
    match = _NAME.fullmatch(path.name)
    if match is None or not path.is_dir():
        raise ArtifactError(f"{path}: no checkpoint folder (expected step-NNNNNNNN)")
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        files = manifest["files"]
        version = manifest["format_version"]
    except FileNotFoundError:
        raise ArtifactError(f"{path}: {MANIFEST_FILE} is missing; it was never finished") from None
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path}: {MANIFEST_FILE} is damaged") from None
    if version != _FORMAT_VERSION:
        raise ArtifactError(f"{path}: format version {version}, expected {_FORMAT_VERSION}")
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise ArtifactError(f"{path}: {name} is missing")
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise ArtifactError(f"{path}: {name} has {size} bytes, expected {expected['bytes']}")
        if file_digest(file) != expected["sha256"]:
            raise ArtifactError(f"{path}: {name} does not match its checksum")
    return Checkpoint(path, int(match[1]), json.loads((path / STATE_FILE).read_bytes()))


class Checkpoints:
    """The checkpoints of one run in one folder; the newest `keep` stay, at least two.

    identity: a name for the run, such as its fingerprint; a checkpoint of another identity is refused.
    """

    def __init__(self, folder: Path, keep: int = 2, identity: str = "") -> None:
        self.folder = folder
        self.keep = max(2, keep)
        self.identity = identity

    def steps(self) -> list[int]:
        """Steps that have a folder, ascending, whole or not."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.folder / f"step-{step:08d}"

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None. Damaged ones are named in the log and left in place."""
        for step in reversed(self.steps()):
            try:
                checkpoint = open_checkpoint(self.path(step))
            except ArtifactError as problem:
                _LOG.warning("%s; passing it over (it is left in place)", problem)
                continue
            if checkpoint.state["identity"] != self.identity:
                raise ArtifactError(
                    f"{checkpoint.path} belongs to another run ({checkpoint.state['identity']!r}, expected "
                    f"{self.identity!r}); move it away or choose another folder"
                )
            return checkpoint
        return None

    def save(
        self,
        step: int,
        model: Transformer,
        optimizer: Optimizer,
        state: Mapping[str, Any],
        extra: Mapping[str, Tensor],
    ) -> Path:
        """Commit a checkpoint, then let older ones go. A failure leaves the older ones as they are.

        Raises TrainingError where the disk is full.
        """
        target = self.path(step)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._clear_unfinished()
        work = self.folder / f"{target.name}.tmp-{secrets.token_hex(4)}"
        try:
            work.mkdir()
            self._write(work, model, optimizer, dict(state) | {"identity": self.identity}, extra)
            if target.exists():
                aside = target.with_name(f"{target.name}.replaced-{secrets.token_hex(4)}")
                _LOG.warning("%s exists already; it is moved to %s", target, aside.name)
                target.rename(aside)
            work.rename(target)
            fsync_folder(self.folder)
        except BaseException as error:
            shutil.rmtree(work, ignore_errors=True)
            if isinstance(error, OSError) and is_disk_full(error):
                kept = ", ".join(map(str, self.steps())) or "none"
                raise TrainingError(
                    f"{self.folder}: the disk is full, step {step} could not be saved; earlier checkpoints "
                    f"are intact (steps {kept}); free some space and run the same command again"
                ) from error
            raise
        self._retire(newest=step)
        return target

    def _write(
        self,
        work: Path,
        model: Transformer,
        optimizer: Optimizer,
        state: Mapping[str, Any],
        extra: Mapping[str, Tensor],
    ) -> None:
        save_model(work, model)
        save_file(_owned(optimizer.state()), work / OPTIMIZER_FILE)
        save_file(_owned(extra), work / EXTRA_FILE)
        (work / STATE_FILE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        files = {}
        for path in sorted(work.iterdir()):
            fsync_file(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        manifest = {"format_version": _FORMAT_VERSION, "torch": torch.__version__, "files": files}
        write_atomic(work / MANIFEST_FILE, json.dumps(manifest, indent=1))

    def _clear_unfinished(self) -> None:
        """Remove what a killed save left behind: it was never a checkpoint."""
        for path in self.folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                _LOG.warning("removing %s, left by an interrupted save", path)
                shutil.rmtree(path)

    def _retire(self, newest: int) -> None:
        """Delete all but the newest `keep` checkpoints; damaged ones are neither counted nor deleted."""
        older = [step for step in reversed(self.steps()) if step < newest]
        whole = 1
        for step in older:
            if whole < self.keep:
                whole += _is_whole(self.path(step))
            elif (self.path(step) / MANIFEST_FILE).exists() and _is_whole(self.path(step)):
                doomed = self.path(step).with_name(f"{self.path(step).name}.tmp-{secrets.token_hex(4)}")
                # Renamed first, so that a kill between two deletions leaves no half checkpoint.
                os.rename(self.path(step), doomed)
                shutil.rmtree(doomed)


def _is_whole(path: Path) -> bool:
    try:
        open_checkpoint(path)
    except ArtifactError:
        return False
    return True


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, none sharing memory, as safetensors wants them."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
