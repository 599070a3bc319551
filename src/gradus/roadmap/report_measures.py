"""What the stages of a run measured and wrote, read for the report: probe results, curves, samples, drops.

Everything is bounded, so that a page of a long run still opens at once: long texts are cut, curves thinned,
and of very large suites the failed questions are kept first. What is left out is counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.conversation.probes import Probe, load_suite, suite_path
from gradus.core.comparison import paired_test
from gradus.core.errors import GradusError
from gradus.core.gate import without_items
from gradus.data.drops import DROP_SUMMARY
from gradus.roadmap.metrics import METRICS, SAMPLES
from gradus.roadmap.report_stage_measures import evaluated_stage
from gradus.roadmap.report_stages import StageView
from gradus.roadmap.sources import suite_digest

TEXT_CHARACTERS = 4000
CURVE_POINTS = 1200
SAMPLE_STEPS = 60
SUITE_ITEMS = 3000
DROP_SAMPLES = 5
AUDIT_SAMPLES = 100
_LIST_ENTRIES = 200


def clip(value: Any) -> Any:
    """The same JSON with long texts and lists cut, and a word where they were."""
    if isinstance(value, str):
        over = len(value) - TEXT_CHARACTERS
        return value if over <= 0 else f"{value[:TEXT_CHARACTERS]} … ({over:,} characters more)"
    if isinstance(value, Mapping):
        return {str(key): clip(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        over = len(value) - _LIST_ENTRIES
        kept = [clip(item) for item in value[:_LIST_ENTRIES]]
        return kept if over <= 0 else [*kept, f"… ({over:,} more)"]
    return value


def plain_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's results without the outcome of every single item, which gates need and readers do not."""
    found: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            found[key] = plain_results(without_items(value) if "value" in value else value)
        else:
            found[key] = clip(value)
    return found


# Probes


def probe_results(stages: Sequence[StageView], roadmap_dir: Path) -> list[dict[str, Any]]:
    """One entry per evaluated model, in the order of the stages that made the models.

    {"stage", "model", "suites": [{"name", "total", "categories", "items", "left_out", "note"}]}. Stages that asked one
    model different questions are one entry; one that asked the same again is another, called by its own name too.
    """
    found: list[dict[str, Any]] = []
    for view in _evaluations(stages):
        suites = [
            {"name": name, **_suite_measures(measured), **_suite_items(view, name, roadmap_dir)}
            for name, measured in _suites(view)
        ]
        model = evaluated_stage(view)
        same = [entry for entry in found if entry["model"] == model]
        names = {suite["name"] for suite in suites}
        if same and not names & {suite["name"] for suite in same[0]["suites"]}:
            same[0]["suites"] += suites
        else:
            label = f"{model} ({view.name})" if same else model
            found.append({"stage": view.name, "model": label, "suites": suites})
    return found


def pairings(stages: Sequence[StageView]) -> list[dict[str, Any]]:
    """Each evaluated model against the one before it, on the questions both answered (exact McNemar)."""
    found = []
    before: dict[str, tuple[str, Mapping[str, int]]] = {}
    for view in _evaluations(stages):
        for suite, measured in _suites(view):
            items = measured["total"].get("items")
            if not isinstance(items, Mapping):
                continue
            if suite in before:
                model, old = before[suite]
                paired = paired_test(old, items)
                if paired is not None:
                    found.append(
                        {"suite": suite, "before": model, "after": evaluated_stage(view), "won": paired.won,
                         "lost": paired.lost, "shared": paired.shared, "p": paired.p}
                    )  # fmt: skip
            before[suite] = (evaluated_stage(view), items)
    return found


def _evaluations(stages: Sequence[StageView]) -> list[StageView]:
    """Stages that asked probes, in the order of the models they asked."""
    order = {view.name: index for index, view in enumerate(stages)}
    evaluations = [view for view in stages if any(True for _ in _suites(view))]
    return sorted(evaluations, key=lambda view: order.get(evaluated_stage(view), order[view.name]))


def _suites(view: StageView) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Tasks of right and wrong items, their acc or pass@1 as the total, then suites of probes."""
    tasks = view.results.get("tasks")
    for name, measured in tasks.items() if isinstance(tasks, Mapping) else ():
        counted = {k: v for k, v in measured.items() if isinstance(v, Mapping) and "lower_is_better" not in v}
        total = next((key for key in ("acc", "pass@1") if key in counted), None)
        if total is not None:
            yield name, {"total": counted.pop(total), **counted}
    probes = view.results.get("probes")
    for name, measured in probes.items() if isinstance(probes, Mapping) else ():
        if isinstance(measured, Mapping) and isinstance(measured.get("total"), Mapping):
            yield name, measured


def _suite_measures(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Total and categories; categories stand beside the total or in a table of their own."""
    table = measured.get("categories")
    categories = table if isinstance(table, Mapping) else measured
    return {
        "total": plain_results({"total": measured["total"]})["total"],
        "categories": [
            {"name": name, **plain_results({name: value})[name]}
            for name, value in categories.items()
            if name != "total" and isinstance(value, Mapping) and "value" in value
        ],
    }


