"""A plan before the spend: steps, tokens, FLOPs, memory and time of every stage, without running or torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from gradus.core.artifact import Artifact, folder_name, open_artifact
from gradus.core.errors import ArtifactError, ConfigError, did_you_mean
from gradus.core.machine import machine_facts
from gradus.core.quantity import format_bytes, format_count, format_seconds
from gradus.core.settings import Settings, load_settings
from gradus.roadmap.kinds import stage_module
from gradus.roadmap.place import MachineSettings
from gradus.roadmap.schema import Roadmap
from gradus.roadmap.stage import Device, Estimate, Expected, Stage
from gradus.roadmap.table import text_table

DEVICES_FILE = "devices.toml"


class DeviceEntry(Settings):
    """One table of devices.toml. memory_gib: None for this machine's own."""

    flops_per_second: float = Field(gt=0)
    memory_gib: float | None = Field(default=None, gt=0)
    price_per_hour: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its estimate; made: its artifact, where one of its fingerprint exists already."""

    stage: Stage
    estimate: Estimate
    made: Artifact | None = None

    @property
    def done(self) -> bool:
        return self.made is not None

    @property
    def known(self) -> Estimate:
        """The estimate, with what is known in its place where the stage is done."""
        if self.made is None:
            return self.estimate
        results = self.made.results
        return replace(
            self.estimate,
            seconds=self.made.manifest.seconds,
            steps=results.get("steps", self.estimate.steps),
            tokens=results.get("tokens", self.estimate.tokens),
        )


def known_devices(home: Path) -> dict[str, DeviceEntry]:
    """The built-in table with the entries of `home`/devices.toml over it. Errors: ConfigError."""
    built_in = resources.files("gradus.roadmap").joinpath(DEVICES_FILE)
    tables = tomllib.loads(built_in.read_text(encoding="utf-8"))
    own = home / DEVICES_FILE
    if own.is_file():
        try:
            tables |= tomllib.loads(own.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{own}: not valid TOML: {error}") from None
    return {
        name: load_settings(DeviceEntry, table if isinstance(table, dict) else {}, f"{DEVICES_FILE}: [{name}]")
        for name, table in tables.items()
    }


def choose_device(name: str, machine: MachineSettings, home: Path) -> Device:
    """A device of the table; "cpu" counts the threads that the roadmap or this machine gives it.

    Errors: ConfigError for an unknown name.
    """
    devices = known_devices(home)
    entry = devices.get(name)
    if entry is None:
        hint = did_you_mean(name, devices) or f"; known are {', '.join(devices)}"
        raise ConfigError(f'no device "{name}"{hint}; add it to {home / DEVICES_FILE}')
    facts = machine_facts()
    memory = entry.memory_gib * 2**30 if entry.memory_gib else facts["memory_bytes"]
    parts = (machine.threads or facts["cores"]) if name == "cpu" else machine.processes
    return Device(name, entry.flops_per_second * parts, memory, entry.price_per_hour)


def plan_roadmap(roadmap: Roadmap, device: Device, artifacts_dir: Path) -> list[PlannedStage]:
    """Estimates of all stages in order; facts of finished stages replace their estimates'.

    Errors: ConfigError with each setting that only its stage's plan can judge (a model's shape), by its place.
    """
    facts: dict[str, Mapping[str, Any]] = {}
    planned, problems = [], []
    for stage in roadmap.stages:
        module = stage_module(stage.kind)
        by_key = {key: tuple(facts[r.stage] for r in refs) for key, refs in stage.references.items()}
        estimate = Estimate()
        try:
            # Files that are not there cannot be measured; the stage's artifact has what they came to.
            if not stage.absent:
                estimate = module.plan(stage.settings, Expected(by_key, facts), device, stage)
        except ConfigError as error:
            problems += [f"{stage.place}: {problem}" for problem in error.problems]
        made = _finished(artifacts_dir / folder_name(module.MAKES, stage.fingerprint))
        facts[stage.name] = {**estimate.facts, **(made.results if made else {}), "makes": module.MAKES}
        planned.append(PlannedStage(stage, estimate, made))
    if problems:
        raise ConfigError(problems)
    return planned


def _finished(path: Path) -> Artifact | None:
    if not path.is_dir():
        return None
    try:
        return open_artifact(path, verify=False)
    except ArtifactError:
        # The walk refuses a damaged artifact; a plan only counts it as not there.
        return None


def plan_text(roadmap: Roadmap, planned: list[PlannedStage], device: Device) -> str:
    """The plan as a person reads it: a table, horizons three ways, the sum."""
    rows = [_row(item) for item in planned]
    headers = ["stage", "kind", "steps", "tokens", "params", "FLOPs", "memory", "time", ""]
    lines = [
        f"{roadmap.name} on {device.name} ({format_count(device.flops_per_second)} FLOP/s, "
        f"{format_bytes(device.memory_bytes)})",
        "",
        text_table(headers, rows, right=range(2, 8)),
    ]
    horizons = [text for item in planned if (text := _horizon(item.stage.name, item.known))]
    if horizons:
        lines += ["", *horizons]
    lines += [f"  note: {i.stage.name}: {note}" for i in planned for note in i.estimate.notes]
    left = sum(item.estimate.seconds or 0 for item in planned if not item.done)
    total = sum(item.known.seconds or 0 for item in planned)
    most = max((item.estimate.memory_bytes or 0 for item in planned), default=0)
    price = f", {left / 3600 * device.price_per_hour:,.2f} at {device.price_per_hour:g} an hour" if (
        device.price_per_hour
    ) else ""  # fmt: skip
    done = sum(item.done for item in planned)
    lines += ["", f"time {format_seconds(left)}{price}" + (
        f" ({done} of {len(planned)} stages done, {format_seconds(total)} in all)" if done else ""
    )]  # fmt: skip
    if most > device.memory_bytes:
        lines.append(f"warning: {format_bytes(most)} are needed, {device.name} has {format_bytes(device.memory_bytes)}")
    return "\n".join(lines)


def plan_json(roadmap: Roadmap, planned: list[PlannedStage], device: Device) -> dict[str, Any]:
    """The plan as plain JSON."""
    return {
        "roadmap": roadmap.name,
        "device": asdict(device),
        "stages": [
            {
                "name": item.stage.name,
                "kind": item.stage.kind,
                "fingerprint": item.stage.fingerprint,
                "done": item.done,
                **asdict(item.estimate),
                "notes": list(item.estimate.notes),
                "actual_seconds": item.made.manifest.seconds if item.made else None,
            }
            for item in planned
        ],
        "seconds": sum(item.estimate.seconds or 0 for item in planned if not item.done),
    }


def _row(item: PlannedStage) -> list[str]:
    e = item.known
    return [
        item.stage.name,
        item.stage.kind,
        format_count(e.steps) if e.steps is not None else "",
        format_count(e.tokens) if e.tokens is not None else "",
        format_count(e.parameters) if e.parameters is not None else "",
        f"{e.flops:.2g}" if e.flops is not None else "",
        format_bytes(e.memory_bytes) if e.memory_bytes is not None else "",
        format_seconds(e.seconds) if e.seconds is not None else "?",
        "done" if item.done else "",
    ]


def _horizon(name: str, e: Estimate) -> str:
    """One training horizon in each of its terms, whichever of them the author wrote."""
    if e.steps is None or e.tokens is None:
        return ""
    parts = [f"{e.steps:,} steps", f"{format_count(e.tokens)} tokens"]
    if e.flops is not None:
        parts.append(f"{e.flops:.3g} FLOPs")
    if e.parameters:
        parts.append(f"{e.tokens / e.parameters:.3g} tokens/param")
    return f"  {name}: {' = '.join(parts)}"
