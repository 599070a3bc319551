"""What a stage is to the walk: settings, declared inputs, identity, and what its file must offer.

A stage kind is one file in `stages/` with these names; all of it imports without torch, and `run` imports
what is heavy when it is called:

    VERSION: int                   raised when the same settings would give another result
    MAKES: str                     kind of the artifact it leaves (a later stage's input states what it takes)
    INPUTS: tuple[Input, ...]      keys whose values are names of earlier stages; they are not in Settings
    class Settings(StageSettings)  everything else that the author may write; `smoke()` gives toy sizes
    sources(settings, roadmap_dir) -> {label: digest} of external files, part of the fingerprint
    pinned(settings, before) -> {label: commit}    optional: what it takes from the Hub, part of its sources too;
                                   before: the sources of an earlier walk with the same settings, {} for none
    plan(settings, inputs: Expected, device: Device, stage: Stage) -> Estimate
    run(stage: Stage, inputs: Inputs, place: Place) -> Artifact    ends with `return place.commit(results)`
    own_gates(parents) -> tuple[Gate, ...]      optional: what holds besides the author's gates; parents: the kinds of
                                   artifacts that its inputs are, by key
    PARALLEL: bool = False         optional: `run` works with [machine] processes = n (RANK, WORLD_SIZE set)

Results hold measures (see core.gate) and facts that later plans read by the same names as Estimate.facts:
"documents", "bytes", "tokens", "vocab_size", "bytes_per_token", "conversations", "model" (config table), ...
A finished model lies in the artifact's `model/` folder (config.json, model.safetensors, tokenizer files).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.devices import CPU, DeviceEntry
from gradus.core.errors import GradusError
from gradus.core.gate import Gate
from gradus.core.settings import KeyPath, Problem, Settings

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of a roadmap or stage: what every generator of random numbers below takes."""


class StageSettings(Settings):
    """Base of each stage kind's settings."""

    def smoke(self) -> Self:
        """The same settings at toy size, for `--smoke`."""
        return self

    def smoke_of(self, processes: int) -> Self:
        """`smoke`, large enough for so many processes to share."""
        return self.smoke()


class SourceError(GradusError):
    """External files of a stage that are missing or unreadable; every problem with its key."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(problem.text for problem in problems))


COUNTED = "counted"
"""Of an estimate's facts: how many right or wrong items a measure, or all that begin with its name, will count."""


@dataclass(frozen=True)
class Input:
    """A settings key whose value names an earlier stage.

    key: a plain key ("corpus"), or "mixture[].source" for a key inside a list of tables, which stays in the
    settings too. kinds: artifact kinds it takes. many: the value is a list of names. outside: prefixes such
    as "files" that mark a value ("files:chats.jsonl") as no stage.
    """

    key: str
    kinds: tuple[str, ...]
    many: bool = False
    required: bool = True
    outside: tuple[str, ...] = ()

    @property
    def nested(self) -> tuple[str, str] | None:
        """("mixture", "source") for "mixture[].source", None for a plain key."""
        head, found, tail = self.key.partition("[].")
        return (head, tail) if found else None


@dataclass(frozen=True)
class Reference:
    """One mention of an earlier stage: its name, the checkpoint asked for, and where it was written."""

    stage: str
    checkpoint: str | None
    path: KeyPath