def _suite_items(view: StageView, suite: str, roadmap_dir: Path) -> dict[str, Any]:
    """The questions of a suite with what the model said, from the results file beside the measures."""
    task = view.file(f"tasks/{suite}.json")
    file = view.file(f"probes/{suite}.json") or task
    if file is None:
        return {"items": [], "left_out": 0, "note": "the answers were not kept"}
    try:
        items = json.loads(file.read_text(encoding="utf-8"))["items"]
        if file == task:
            items = [_task_item(item) for item in items]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return {"items": [], "left_out": 0, "note": f"{file.name} cannot be read ({error})"}
    questions, note = _questions(view, suite, roadmap_dir)
    left_out = max(0, len(items) - SUITE_ITEMS)
    if left_out:
        kept = sorted(range(len(items)), key=lambda i: (bool(items[i].get("passed")), i))[:SUITE_ITEMS]
        items = [items[i] for i in sorted(kept)]
    shown = []
    for item in items:
        asked = questions.get(str(item.get("id")))
        shown.append(clip(({"messages": asked} if asked else {}) | item))
    return {"items": shown, "left_out": left_out, "note": note}


def _task_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as a question with an answer: the first that was written, or the likeliest choice."""
    if "answers" in item:
        return _written_item(item)
    choices, logp = item["choices"], item["logp"]
    passed = bool(item["acc"])
    if len(choices) > 1:
        answer = choices[max(range(len(choices)), key=lambda place: (logp[place], -place))]
        reasons = [] if passed else [f"right is: {choices[item['gold']]}"]
    else:
        answer, reasons = (choices[0], []) if passed else ("(another)", [f"right is: {choices[0]}"])
    asked = [{"role": "user", "content": item["context"]}]
    return {
        "id": item["id"], "category": "items", "passed": passed, "answer": answer, "reasons": reasons,
        "messages": asked,
    }  # fmt: skip


def _written_item(item: Mapping[str, Any]) -> dict[str, Any]:
    first = item["answers"][0]
    passed = bool(first["acc"] if "acc" in first else first["passes"])
    return {
        "id": item["id"], "category": "items", "passed": passed, "answer": first["answer"],
        "thinking": first["thinking"], "reasons": [] if passed else first["reasons"],
        "messages": [{"role": "user", "content": item["prompt"]}],
    }  # fmt: skip


def _questions(view: StageView, suite: str, roadmap_dir: Path) -> tuple[dict[str, Any], str]:
    """What was asked, by probe id, from the suite's file where that is still the one that was used."""
    suites = view.record.get("settings", {}).get("suites")
    path = suites.get(suite) if isinstance(suites, Mapping) else None
    if not isinstance(path, str) or view.artifact is None:
        return {}, ""
    try:
        used = view.artifact.manifest.sources.values()
        if suite_digest(path, roadmap_dir) not in used:
            return {}, f"{path} has changed since, so the questions are not shown"
        probes = load_suite(suite_path(path, roadmap_dir)).probes
    except GradusError as error:
        return {}, f"the questions are not shown: {error}"
    return {probe.id: _asked(probe) for probe in probes}, ""


def _asked(probe: Probe) -> list[dict[str, Any]]:
    if probe.messages is not None:
        return [{"role": m.get("role", ""), "content": m.get("content") or ""} for m in probe.messages]
    return [{"role": "user", "content": turn} for turn in probe.turns or ()]


def audit_results(stages: Sequence[StageView]) -> list[dict[str, Any]]:
    """Per audited model the rate of each kind of artifact, and the answers that held one.

    [{"model", "rates": [{"kind", "value", "n", "successes", "upper", ...}], "samples", "left_out"}].
    """
    found = []
    for view in stages:
        measures = view.results.get("audit")
        if not isinstance(measures, Mapping) or not isinstance(measures.get("any"), Mapping):
            continue
        rates = [{"kind": kind, **rate} for kind, rate in measures.items() if kind != "clean"]
        file = view.file("audit.json")
        try:
            samples = json.loads(file.read_text(encoding="utf-8"))["samples"] if file is not None else []
        except (ValueError, KeyError, TypeError):
            samples = []
        dirty = [sample for sample in samples if sample.get("kinds")]
        shown = [clip(sample) for sample in dirty[:AUDIT_SAMPLES]]
        left_out = len(dirty) - len(shown)
        found.append({"model": evaluated_stage(view), "rates": rates, "samples": shown, "left_out": left_out})
    return found


