"""What training writes as it goes on: metrics.jsonl, samples.jsonl, and the figures of evaluations in the ledger.

One line per logged step and one per evaluation. A resumed run first drops the lines that its checkpoint does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradus.core.files import write_atomic

if TYPE_CHECKING:
    from gradus.roadmap.metering import Meter
    from gradus.roadmap.place import Place
    from gradus.train.loop import StepReport

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
STANDARD_ERRORS = "standard_errors"  # in a line of metrics


class StepLines:
    """A file of JSON lines with a "step" each: appended to as training goes, cut back to a step on resume."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def cut_after(self, step: int) -> None:
        """Keep whole lines up to `step`; what came later is trained again."""
        kept = [line for line in self.lines() if line["step"] <= step]
        write_atomic(self._path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))

    def append(self, **line: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line; a torn last line of a killed run is left out."""
        if not self._path.exists():
            return []
        texts = self._path.read_text(encoding="utf-8").split("\n")
        return [json.loads(text) for text in texts[:-1] if text]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found: measures by name, and samples as JSON objects."""

    measures: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]] = ()
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    """Of the measures that have one."""


class Journal:
    """What the main process writes about a run: metrics.jsonl, samples.jsonl and the ledger."""

    def __init__(self, place: Place, meter: Meter | None) -> None:
        self._place, self._meter = place, meter
        self._metrics, self._samples = StepLines(place.work / METRICS), StepLines(place.work / SAMPLES)
        self._written: set[str] = set()
        self._rollbacks: set[tuple[int, ...]] = set()  # that have their line, as `StepReport.passed_over` has them

    def open(self, report: StepReport) -> None:
        """Begin with the first report of this process: what later steps left is dropped."""
        # A killed run may have written lines past its checkpoint, and not those of the checkpoint's step.
        self._metrics.cut_after(report.step if report.resumed else 0)
        lines = self._metrics.lines() if report.resumed else []
        self._written = {line["event"] for line in lines if line["step"] == report.step}
        rollbacks = (line for line in lines if line["event"] == "rollback")
        self._rollbacks = {(line["step"], line["returned_to"], *line["data_steps"]) for line in rollbacks}
        known = report.resumed and (self.is_evaluated or not report.evaluate)
        self._samples.cut_after(report.step if known else (report.step - 1 if report.resumed else 0))

    @property
    def is_evaluated(self) -> bool:
        """Whether the step of the first report has been evaluated before the run was interrupted."""
        return "evaluate" in self._written

    def train(self, report: StepReport) -> None:
        """Write the line of a step that is logged, and of each return to an earlier checkpoint."""
        for passed in report.passed_over:
            refused, returned, begin, end = passed
            # All four: steps are refused where they are logged, so that two returns may well begin at the same one.
            if tuple(passed) not in self._rollbacks:
                self._rollbacks.add(tuple(passed))
                self._metrics.append(event="rollback", step=refused, returned_to=returned, data_steps=[begin, end])
        if report.logged and not (report.resumed and "train" in self._written):
            figures = self._meter.figures(report) if self._meter is not None else {}
            line = _train_line(report) | figures
            self._metrics.append(event="train", **line)
            self._place.follow(report.step, line)

    def evaluate(self, report: StepReport, found: Evaluation) -> None:
        """Write what an evaluation found."""
        for sample in found.samples:
            self._samples.append(step=report.step, **sample)
        errors = {STANDARD_ERRORS: dict(found.standard_errors)} if found.standard_errors else {}
        self._metrics.append(event="evaluate", step=report.step, tokens=report.tokens, **found.measures, **errors)
        self._place.record(step=report.step, **found.measures)
        self._place.follow(report.step, found.measures)


def _train_line(report: StepReport) -> dict[str, Any]:
    return {
        "step": report.step,
        "loss": report.loss,
        "lr": report.lr,
        "grad_norm": report.grad_norm,
        "tokens": report.tokens,
        "tokens_per_second": report.tokens_per_second,
        "skipped": report.skipped,
        **report.metrics,
    }
