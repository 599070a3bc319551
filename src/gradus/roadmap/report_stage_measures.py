"""Ability across stages for the report: each measure over the models that were measured, in the order of the walk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradus.conversation.probes import TOTAL
from gradus.core.comparison import named_measures
from gradus.roadmap.report_stages import StageView

# Of tasks and texts, what is shown at once; the rest is folded away.
_MAIN = (TOTAL, "acc", "pass@1", "centred", "word_perplexity", "bpb", "clean")
_BITS_PER_BYTE = "bpb"
_CLEAN = "clean"
_TRAINING = "bits per byte while training"


def across_stages(stages: Sequence[StageView]) -> list[dict[str, Any]]:
    """Measures that two models or more have, those of `_MAIN` first marked "main".

    [{"measure", "main", "is_share", "lower_is_better", "points": [{"stage", "value", "lower", "upper", "n"}]}], points
    in the order of the stages that made the models; lower, upper and n where they are known.
    """
    order = [view.name for view in stages]
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for view in stages:
        for model, name, measure in _measured(view):
            # A later evaluation of the same model says it better.
            found.setdefault(name, {})[model] = measure
    lines = []
    for name, by_model in found.items():
        if len(by_model) < 2:
            continue
        parts = name.split(".")
        fault = parts[0] == "audit" and parts[-1] != _CLEAN
        lines.append(
            {
                "measure": name,
                "main": parts[-1] in _MAIN or parts == [_TRAINING],
                "is_share": all("successes" in measure for measure in by_model.values()),
                "lower_is_better": fault or any(measure.get("lower_is_better") for measure in by_model.values()),
                "points": [_point(model, by_model[model]) for model in order if model in by_model],
            }
        )
    return lines


def evaluated_stage(view: StageView) -> str:
    """The stage whose model an eval stage asked."""
    named = view.record.get("inputs", {}).get("from") or [view.name]
    return str(named[0])


def _measured(view: StageView) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(stage that made the model, measure's name, measure): of evaluations, and of training its bits per byte."""
    if view.record.get("makes") == "eval":
        for name, measure in named_measures(view.results).items():
            if _is_number(measure["value"]):
                yield evaluated_stage(view), name, measure
        return
    bits = view.results.get(_BITS_PER_BYTE)
    if _is_number(bits):
        yield view.name, _TRAINING, {"value": bits, "lower_is_better": True}


def _point(stage: str, measure: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: measure[key] for key in ("value", "lower", "upper", "n") if _is_number(measure.get(key))}
    return {"stage": stage, **kept}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
