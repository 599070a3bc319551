"""Checkpoints: folders that are either whole or not there, for any number of processes.

Commit: write `step-N.tmp-<nonce>/`, push every file to the disk, write manifest.json with sizes and
checksums last, rename to `step-N` (saving.py). A folder counts only while its files match its manifest; others are
passed over with a warning and left where they are. The weights (model.safetensors, or several files with an index
where several processes wrote them) and config.json are a model folder by themselves.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from gradus.core.checkpoint_measures import best_step, noted_measures
from gradus.core.errors import ArtifactError, GradusError, TrainingError
from gradus.core.files import is_disk_full, write_atomic
from gradus.core.fingerprint import file_digest
from gradus.core.home import MEASURES_FILE, PROTECTED_FILE
from gradus.model.lora import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    adapter_config_text,
    adapters_from_stored,
    adapters_to_stored,
)
from gradus.model.rows import held
from gradus.model.tensor_files import TensorFiles
from gradus.model.transformer import Transformer
from gradus.model.weights import CONFIG_FILE, WEIGHTS_FILE, config_text, from_stored, load_config, to_stored
from gradus.model.xla import on_host
from gradus.train.exchange import Exchange
from gradus.train.optimizers import Optimizer
from gradus.train.parallel import World
from gradus.train.saving import FORMAT_VERSION, MANIFEST_FILE, Part, Saving
from gradus.train.sharding import let_go

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{8})")
_TEMPORARY = re.compile(r"step-\d{8}\.tmp-[0-9a-f]+")
OPTIMIZER_FILE = "optimizer.safetensors"
EXTRA_FILE = "extra.safetensors"
STATE_FILE = "state.json"
BEST_LINK = "best"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint; state is the JSON that was saved beside the tensors."""

    path: Path
    step: int
    state: dict[str, Any]

    def load_weights(self, model: Transformer) -> None:
        """Copy the weights into a model of the same config, of a sharded one the rows held here."""
        config = load_config(self.path)
        if config != model.config:
            raise ArtifactError(f"{self.path}: made for another model: {config}, expected {model.config}")
        if model.lora is None and (self.path / ADAPTER_CONFIG_FILE).exists():
            raise ArtifactError(
                f"{self.path}: its adapters would be left behind by a model without adapters; expected "
                "one that trains them"
            )
        with TensorFiles(self.path, WEIGHTS_FILE) as tensors:
            from_stored(model, tensors, str(self.path / WEIGHTS_FILE))
        if model.lora is not None:
            with TensorFiles(self.path, ADAPTER_WEIGHTS_FILE) as tensors:
                adapters_from_stored(model, tensors, str(self.path / ADAPTER_WEIGHTS_FILE))

    def load_optimizer(self, optimizer: Optimizer) -> None:
        """Copy the optimizer state, as far as it is held here."""
        with TensorFiles(self.path, OPTIMIZER_FILE) as tensors:
            optimizer.load_state(tensors, str(self.path / OPTIMIZER_FILE))

    def carry_over(self, optimizer: Optimizer) -> None:
        """Let a new run begin with this one's optimizer state, as far as it is held here."""
        with TensorFiles(self.path, OPTIMIZER_FILE) as tensors:
            optimizer.carry_over(tensors, self.step, str(self.path / OPTIMIZER_FILE))

    def extra(self) -> dict[str, Tensor]:
        """The tensors saved beside weights and optimizer."""
        with TensorFiles(self.path, EXTRA_FILE) as tensors:
            return {name: tensor[...] for name, tensor in tensors.items()}


