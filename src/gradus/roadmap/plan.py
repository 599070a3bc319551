"""A plan before the spend: steps, tokens, FLOPs, memory, time and money of every stage, without running or torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradus.core.artifact import Artifact, folder_name, open_artifact
from gradus.core.devices import CPU, DEVICES_FILE, device_called, known_devices
from gradus.core.errors import ArtifactError, ConfigError, did_you_mean
from gradus.core.gate import unreachable_bound
from gradus.core.home import CHECKPOINTS_FOLDER, PROTECTED_FILE, WORK_SUFFIX
from gradus.core.machine import bf16_instructions, gpu_names, machine_facts, usable_cores
from gradus.roadmap.kinds import stage_module
from gradus.roadmap.models import named_checkpoint
from gradus.roadmap.place import MachineSettings
from gradus.roadmap.schema import Roadmap
from gradus.roadmap.stage import COUNTED, Device, Estimate, Expected, Stage
from gradus.roadmap.training import TrainingSettings, unkept_problem

_USUAL_WIDTH = 256  # of the model whose rate is shown where no stage's model is meant


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its estimate; made: its artifact, where one of its fingerprint exists already."""

    stage: Stage
    estimate: Estimate
    made: Artifact | None = None

    @property
    def done(self) -> bool:
        return self.made is not None

    def money(self, device: Device) -> float:
        """For the time of the device, and fees."""
        return (self.known.seconds or 0.0) * device.money_per_second + self.known.fees

    @property
    def known(self) -> Estimate:
        """The estimate, with what is known in its place where the stage is done."""
        if self.made is None:
            return self.estimate
        results, manifest = self.made.results, self.made.manifest
        return replace(
            self.estimate,
            seconds=manifest.seconds,
            steps=results.get("steps", self.estimate.steps),
            tokens=results.get("tokens", self.estimate.tokens),
            flops=results.get("flops", self.estimate.flops),
            fees=results.get("fees", self.estimate.fees),
            memory_bytes=manifest.machine.get("peak_memory_bytes", self.estimate.memory_bytes),
        )


@dataclass(frozen=True)
class Plan:
    """What a roadmap is expected to take on one device."""

    device: Device
    stages: tuple[PlannedStage, ...]

    @property
    def seconds_left(self) -> float:
        """Of the stages that are not done."""
        return sum(item.estimate.seconds or 0 for item in self.stages if not item.done)

    @property
    def money_left(self) -> float:
        """Of the stages that are not done, in the currency of the device table."""
        return sum(item.money(self.device) for item in self.stages if not item.done)

    @property
    def costs_money(self) -> bool:
        """Whether the device or anybody else is paid."""
        return self.device.price_per_hour > 0 or any(item.known.fees for item in self.stages)

    @property
    def memory_bytes(self) -> float:
        """Of the stage that needs most."""
        return max((item.estimate.memory_bytes or 0 for item in self.stages), default=0)


def own_device(machine: MachineSettings, home: Path) -> str:
    """The name in the table of what this machine trains on, as `[machine]` says; "cpu" where its GPU is not in it."""
    names = gpu_names() if machine.device in {"auto", "cuda"} else []
    return (device_called(names[0], known_devices(home)) if names else None) or CPU


def choose_device(name: str, machine: MachineSettings, home: Path) -> Device:
    """A device of the table; "cpu" counts the threads that the roadmap or this machine gives it.

    Errors: ConfigError for an unknown name.
    """
    devices = known_devices(home)
    entry = devices.get(name)
    if entry is None:
        hint = did_you_mean(name, devices) or f"; known are {', '.join(devices)}"
        raise ConfigError(f'no device "{name}"{hint}; add it to {home / DEVICES_FILE}')
    cores = machine.threads or usable_cores()
    memory = entry.memory_gib * 2**30 if entry.memory_gib else machine_facts()["memory_bytes"]
    # [machine] threads are of each process.
    training_cores = usable_cores() if machine.threads is None else min(usable_cores(), cores * machine.processes)
    count = training_cores if name == CPU else machine.processes
    in_fp32 = name == CPU and (machine.precision in {"fp32", "fp16"} or not bf16_instructions())
    return Device(
        name=name,
        flops_per_second=entry.sustained_flops(_USUAL_WIDTH, in_fp32) * count,
        memory_bytes=memory,
        price_per_hour=entry.price_per_hour,
        count=count,
        processes=machine.processes,
        cores=cores,
        parallel=machine.parallel,
        activation_checkpointing=machine.activation_checkpointing,
        offload=machine.offload and name != CPU,
        entry=entry,
        host=devices[CPU],
        in_fp32=in_fp32,
    )