@dataclass(frozen=True)
class Stage:
    """One stage of a loaded roadmap, checked and identified.

    directory: the roadmap's folder, where relative paths start; place: file and line, for messages. absent: which of
    its files are not on this machine, where an earlier walk says what they were; it can be reused and not run.
    """

    name: str
    kind: str
    settings: Any
    seed: int
    fingerprint: str
    references: Mapping[str, tuple[Reference, ...]]
    gates: tuple[Gate, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    absent: str = ""
    directory: Path = Path()
    place: str = ""

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the stages it takes something from, each once, in the order written."""
        return tuple(dict.fromkeys(r.stage for refs in self.references.values() for r in refs))


class Inputs(Mapping[str, Artifact]):
    """The artifacts a stage was given, by input key.

    `inputs["corpus"]` is the one artifact of that key; `inputs.many("pools")` all of a list;
    `inputs.named("talk")` the artifact of a stage by name, for keys inside lists of tables.
    """

    def __init__(self, by_key: Mapping[str, tuple[Artifact, ...]], by_name: Mapping[str, Artifact]) -> None:
        self._by_key = by_key
        self._by_name = by_name

    def __getitem__(self, key: str) -> Artifact:
        return self._by_key[key][0]

    def __iter__(self) -> Iterator[str]:
        return iter(key for key, artifacts in self._by_key.items() if artifacts)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def many(self, key: str) -> tuple[Artifact, ...]:
        """All artifacts of a list key; empty where the author left it out."""
        return self._by_key.get(key, ())

    def named(self, stage: str) -> Artifact:
        """The artifact of an earlier stage by its name."""
        return self._by_name[stage]


@dataclass(frozen=True)
class Device:
    """What a plan assumes: sustained training rate of all devices together, memory and price of one, other rates.

    count: how many of it, for a processor its cores; processes: data-parallel ones of a training stage; cores: of the
    machine it is in, for work on data. parallel, activation_checkpointing, offload: as `[machine]` lays a model out.
    entry, host: the device's and the processor's tables; in_fp32: a processor that trains in fp32.
    """

    name: str
    flops_per_second: float
    memory_bytes: float
    price_per_hour: float = 0.0
    count: int = 1
    processes: int = 1
    cores: int = 1
    parallel: Literal["replicate", "shard", "hybrid"] = "replicate"
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    offload: bool = False
    entry: DeviceEntry | None = None
    host: DeviceEntry | None = None
    in_fp32: bool = False

    def seconds(self, work: str, units: float, cores: int = 1) -> float:
        """Time for data work by its name in the table of rates, on so many cores, without a stage's overhead."""
        assert self.host is not None, "plans are made with a device of the table"
        return units / (self.host.rates[work].per_second * cores)

    def overhead_seconds(self, work: str) -> float:
        """What a stage of this work takes besides."""
        assert self.host is not None, "plans are made with a device of the table"
        return self.host.rates[work].overhead_seconds

    def training(self, kind: str, width: int) -> tuple[float, float]:
        """(FLOPs a second of all devices, seconds besides) of a kind of training stage with a model of this width."""
        assert self.entry is not None, "plans are made with a device of the table"
        rate, overhead = self.entry.training_rate(kind, width, self.in_fp32)
        return rate * self.count, overhead

    @property
    def peak_flops(self) -> float | None:
        """Of all devices together, in the format that they train in; None where it is unknown."""
        if self.entry is None:
            return None
        peak = self.entry.peak_flops.get("fp32") if self.in_fp32 else self.entry.half_precision_peak
        return None if peak is None else peak * self.count

    @property
    def is_measured(self) -> bool:
        """Whether training's rate is this machine's own: measured by `--calibrate`, or stated by the user."""
        if self.entry is None:
            return False
        is_stated = self.entry.flops_per_second is not None or (self.in_fp32 and not self.entry.fp32_flops_by_width)
        return is_stated or "pretrain" in self.entry.rates or "sft" in self.entry.rates

    @property
    def money_per_second(self) -> float:
        """For all devices of a stage; a processor is paid for as a whole."""
        return self.price_per_hour / 3600 * (1 if self.name == CPU else self.count)


@dataclass(frozen=True)
class Estimate:
    """What a stage is expected to take, and the facts about its result that later plans need.

    Horizons: steps; tokens trained on; parameters in all, and scaled_parameters, those of "tokens per parameter"
    (matrices and head); flops of the whole stage; mfu: the share of the peak that its time assumes. memory_bytes: peak
    of all processes on a processor, of one GPU elsewhere; memory: its parts by name. fees: money besides the machine's
    time, to others. None where a figure means nothing for the stage.
    """

    seconds: float | None = None
    steps: int | None = None
    tokens: float | None = None
    parameters: int | None = None
    scaled_parameters: int | None = None
    flops: float | None = None
    mfu: float | None = None
    memory_bytes: float | None = None
    memory: Mapping[str, float] = field(default_factory=dict)
    fees: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Expected:
    """What a plan knows of its inputs: an estimate's facts, or the results where the stage is done."""

    def __init__(
        self, by_key: Mapping[str, tuple[Mapping[str, Any], ...]], by_name: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._by_key = by_key
        self._by_name = by_name

    def one(self, key: str) -> Mapping[str, Any]:
        """Facts of a key's one input; empty where the author left it out."""
        found = self._by_key.get(key, ())
        return found[0] if found else {}

    def many(self, key: str) -> tuple[Mapping[str, Any], ...]:
        """Facts of each input of a list key."""
        return self._by_key.get(key, ())

    def named(self, stage: str) -> Mapping[str, Any]:
        """Facts of an earlier stage by its name."""
        return self._by_name.get(stage, {})
