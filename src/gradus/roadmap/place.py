"""Where a stage works: its folder, seed, machine settings, progress, ledger, and how it ends."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gradus.core.artifact import SCRATCH, Artifact, Manifest, commit_artifact, folder_name
from gradus.core.errors import TrainingError
from gradus.core.files import write_atomic
from gradus.core.ledger import Ledger
from gradus.core.machine import PeakMemory, machine_facts, software_versions
from gradus.core.quantity import Quantity
from gradus.core.settings import Settings
from gradus.roadmap.progress import Progress, QuietProgress
from gradus.roadmap.stage import Stage
from gradus.roadmap.tracking import Track
from gradus.train.config import ActivationCheckpointing, Parallel, Precision

CLOCK = "seconds.json"
_CLOCK_EVERY_SECONDS = 2.0


class MachineSettings(Settings):
    """The `[machine]` table: how to run, never what the result is (recorded, not in any fingerprint).

    threads: processor threads, of each process where there are several; None shares all usable cores among them.
    precision: auto uses bf16 where it is faster; fp16, with a loss scale, is for devices without bf16.
    device: auto takes a CUDA GPU where torch sees one, else the processor; "mps" is the GPU of a Mac, experimental;
    "xla" is a TPU through torch_xla, experimental: one process drives all its chips.
    encoder: auto takes gigatoken where it is installed and its ids are proved equal. processes: that share a training
    stage by its rows and an evaluation by its items. For a model of a few million parameters, processes of one thread
    each are faster than one process with many threads.
    parallel: how the model lies on them: "replicate", each holds all of it; "shard", each holds a part of every
    parameter, for models that are too large for one; "hybrid", shared inside a machine, repeated on every machine.
    activation_checkpointing: save memory by running each layer's forward pass again in the backward pass: "full", all
    of it; "selective", all but its products with weights and fused attention; "none".
    compile: whether layers go through torch.compile, which takes a while at the start; not with "selective". auto does
    so on a GPU that has what the compiler needs (Triton and a C compiler).
    offload: whether weights, gradients and the optimizer's state and work are the host's, and a GPU holds only what it
    computes with at the moment; with "shard" or "hybrid" only.
    background_saving: whether checkpoints are written while training goes on; it takes the memory of one more copy on
    the host.
    corpora: where corpora are built and tokenised: on the cores of this machine, or on the Ray cluster that RAY_ADDRESS
    names (one of this machine's cores where it names none).
    profile: so many steps ("20 steps") of each training stage are profiled, after its first few.
    """

    threads: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    device: Literal["auto", "cpu", "cuda", "mps", "xla"] = "auto"
    encoder: Literal["auto", "gigatoken", "tiktoken"] = "auto"
    processes: int = Field(default=1, ge=1)
    parallel: Parallel = "replicate"
    activation_checkpointing: ActivationCheckpointing = "none"
    compile: bool | Literal["auto"] = "auto"
    offload: bool = False
    background_saving: bool = False
    corpora: Literal["local", "ray"] = "local"
    profile: Quantity | None = None

    @field_validator("profile")
    @classmethod
    def _profile_is_in_steps(cls, profile: Quantity | None) -> Quantity | None:
        if profile is not None and profile.unit != "steps":
            raise ValueError(f'expected a number of steps, such as "20 steps", found "{profile}"')
        return profile

    @model_validator(mode="after")
    def _compiled_layers_are_whole(self) -> MachineSettings:
        if self.compile is True and self.activation_checkpointing == "selective":
            raise ValueError(
                'compile = true leaves nothing to select from for activation_checkpointing = "selective"; '
                'choose "full" or "none"'
            )
        return self

    @model_validator(mode="after")
    def _what_is_offloaded_is_sharded(self) -> MachineSettings:
        if self.offload and (self.parallel == "replicate" or self.processes == 1):
            raise ValueError(
                "offload = true is for a model that several processes share by rows; expected processes of at least 2 "
                f'and parallel = "shard" or "hybrid", found {self.processes} and "{self.parallel}"'
            )
        return self


@dataclass
class Place:
    """What `run` of a stage is given besides its settings and inputs.

    work: the artifact's folder while it is made; what is put there is the artifact, except `scratch`.
    scratch: for what resuming needs and the result does not (checkpoints); deleted at commit.
    roadmap_dir: relative paths in settings start here. home: the folder of artifacts/ and runs/.
    """

    stage: Stage
    work: Path
    roadmap_dir: Path
    home: Path
    machine: MachineSettings = field(default_factory=MachineSettings)
    progress: Progress = field(default_factory=QuietProgress)
    ledger: Ledger | None = None
    smoke: bool = False
    makes: str = ""
    stage_version: int = 1
    parents: Mapping[str, str | list[str]] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1
    memory: PeakMemory = field(default_factory=PeakMemory)
    track: Track | None = None

    def __post_init__(self) -> None:
        self._began = self._clocked = time.monotonic()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._before = 0.0
        file = self.scratch / CLOCK
        if file.exists():
            # Time of an interrupted walk counts; its clock file may be torn only if the disk lied.
            earlier = json.loads(file.read_text())
            self._before, self._started = float(earlier["seconds"]), str(earlier["started"])
            self.memory.bytes = int(earlier.get("peak_memory_bytes", 0))

    @property
    def seed(self) -> int:
        """The stage's seed."""
        return self.stage.seed

    @property
    def scratch(self) -> Path:
        """The folder for checkpoints and other state of an unfinished stage; made when asked for."""
        folder = self.work / SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def seconds(self) -> float:
        """Working time of this stage so far, earlier interrupted walks included."""
        return self._before + time.monotonic() - self._began

    def tick(self) -> None:
        """Note the working time now and then, so that it survives a kill."""
        if self.rank == 0 and time.monotonic() - self._clocked >= _CLOCK_EVERY_SECONDS:
            self._clocked = time.monotonic()
            state = {
                "seconds": round(self.seconds, 3),
                "started": self._started,
                "peak_memory_bytes": self.memory.bytes,
            }
            write_atomic(self.scratch / CLOCK, json.dumps(state))

    def record(self, **measures: Any) -> None:
        """Append a measurement to the ledger while the stage runs (step, loss, bpb, ...).

        Errors: TrainingError of one that is no number.
        """
        if self.rank == 0:
            _refuse_no_number(self.stage.name, measures)
        if self.ledger is not None and self.rank == 0:
            self.ledger.append({"event": "measure", "time": now(), "stage": self.stage.name,
                                "fingerprint": self.stage.fingerprint, **measures})  # fmt: skip

    def follow(self, step: int, figures: Mapping[str, Any]) -> None:
        """Give what is logged at a step to the experiment trackers, where the roadmap names some."""
        if self.track is not None and self.rank == 0:
            self.track(self.stage.name, step, figures)

    def commit(self, results: Mapping[str, Any]) -> Artifact:
        """End the stage: make its work folder an artifact with these results.

        On other ranks than 0 nothing is written; they get the same name and results. Errors: as of
        `record`.
        """
        fields = {
            "kind": self.makes or self.stage.kind,
            "fingerprint": self.stage.fingerprint,
            "stage_version": self.stage_version,
            "name": self.stage.name,
            "settings": self.stage.settings.model_dump(mode="json", by_alias=True),
            "seed": self.stage.seed,
            "parents": dict(self.parents),
            "sources": dict(self.stage.sources),
            "results": dict(results),
        }
        if self.rank != 0:
            path = self.work.with_name(folder_name(fields["kind"], self.stage.fingerprint))
            return Artifact(path, Manifest(**fields))
        _refuse_no_number(self.stage.name, results)
        return commit_artifact(
            self.work,
            **fields,
            software=software_versions(),
            machine=machine_facts()
            | {"settings": self.machine.model_dump(mode="json"), "peak_memory_bytes": self.memory.look()},
            started=self._started,
            seconds=round(self.seconds, 3),
        )


def _refuse_no_number(stage: str, figures: Mapping[str, Any]) -> None:
    found = next(_no_numbers("", figures), None)
    if found is not None:
        at = f"step {figures['step']}: " if isinstance(figures.get("step"), int) else ""
        raise TrainingError(
            f'stage "{stage}": {at}{found[0]} is {found[1]}, which no record takes; either nothing counts in what it '
            "is measured on, which needs more of it, or the weights are broken: train again at a lower learning rate"
        )


def _no_numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The figures in a JSON value that are NaN or infinite, by their dotted names."""
    if isinstance(value, float) and not math.isfinite(value):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _no_numbers(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _no_numbers(f"{name}.{number}", inner)


def now() -> str:
    """The time for records: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