# Curves and samples


def training_curves(stages: Sequence[StageView]) -> list[dict[str, Any]]:
    """Per training stage the logged figures as columns, thinned to at most `CURVE_POINTS` points.

    {"stage", "train": {"step": [...], "loss": [...], ...}, "evaluate": {...}, "every": k, "passed_over": [...]}: of the
    logged steps each k-th is kept. passed_over: of each return to a checkpoint {"from": the step returned to, "to": the
    step refused last, "data_steps": [first, one past the last] that are not trained on again}.
    """
    found = []
    for view in stages:
        lines, passed_over = counting_lines(_json_lines(view.file(METRICS)))
        train = [line for line in lines if line.get("event") == "train" and "step" in line]
        extension = _extension(view)
        evaluate = [line for line in lines if line.get("event") == "evaluate" and "step" in line]
        if not train and not evaluate:
            continue
        every = max(1, math.ceil(len(train) / CURVE_POINTS))
        # Counted from the end, so that the last step is always there.
        thinned = train[::-1][::every][::-1]
        entry = {"stage": view.name, "train": _columns(thinned), "evaluate": _columns(evaluate), "every": every}
        entry["passed_over"] = passed_over
        found.append(entry | ({"extension": extension} if extension else {}))
    return found


def counting_lines(lines: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the lines that still count, the windows passed over): a return to a checkpoint undoes the steps after it."""
    counting: list[dict[str, Any]] = []
    windows = []
    for line in lines:
        if line.get("event") != "rollback":
            counting.append(line)
            continue
        returned = line["returned_to"]
        counting = [earlier for earlier in counting if earlier.get("step", 0) <= returned]
        windows.append({"from": returned, "to": line["step"], "data_steps": line["data_steps"]})
    return counting, windows


def _extension(view: StageView) -> dict[str, Any]:
    """Of a stage that extended a context: perplexity by position and pass keys by length; {} of others.

    {"positions": {"step": [last position of each part], "before": [...], ...}, "passkeys": {"step": [length], ...}}.
    """
    results = view.results
    if not isinstance(results.get("positions"), Mapping):
        return {}
    told = {"before": results["before"], "rescaled": results["rescaled"], "after": results}
    positions: dict[str, Any] = {name: measured["positions"]["perplexity"] for name, measured in told.items()}
    passkeys: dict[str, Any] = {}
    lengths = [name for name in results["passkey"] if name.startswith("at_")]
    for name, measured in told.items():
        passkeys[name] = [measured["passkey"][at]["value"] for at in lengths]
    return {
        "positions": {"step": results["positions"]["edges"][1:], **positions},
        "passkeys": {"step": [int(at.removeprefix("at_")) for at in lengths], **passkeys},
    }


def _columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    names = dict.fromkeys(k for line in lines for k, v in line.items() if _is_number(v))
    return {name: [_short(line[name]) if _is_number(line.get(name)) else None for line in lines] for name in names}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def text_samples(stages: Sequence[StageView]) -> list[dict[str, Any]]:
    """What each training stage said as it trained: lines by step, at most `SAMPLE_STEPS` steps of them."""
    found = []
    for view in stages:
        lines = [line for line in _json_lines(view.file(SAMPLES)) if _is_number(line.get("step"))]
        steps = sorted({line["step"] for line in lines})
        if not steps:
            continue
        last = len(steps) - 1
        count = min(len(steps), SAMPLE_STEPS)
        kept = {steps[round(i * last / max(1, count - 1))] for i in range(count)}
        found.append(
            {
                "stage": view.name,
                "lines": [clip(line) for line in lines if line["step"] in kept],
                "left_out": len(steps) - len(kept),
            }
        )
    return found


def drop_samples(stages: Sequence[StageView]) -> list[dict[str, Any]]:
    """Per stage that left something out, the first few of each reason."""
    found = []
    for view in stages:
        file = view.file(DROP_SUMMARY)
        try:
            content = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        except ValueError:
            continue
        samples = content.get("samples") if isinstance(content, dict) else None
        if isinstance(samples, Mapping) and samples:
            shown = {reason: clip(list(kept)[:DROP_SAMPLES]) for reason, kept in samples.items()}
            found.append({"stage": view.name, "by_reason": content.get("by_reason", {}), "samples": shown})
    return found


def _json_lines(file: Path | None) -> list[dict[str, Any]]:
    """The whole lines of a JSON-lines file; one that is being written may end in half a line."""
    if file is None:
        return []
    found = []
    for text in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            found.append(line)
    return found