def open_checkpoint(path: Path, verify: bool = True) -> Checkpoint:
    """A checkpoint folder; ArtifactError says what is wrong. verify: check every file against the manifest."""
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
    if version != FORMAT_VERSION:
        raise ArtifactError(f"{path}: format version {version}, expected {FORMAT_VERSION}")
    for name, expected in files.items() if verify else ():
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
    """The checkpoints of one run in one folder.

    Which stay: the newest `keep`, at least two; the one with the lowest measure `best_by`, if that is named; those in
    `protect` or with a file called "protected" inside. identity: a name for the run, such as its fingerprint; a
    checkpoint of another identity is refused. world: the processes that save and load together; all of them call
    every method but `steps` and `path`. background: write while training goes on; `finish` waits for the last, and
    leaving a `with` block ends it after an error.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        identity: str = "",
        *,
        protect: Collection[int] = (),
        best_by: str | None = None,
        world: World | None = None,
        background: bool = False,
    ) -> None:
        self.folder = folder
        self.keep = max(2, keep)
        self.identity = identity
        self.protect = frozenset(protect)
        self.best_by = best_by
        self.world = world or World()
        self.background = background
        self._known_whole: set[int] = set()  # written or read in full by this process
        self._saving: tuple[int, Saving] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # After an error another process may be gone, and what is being written must not wait for its part.
        if self._saving is not None:
            self._saving[1].abandon()

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
        self.finish()
        found: Checkpoint | None = None
        problem: ArtifactError | None = None
        if self.world.is_main:
            # One process reads every byte; the others take its word.
            try:
                found = self._latest_here()
            except ArtifactError as error:
                problem = error
        if not self.world.all_agree(problem is None):
            raise problem or ArtifactError(f"{self.folder}: the main process refuses the checkpoints here")
        step = self.world.most(found.step + 1 if found is not None else 0) - 1
        if found is None and step >= 0:
            found = open_checkpoint(self.path(step), verify=False)
        return found

    def _latest_here(self) -> Checkpoint | None:
        for step in reversed(self.steps()):
            try:
                checkpoint = open_checkpoint(self.path(step))
            except ArtifactError as problem:
                _LOG.warning("%s; passing it over (it is left in place)", problem)
                self._known_whole.discard(step)
                continue
            if checkpoint.state["identity"] != self.identity:
                raise ArtifactError(
                    f"{checkpoint.path} belongs to another run ({checkpoint.state['identity']!r}, expected "
                    f"{self.identity!r}); move it away or choose another folder"
                )
            self._known_whole.add(step)
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

        In the background this returns once everything is copied, and the next `save`, `latest` or `finish` tells of
        a failure. Raises TrainingError where the disk is full.
        """
        self.finish()
        part = self._part(model, optimizer, dict(state) | {"identity": self.identity}, extra)
        nonce = self.world.most(secrets.randbits(31) if self.world.is_main else 0)
        target = self.path(step)
        work = self.folder / f"{target.name}.tmp-{nonce:08x}"

        def make_room() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear_unfinished()
            work.mkdir()
            if target.exists():
                aside = target.with_name(f"{target.name}.replaced-{secrets.token_hex(4)}")
                _LOG.warning("%s exists already; it is moved to %s", target, aside.name)
                target.rename(aside)

        with self._full_disk_told(step):
            self._on_main(make_room)
        self._saving = step, Saving(work, target, part, self.world, self.background)
        if not self.background:
            self.finish()
        return target

    def finish(self) -> None:
        """Wait for the checkpoint that is being written in the background; raises what went wrong with it."""
        if self._saving is None:
            return
        (step, saving), self._saving = self._saving, None
        with self._full_disk_told(step):
            saving.finish()
        self._known_whole.add(step)
        self._on_main(self._retire)

    def note(self, step: int, measures: Mapping[str, float]) -> None:
        """Note what a checkpoint was measured at: the one with the lowest `best_by` stays, linked as `best`.

        measures: those of the main process count; others may have none. Errors: TrainingError where there is no such
        measure.
        """
        best_by = self.best_by
        if best_by is None:
            return
        self.finish()

        def link_best() -> None:
            if best_by not in measures:
                found = ", ".join(measures) or "none"
                raise TrainingError(f'keep_best = "{best_by}" is no measure of this stage; there are: {found}')
            if step not in self.steps():
                return
            noted = noted_measures(self.folder) | {step: measures[best_by]}
            kept = {str(s): m for s, m in sorted(noted.items()) if s in self.steps()}
            write_atomic(self.folder / MEASURES_FILE, json.dumps(kept))
            best = self._best()
            assert best is not None
            link = self.folder / f"{BEST_LINK}.tmp-{secrets.token_hex(4)}"
            link.symlink_to(self.path(best).name)
            os.replace(link, self.folder / BEST_LINK)
            self._retire()

        self._on_main(link_best)

    def _on_main(self, act: Callable[[], None]) -> None:
        """Let the main process do what concerns the folder as a whole; where it cannot, no other waits for it."""
        problem: OSError | GradusError | None = None
        if self.world.is_main:
            try:
                act()
            except (OSError, GradusError) as error:
                problem = error
        if not self.world.all_agree(problem is None):
            raise problem or TrainingError(f"{self.folder}: the main process could not save the checkpoint")

    @contextmanager
    def _full_disk_told(self, step: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not is_disk_full(error):
                raise
            kept = ", ".join(map(str, self.steps())) or "none"
            raise TrainingError(
                f"{self.folder}: the disk is full, step {step} could not be saved; earlier checkpoints "
                f"are intact (steps {kept}); free some space and run the same command again"
            ) from error

    def _part(
        self, model: Transformer, optimizer: Optimizer, state: Mapping[str, Any], extra: Mapping[str, Tensor]
    ) -> Part:
        """What this process writes; copies, so that training may go on."""
        let_go(model, self.world)
        parameters = dict(model.named_parameters())
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        exchange = Exchange(shapes, {name: float(p.numel()) for name, p in parameters.items()}, self.world)
        owned = exchange.to_owner({name: on_host(held(p)).detach() for name, p in parameters.items()})
        shared = {WEIGHTS_FILE: _owned(to_stored(model, owned)), OPTIMIZER_FILE: _owned(optimizer.state())}
        if model.lora is not None:
            shared[ADAPTER_WEIGHTS_FILE] = _owned(adapters_to_stored(owned))
        if not self.world.is_main:
            return Part(shared)
        texts = {CONFIG_FILE: config_text(model.config, torch.float32), STATE_FILE: json.dumps(state, indent=1)}
        if model.lora is not None:
            texts[ADAPTER_CONFIG_FILE] = adapter_config_text(model.lora)
        return Part(shared, {EXTRA_FILE: _owned(extra)}, texts)

    def _best(self) -> int | None:
        return best_step(self.folder, self.steps())

    def _clear_unfinished(self) -> None:
        """Remove what a killed save left behind: it was never a checkpoint."""
        for path in self.folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                _LOG.warning("removing %s, left by an interrupted save", path)
                shutil.rmtree(path)

    def _retire(self) -> None:
        """Delete what need not stay. Damaged checkpoints are neither counted nor deleted."""
        best = self._best() if self.best_by is not None else None
        whole = 0
        for step in reversed(self.steps()):
            path = self.path(step)
            if not self._is_whole(step):
                continue
            whole += 1
            stays = step == best or step in self.protect or (path / PROTECTED_FILE).exists()
            if whole > self.keep and not stays:
                doomed = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
                # Renamed first, so that a kill between two deletions leaves no half checkpoint.
                os.rename(path, doomed)
                shutil.rmtree(doomed)

    def _is_whole(self, step: int) -> bool:
        if step not in self._known_whole:
            try:
                open_checkpoint(self.path(step))
            except ArtifactError:
                return False
            self._known_whole.add(step)
        return True


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, none sharing memory, as safetensors wants them."""
    return {
        name: tensor.cpu().detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