def plan_roadmap(roadmap: Roadmap, device: Device, artifacts_dir: Path) -> Plan:
    """Estimates of all stages in order; facts of finished stages replace their estimates'.

    Errors: ConfigError with each setting that only its stage's plan can judge (a model's shape), by its place.
    """
    facts: dict[str, Mapping[str, Any]] = {}
    planned: list[PlannedStage] = []
    problems: list[str] = []
    for stage in roadmap.stages:
        estimate, found = _estimate(stage, facts, device)
        problems += found
        made = _finished(artifacts_dir / folder_name(stage_module(stage.kind).MAKES, stage.fingerprint))
        if made is None and not stage.absent:
            problems += [f"{stage.place}: {problem}" for problem in _unkept(stage, planned, artifacts_dir)]
        if not roadmap.smoke:
            problems += [f"{stage.place}: {problem}" for problem in _unreachable(stage, estimate)]
        facts[stage.name] = _facts(stage, estimate, made)
        planned.append(PlannedStage(stage, estimate, made))
    if problems:
        raise ConfigError(problems)
    return Plan(device, tuple(planned))


def refuse_what_follows(
    roadmap: Roadmap, planned: Mapping[str, PlannedStage], made: Mapping[str, Artifact], stage: Stage, device: Device
) -> None:
    """Plan again what takes `stage`, now that its results are known: what cannot be is told before more is made.

    planned: of the whole roadmap; made: by name. Errors: ConfigError as of `plan_roadmap`.
    """
    facts = {name: _facts(item.stage, item.estimate, made.get(name)) for name, item in planned.items()}
    problems = []
    for later in roadmap.stages:
        if later.name not in made and stage.name in later.parents:
            problems += _estimate(later, facts, device)[1]
    if problems:
        raise ConfigError(problems)


def _estimate(stage: Stage, facts: Mapping[str, Mapping[str, Any]], device: Device) -> tuple[Estimate, list[str]]:
    """What a stage will take by the facts of earlier ones, and the problems that its plan finds, with their place."""
    if stage.absent:
        return Estimate(), []  # files that are not there cannot be measured; the stage's artifact has what they came to
    by_key = {key: tuple(facts[r.stage] for r in refs) for key, refs in stage.references.items()}
    try:
        return stage_module(stage.kind).plan(stage.settings, Expected(by_key, facts), device, stage), []
    except ConfigError as error:
        return Estimate(), [f"{stage.place}: {problem}" for problem in error.problems]


def _facts(stage: Stage, estimate: Estimate, made: Artifact | None) -> Mapping[str, Any]:
    """What later plans may know of a stage: its results in place of what was expected of it."""
    return {**estimate.facts, **(made.results if made else {}), "makes": stage_module(stage.kind).MAKES}


def _unkept(stage: Stage, earlier: Sequence[PlannedStage], artifacts_dir: Path) -> list[str]:
    """References to checkpoints that will not be there when the stage begins, as far as that is certain."""
    by_name = {item.stage.name: item for item in earlier}
    references = [reference for found in stage.references.values() for reference in found]
    named = [(by_name[one.stage], one.checkpoint) for one in references if one.checkpoint not in (None, "latest")]
    problems = [_unkept_by(parent, str(checkpoint), artifacts_dir) for parent, checkpoint in named]
    return [problem for problem in problems if problem]


def _unkept_by(parent: PlannedStage, checkpoint: str, artifacts_dir: Path) -> str:
    """'' or why a stage has no such checkpoint, or will have none."""
    stage, settings = parent.stage, parent.stage.settings
    if parent.made is not None:
        try:
            named_checkpoint(parent.made.path, checkpoint, stage.name)
        except ArtifactError as error:
            return str(error)
        return ""
    if not isinstance(settings, TrainingSettings) or _is_put_under_protection(stage, artifacts_dir):
        return ""
    if stage.kind == "experts":
        problem = "those of single experts go at its end; leave it out"
    else:
        horizon = getattr(settings, "horizon", None)
        is_certain = hasattr(settings, "steps") or (horizon is not None and horizon.unit == "steps")
        problem = unkept_problem(settings, checkpoint, parent.estimate.steps if is_certain else None)
    return f'stage "{stage.name}" will keep no checkpoint "@{checkpoint}": {problem}' if problem else ""


def _is_put_under_protection(stage: Stage, artifacts_dir: Path) -> bool:
    """Whether somebody has protected a checkpoint of an unfinished stage by a file in it."""
    work = artifacts_dir / f"{folder_name(stage_module(stage.kind).MAKES, stage.fingerprint)}{WORK_SUFFIX}"
    return any((work / CHECKPOINTS_FOLDER).glob(f"*/{PROTECTED_FILE}"))


def _unreachable(stage: Stage, estimate: Estimate) -> list[str]:
    """Gates that no result can pass, by the items that the stage will count (facts: COUNTED)."""
    found = []
    for gate in stage.gates:
        for name, n in estimate.facts.get(COUNTED, {}).items():
            if gate.measure == name or gate.measure.startswith(f"{name}."):
                found.append(unreachable_bound(gate, n))
    return [problem for problem in found if problem is not None]


def _finished(path: Path) -> Artifact | None:
    if not path.is_dir():
        return None
    try:
        return open_artifact(path, verify=False)
    except ArtifactError:
        # The walk refuses a damaged artifact; a plan only counts it as not there.
        return None
