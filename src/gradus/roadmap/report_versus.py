"""Two runs compared, as plain JSON for a page: measures with verdicts, changed settings, curves, answers that flipped.

What is compared are stages of one name that both runs have finished; verdicts are those of core.comparison, paired on
the items that both were asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gradus.core.comparison import SIGNIFICANCE, compare_measures, named_measures, unshared
from gradus.core.errors import DataError
from gradus.core.machine import package_version
from gradus.core.privacy import shown
from gradus.core.run_record import read_run_record
from gradus.roadmap.place import now
from gradus.roadmap.report_measures import clip, probe_results, training_curves
from gradus.roadmap.report_stages import StageView, stage_view
from gradus.roadmap.status import differences

FLIPPED_ITEMS = 200  # of one suite, shown


def versus_data(first: Path, second: Path) -> dict[str, Any]:
    """Everything the page of two runs shows; the second is judged against the first.

    Errors: ArtifactError where a folder holds no walked roadmap; DataError where no stage of one name is done in both.
    """
    records = [read_run_record(folder) for folder in (first, second)]
    views = [
        {view.name: view for view in (stage_view(folder, stage) for stage in record["stages"])}
        for folder, record in zip((first, second), records, strict=True)
    ]
    names = [str(record["name"]) for record in records]
    labels = names if names[0] != names[1] else [str(folder) for folder in (first, second)]
    shared = [name for name in views[0] if name in views[1] and all(v[name].artifact is not None for v in views)]
    if not shared:
        raise DataError(
            f"{labels[0]} and {labels[1]} have finished no stage of the same name: "
            f"{', '.join(views[0])} against {', '.join(views[1])}"
        )
    measures = [_measures(view, shared) for view in views]
    compared = compare_measures(*measures)
    only = unshared(list(measures[0]), list(measures[1]))
    counts = {verdict: sum(one.verdict == verdict for one in compared) for verdict in ("better", "worse")}
    text = (
        f"{labels[1]} is better in {counts['better']}, worse in {counts['worse']} of {len(compared)} measures; "
        "the rest is not resolved"
    )
    return {
        "name": f"{labels[0]} → {labels[1]}",
        "made": now(),
        "gradus": package_version("gradus"),
        "verdict": {"word": "ungated", "text": text},
        "versus": {
            "labels": labels,
            "measures": [asdict(one) for one in compared],
            "by_chance": SIGNIFICANCE * len(compared),
            "only": only,
            "stages": _stages(*views),
            "curves": _curves(*views),
            "flipped": _flipped(views, [Path(str(record.get("path", ""))).parent for record in records]),
        },
    }


def _measures(views: Mapping[str, StageView], shared: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Measures of the shared stages as STAGE.MEASURE."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in shared:
        for key, measure in named_measures(views[name].results).items():
            if isinstance(measure["value"], int | float) and not isinstance(measure["value"], bool):
                found[f"{name}.{key}"] = measure
    return found


def _stages(first: Mapping[str, StageView], second: Mapping[str, StageView]) -> list[dict[str, Any]]:
    """Each stage of either run: in what it differs, and how long it took in each."""
    found = []
    for name in dict.fromkeys([*first, *second]):
        pair = [views.get(name) for views in (first, second)]
        one, other = pair
        changes: list[str] = []
        if one is None or other is None:
            state = "only in the first" if other is None else "only in the second"
        elif one.record.get("fingerprint") == other.record.get("fingerprint"):
            state = "the same artifact"
        else:
            pair_settings = [view.record.get("settings", {}) for view in (one, other)]
            changes = differences(*map(shown, pair_settings))
            if not changes and differences(*pair_settings):
                changes.append("a path or address changed")
            if one.record.get("seed") != other.record.get("seed"):
                changes.append(f"seed changed from {one.record.get('seed')} to {other.record.get('seed')}")
            state = "other settings" if changes else "other inputs, files or version"
        took = [v.artifact.manifest.seconds if v is not None and v.artifact is not None else None for v in pair]
        kind = next(view.record.get("kind", "") for view in pair if view is not None)
        found.append({"name": name, "kind": kind, "state": state, "changes": clip(changes), "seconds": took})
    return found


def _curves(first: Mapping[str, StageView], second: Mapping[str, StageView]) -> list[dict[str, Any]]:
    """Loss of each stage that both trained, over the union of their steps."""
    curves = [{curve["stage"]: curve["train"] for curve in training_curves(list(v.values()))} for v in (first, second)]
    found = []
    for name, one in curves[0].items():
        other = curves[1].get(name)
        if other is None or "loss" not in one or "loss" not in other:
            continue
        losses = [dict(zip(train["step"], train["loss"], strict=True)) for train in (one, other)]
        steps = sorted(losses[0].keys() | losses[1].keys())
        found.append({"stage": name, "step": steps, "losses": [[loss.get(step) for step in steps] for loss in losses]})
    return found


def _flipped(views: Sequence[Mapping[str, StageView]], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Questions that one run answered right and the other wrong, by stage and suite, with both answers."""
    asked = []
    for stages, folder in zip(views, folders, strict=True):
        suites = {}
        for entry in probe_results(list(stages.values()), folder):
            for suite in entry["suites"]:
                suites[entry["stage"], suite["name"]] = {item["id"]: item for item in suite["items"]}
        asked.append(suites)
    found = []
    for key in asked[0].keys() & asked[1].keys():
        one, other = asked[0][key], asked[1][key]
        pairs = [(one[id], other[id]) for id in one if id in other and one[id]["passed"] != other[id]["passed"]]
        if pairs:
            items = [{"before": before, "after": after} for before, after in pairs[:FLIPPED_ITEMS]]
            found.append({"stage": key[0], "suite": key[1], "items": items, "left_out": len(pairs) - len(items)})
    return sorted(found, key=lambda entry: (entry["stage"], entry["suite"]))
