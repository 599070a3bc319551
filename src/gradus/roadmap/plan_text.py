"""A plan as a person reads it, for one device or several beside each other, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gradus.core.devices import CPU
from gradus.core.quantity import format_bytes, format_count, format_seconds
from gradus.model.config import ModelConfig
from gradus.model.reach import reach
from gradus.roadmap.device_limits import UNMEASURED
from gradus.roadmap.horizon import horizon_text
from gradus.roadmap.plan import Plan, PlannedStage
from gradus.roadmap.schema import Roadmap
from gradus.roadmap.stage import Device
from gradus.roadmap.table import text_table


def plan_text(roadmap: Roadmap, plans: Sequence[Plan]) -> str:
    """One device: a table, memory by part, horizons three ways, the sum. Several: time and money of each stage."""
    first = plans[0]
    lines = _one_device(roadmap, first) if len(plans) == 1 else _several_devices(roadmap, plans)
    horizons = [text for item in first.stages if (text := _horizon(item))]
    if horizons:
        lines += ["", *horizons]
    lines += [f"  note: {i.stage.name}: {note}" for i in first.stages for note in i.estimate.notes]
    lines += _reaches(first)
    lines.append("")
    lines += [_sum(plan, named=len(plans) > 1) for plan in plans]
    if (asked := roadmap.machine.device) in UNMEASURED and first.device.name == CPU:
        lines.append(
            f'note: [machine] device = "{asked}", and times are those of a processor; no {UNMEASURED[asked]} is '
            "measured yet"
        )
    if any(plan.device.in_fp32 and not plan.device.is_measured for plan in plans):
        precision = roadmap.machine.precision
        lines.append(
            f'note: [machine] precision = "{precision}" on a processor without its instructions may take far longer '
            "than fp32, whose times these are; --calibrate measures it"
            if precision in {"bf16", "fp16"}
            else "note: the processor trains in fp32, at about half the rate of one in bf16; its times are assumed "
            "from another machine, and --calibrate measures this one"
        )
    for plan in plans:
        most, has = plan.memory_bytes, plan.device.memory_bytes
        if most > has:
            lines.append(f"warning: {format_bytes(most)} are needed, {plan.device.name} has {format_bytes(has)}")
    return "\n".join(lines)


def _reaches(plan: Plan) -> list[str]:
    """Where each kind of model of the plan runs once it is exported, with the stages that make it."""
    stages: dict[str, list[str]] = {}
    for item in plan.stages:
        model = item.estimate.facts.get("model")
        if item.estimate.steps is not None and isinstance(model, Mapping):
            stages.setdefault(reach(ModelConfig(**model)).text(), []).append(item.stage.name)
    found = [f"  {', '.join(names)}: {text}" for text, names in stages.items()]
    return ["", "runs elsewhere, once exported", *found] if found else []


def _one_device(roadmap: Roadmap, plan: Plan) -> list[str]:
    rows = [_row(item, plan.device) for item in plan.stages]
    headers = ["stage", "kind", "steps", "tokens", "params", "FLOPs", "MFU", "memory", "time", "money", ""]
    shown = [i for i, header in enumerate(headers) if plan.costs_money or header != "money"]
    table = text_table(
        [headers[i] for i in shown], [[row[i] for i in shown] for row in rows], right=range(2, len(shown) - 1)
    )
    parts = [text for item in plan.stages if (text := _memory(item))]
    return [f"{roadmap.name} on {_device(plan.device)}", "", table, *(["", "memory by part", *parts] if parts else [])]


def _several_devices(roadmap: Roadmap, plans: Sequence[Plan]) -> list[str]:
    headers = ["stage", "kind", *(column for plan in plans for column in (plan.device.name, "money"))]
    rows = []
    for number, item in enumerate(plans[0].stages):
        cells = [_time_and_money(plan.stages[number], plan.device) for plan in plans]
        rows.append([item.stage.name, item.stage.kind, *(cell for pair in cells for cell in pair)])
    table = text_table([*headers, ""], [[*row, ""] for row in rows], right=range(2, len(headers)))
    return [roadmap.name, *(f"  {_device(plan.device)}" for plan in plans), "", table]


def _device(device: Device) -> str:
    many = f"{device.count} x " if device.count > 1 and device.name != "cpu" else ""
    price = f", {device.price_per_hour:g} an hour each" if device.price_per_hour else ""
    return (
        f"{many}{device.name} ({format_count(device.flops_per_second)} FLOP/s, "
        f"{format_bytes(device.memory_bytes)}{price})"
    )


def _row(item: PlannedStage, device: Device) -> list[str]:
    e = item.known
    time, money = _time_and_money(item, device)
    trains = item.estimate.steps is not None
    return [
        item.stage.name,
        item.stage.kind,
        format_count(e.steps) if e.steps is not None else "",
        format_count(e.tokens) if e.tokens is not None else "",
        format_count(e.parameters) if e.parameters is not None else "",
        f"{e.flops:.2g}" if e.flops is not None else "",
        "" if not trains else "n/a" if e.mfu is None else f"{e.mfu:.0%}",
        format_bytes(e.memory_bytes) if e.memory_bytes is not None else "",
        time,
        money,
        "done" if item.done else "",
    ]


def _time_and_money(item: PlannedStage, device: Device) -> tuple[str, str]:
    seconds = item.known.seconds
    if seconds is None:
        return "?", "?"
    return format_seconds(seconds), f"{item.money(device):,.2f}"


def _memory(item: PlannedStage) -> str:
    parts = [f"{name} {format_bytes(size)}" for name, size in item.estimate.memory.items() if size]
    return f"  {item.stage.name}: {' + '.join(parts)}" if parts else ""


def _horizon(item: PlannedStage) -> str:
    """One training horizon in each of its terms, whichever of them the author wrote."""
    e = item.known
    if e.steps is None or e.tokens is None:
        return ""
    return f"  {item.stage.name}: {horizon_text(e.steps, e.tokens, e.flops, e.scaled_parameters)}"


def _sum(plan: Plan, named: bool) -> str:
    done = sum(item.done for item in plan.stages)
    total = sum(item.known.seconds or 0 for item in plan.stages)
    money = f", money {plan.money_left:,.2f}" if plan.costs_money else ""
    before = f" ({done} of {len(plan.stages)} stages done, {format_seconds(total)} in all)" if done else ""
    return f"{f'{plan.device.name}: ' if named else ''}time {format_seconds(plan.seconds_left)}{money}{before}"


def plan_json(roadmap: Roadmap, plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON."""
    return {
        "roadmap": roadmap.name,
        "device": device_json(plan.device),
        "stages": [
            {
                "name": item.stage.name,
                "kind": item.stage.kind,
                "fingerprint": item.stage.fingerprint,
                "done": item.done,
                **asdict(item.estimate),
                "notes": list(item.estimate.notes),
                "money": (item.estimate.seconds or 0) * plan.device.money_per_second + item.estimate.fees,
                "actual_seconds": item.made.manifest.seconds if item.made else None,
            }
            for item in plan.stages
        ],
        "seconds": plan.seconds_left,
        "money": plan.money_left,
    }


def device_json(device: Device) -> dict[str, Any]:
    """What a plan assumed of the device, without the table that it comes from."""
    names = ("name", "count", "flops_per_second", "memory_bytes", "price_per_hour", "processes", "cores")
    return {name: getattr(device, name) for name in names}
