"""What the report shows, gathered from a run folder as plain JSON; a walk may be finished, stopped or going on.

A stage that has no artifact yet is shown with what its work folder holds so far. Whatever cannot be read is
told in a word beside the rest, and never stops the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradus.core.home import LEDGER, MODEL_FOLDER
from gradus.core.ledger import Ledger
from gradus.core.machine import package_version
from gradus.core.privacy import shown, shown_path
from gradus.core.run_record import read_run_record
from gradus.roadmap.place import now
from gradus.roadmap.report_measures import (
    audit_results,
    clip,
    drop_samples,
    pairings,
    plain_results,
    probe_results,
    text_samples,
    training_curves,
)
from gradus.roadmap.report_stage_measures import across_stages
from gradus.roadmap.report_stages import StageView, stage_view

LEDGER_TAIL = 60


def report_data(run_folder: Path) -> dict[str, Any]:
    """Everything the page shows. Errors: ArtifactError where the folder holds no walked roadmap."""
    record = read_run_record(run_folder)
    stages = [stage_view(run_folder, stage) for stage in record["stages"]]
    ledger = list(Ledger(run_folder / LEDGER).records())
    gates = _gates(stages, ledger)
    abilities = probe_results(stages, Path(str(record.get("path", ""))).parent)
    money_per_second = float(dict(record.get("device") or {}).get("money_per_second", 0.0))
    walk: dict[str, Any] = next((line for line in reversed(ledger) if line.get("event") == "walk"), {})
    return {
        "name": str(record["name"]),
        "description": clip(str(record.get("description") or "")),
        "path": shown_path(str(record.get("path", ""))),
        "seed": record.get("seed"),
        "made": now(),
        "gradus": package_version("gradus"),
        "verdict": _verdict(stages, gates),
        "gates": gates,
        "chat": _chat_command(record, stages),
        "device": dict(record.get("device") or {}),
        "stages": [_stage_json(view, money_per_second) for view in stages],
        "abilities": abilities,
        "pairings": pairings(stages),
        "across": across_stages(stages),
        "audits": audit_results(stages),
        "training": training_curves(stages),
        "samples": text_samples(stages),
        "drops": drop_samples(stages),
        "machine": walk.get("machine", {}),
        "machine_settings": record.get("machine", {}),
        "software": walk.get("software", {}),
        "ledger": _ledger_tail(ledger),
        "ledger_lines": len(ledger),
    }


# Stages


def _actual(view: StageView, money_per_second: float) -> dict[str, float | None]:
    """What a finished stage took, by the names of the plan's figures; None where it was not measured."""
    if view.artifact is None:
        return {}
    results, manifest = view.results, view.artifact.manifest
    return {
        "seconds": manifest.seconds,
        "memory_bytes": results.get("gpu_peak_memory_bytes", manifest.machine.get("peak_memory_bytes")),
        "tokens": results.get("tokens"),
        "flops": results.get("flops"),
        "mfu": results.get("mfu"),
        "money": manifest.seconds * money_per_second + float(results.get("fees", 0.0)),
    }


def _stage_json(view: StageView, money_per_second: float) -> dict[str, Any]:
    record, manifest = view.record, view.artifact.manifest if view.artifact else None
    predicted = {k: v for k, v in dict(record.get("predicted") or {}).items() if k != "facts"}
    return {
        "name": view.name,
        "kind": record.get("kind", ""),
        "makes": record.get("makes", ""),
        "fingerprint": record.get("fingerprint", ""),
        "artifact": record.get("artifact", ""),
        "inputs": record.get("inputs", {}),
        "settings": clip(shown(record.get("settings", {}))),
        "seed": record.get("seed"),
        "predicted": predicted,
        "state": view.state,
        "note": view.note,
        "seconds": manifest.seconds if manifest else None,
        "actual": _actual(view, money_per_second),
        "started": manifest.started if manifest else "",
        "bytes": sum(entry.bytes for entry in manifest.files.values()) if manifest else None,
        "sources": shown(dict(manifest.sources)) if manifest else {},
        "machine": manifest.machine if manifest else {},
        "software": manifest.software if manifest else {},
        "results": plain_results(view.results),
    }


def _chat_command(record: Mapping[str, Any], stages: list[StageView]) -> str | None:
    """How to talk to what was made; None while no finished stage holds a model."""
    for view in reversed(stages):
        if view.artifact is not None and (view.artifact.path / MODEL_FOLDER / "config.json").is_file():
            return f"gradus chat --model {record['name']}"
    return None


# Gates and the verdict


def _gates(stages: list[StageView], ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each gate of the record with its last verdict on the stage as it is now; passed None: not judged."""
    found = []
    for view in stages:
        for gate in view.record.get("gates", []):
            verdict = _last_verdict(ledger, view.name, view.record.get("fingerprint"), gate)
            found.append(
                {
                    "stage": view.name,
                    "gate": gate,
                    "passed": verdict.get("passed"),
                    "text": verdict.get("text", ""),
                    "override": verdict.get("override"),
                }
            )
    return found


def _last_verdict(
    ledger: list[dict[str, Any]], stage: str, fingerprint: Any, gate: Mapping[str, Any]
) -> Mapping[str, Any]:
    for line in reversed(ledger):
        if line.get("event") == "gate" and line.get("stage") == stage and line.get("gate") == gate:
            return line if line.get("fingerprint") == fingerprint else {}
    return {}


def _verdict(stages: list[StageView], gates: list[dict[str, Any]]) -> dict[str, Any]:
    """The walk in a word (passed, failed, unfinished, ungated) and in a sentence."""
    done = sum(view.state == "done" for view in stages)
    failed = [gate for gate in gates if gate["passed"] is False]
    open_gates = [gate for gate in gates if gate["passed"] is None]
    if failed:
        where = ", ".join(dict.fromkeys(gate["stage"] for gate in failed))
        which = "the gate" if len(gates) == 1 else f"{len(failed)} of {len(gates)} gates"
        word, text = "failed", f"{which} failed, in {where}"
    elif done < len(stages):
        word, text = "unfinished", f"{done} of {len(stages)} stages are done"
    elif open_gates:
        word, text = "unfinished", f"{_gate_count(len(open_gates))} not judged yet"
    elif gates:
        every = "the gate" if len(gates) == 1 else f"all {len(gates)} gates"
        word, text = "passed", f"passed {every}"
    else:
        word, text = "ungated", f"all {len(stages)} stages are done; no gates are set"
    if failed and done < len(stages):
        text += f"; {done} of {len(stages)} stages are done"
    return {"word": word, "text": text, "done": done, "of": len(stages)}


def _gate_count(number: int) -> str:
    return "1 gate" if number == 1 else f"{number} gates"


def _ledger_tail(ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last lines, without what the page shows elsewhere; a stage's results in a row are one entry."""
    found: list[dict[str, Any]] = []
    for line in ledger:
        entry = {k: clip(v) for k, v in line.items() if k not in {"machine", "software"}}
        same = ("event", "stage", "fingerprint")
        if entry.get("event") == "result":
            measure = {str(entry.get("measure")): entry.get("value")}
            if found and all(found[-1].get(key) == entry.get(key) for key in same):
                found[-1]["measures"] |= measure
                continue
            entry = {key: entry.get(key) for key in ("time", *same)} | {"measures": measure}
        found.append(entry)
    return found[-LEDGER_TAIL:]
