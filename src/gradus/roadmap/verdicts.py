"""Whether a stage may be put to use: the last verdicts of its own gates, and of those of stages that examine it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradus.core.artifact import MANIFEST
from gradus.core.home import LEDGER
from gradus.core.ledger import Ledger
from gradus.roadmap.walked import walked_stages


def gate_faults(run: Path, stage: str) -> list[str]:
    """Why a stage of a walked roadmap has not passed: gates that failed, were not judged yet, or were not reached.

    run: the folder in runs/. Empty where all is well, or nothing was asked of it.
    """
    stages = walked_stages(run)
    exams = [name for name, walked in stages.items() if walked["kind"] == "eval" and _examines(walked, stage)]
    verdicts = [record for record in Ledger(run / LEDGER).records() if record.get("event") == "gate"]
    faults = []
    for name in [stage, *exams]:
        walked = stages[name]
        if not walked["gates"]:
            continue
        if not (run / name / MANIFEST).is_file():
            faults.append(f'stage "{name}", whose gates judge it, has not been run')
            continue
        for gate in walked["gates"]:
            found = [v for v in verdicts if v["fingerprint"] == walked["fingerprint"] and v["gate"] == gate]
            if not found:
                faults.append(f'the gate on {gate["measure"]} of stage "{name}" has not been judged')
            elif not found[-1]["passed"]:
                faults.append(f'stage "{name}": {found[-1]["text"]}')
    return faults


def _examines(walked: Mapping[str, Any], stage: str) -> bool:
    return any(stage in names for names in walked["inputs"].values())
