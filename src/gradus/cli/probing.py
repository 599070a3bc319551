"""`gradus eval probes`: a suite asked of one model, or of several stages with and without tools and thinking."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gradus.cli.backend import find_model, open_engine
from gradus.cli.walking import stopping
from gradus.conversation.constraint import Constraint
from gradus.conversation.probes import PASS_RATE, TOTAL, Suite, load_suite, suite_path
from gradus.core.comparison import SIGNIFICANCE, paired_test
from gradus.core.files import write_atomic
from gradus.core.home import ANSWERS
from gradus.core.quantity import format_seconds
from gradus.core.terminal import harmless
from gradus.eval.judging import check_judge, judge_from_file
from gradus.roadmap.models import models_of_roadmap
from gradus.roadmap.progress import live_progress
from gradus.roadmap.table import text_table

if TYPE_CHECKING:
    from gradus.eval.probes import ProbeSettings
    from gradus.eval.result import SuiteResult
    from gradus.model.precision import Backend, DecodePrecision

SAMPLED_TEMPERATURE = 0.7


def evaluate_probes(
    models: Sequence[str],
    suite_name: str,
    home: Path,
    *,
    stages: bool = False,
    variants: bool = False,
    samples: int | None = None,
    temperature: float = 0.0,
    constrain: Constraint | None = None,
    max_tokens: int = 512,
    judge: Path | None = None,
    precision: DecodePrecision | None = None,
    backend: Backend | None = None,
    out: Path | None = None,
    failures: int = 5,
) -> None:
    """Ask the suite and print what came of it; several samples need a temperature, 0.7 if none is given.

    stages: every model of the roadmaps that `models` names. variants: also without tools, without thinking, and
    without both. precision, backend: as `open_engine` has them, usually fp32. judge: the settings of a judge, for
    checks that need one. One model in one way is written to `out` as one result, several as {"suite", "runs": [...]}.
    """
    suite = load_suite(suite_path(suite_name, Path()))
    judging = None if judge is None else judge_from_file(judge, home / ANSWERS)
    check_judge(suite, judging)
    if stages:
        models = [name for roadmap in models for name in models_of_roadmap(roadmap, home)]
    found = [find_model(model, home) for model in models]
    from gradus.engine.sampling import Sampling
    from gradus.eval.probes import VARIANTS, ProbeSettings

    if samples is not None and samples > 1 and temperature == 0:
        temperature = SAMPLED_TEMPERATURE
    settings = ProbeSettings(
        samples=samples,
        sampling=Sampling(temperature=temperature),
        constrain=constrain,
        max_tokens=max_tokens,
        judge=judging,
    )
    results: list[SuiteResult] = []
    with stopping():
        for model in found:
            engine, weights = open_engine(model, home, backend=backend, precision=precision, usual="fp32")
            label = model.label if weights == "fp32" else f"{model.label} in {weights}"
            results += [_asked(engine, suite, settings, label, v) for v in (VARIANTS if variants else [""])]
    if len(results) == 1:
        shown, record = result_text(results[0], failures), results[0].to_json()
    else:
        shown, record = table_text(results), {"suite": suite.name, "runs": [result.to_json() for result in results]}
    typer.echo(shown)
    if out is not None:
        write_atomic(out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        typer.echo(f"written to {out}")


def _asked(engine: Any, suite: Suite, settings: ProbeSettings, label: str, variant: str) -> SuiteResult:
    from gradus.eval.probes import run_suite

    name = f"{suite.name}: {label}" + (f", {variant}" if variant else "")
    with live_progress().task(name, None, "answers") as task:
        return run_suite(
            engine,
            suite,
            settings,
            model=label,
            variant=variant,
            on_progress=lambda done, total: task.update(done, total=total),
        )


def result_text(result: SuiteResult, failures: int) -> str:
    """Categories with their 95 % intervals, and the first failures with their reasons."""
    data = result.to_json()
    rates: Mapping[str, Any] = data.get(PASS_RATE, {})
    rows = []
    for name, measure in [*data["categories"].items(), (TOTAL, data[TOTAL])]:
        row = [name, f"{measure['successes']}/{measure['n']}", f"{measure['value']:.1%}", _interval(measure)]
        rows.append(row + ([f"{rates[name]['value']:.1%}", _interval(rates[name])] if rates else []))
    header = ["category", "passed", "share", "95 % interval"]
    header += ["pass rate of samples", "clustered by probe"] if rates else []
    lines = [
        f"{result.suite} on {result.model} in {format_seconds(result.seconds)}",
        "",
        text_table(header, rows, right=(1, 2, 4)),
        "",
        loops_text(data["loops"]),
    ]
    failed = [item for item in data["items"] if not item["passed"]]
    for item in failed[:failures]:
        answer = harmless(item["answer"])
        lines += ["", f"failed {item['id']}: {harmless('; '.join(item['reasons']))}", f"  answer: {answer}"]
    if len(failed) > failures:
        lines += ["", f"and {len(failed) - failures} more failed (--failures {len(failed)} shows all)"]
    return "\n".join(lines)


def loops_text(loops: Mapping[str, Any]) -> str:
    """How many replies loop, with the bound that so many replies allow."""
    return f"replies that loop: {loops['successes']} of {loops['n']}, below {loops['upper']:.1%} at 95 % confidence"


def table_text(results: Sequence[SuiteResult]) -> str:
    """Categories by model and variant, and each column against the first on the probes that both were asked."""
    labels = [result.model + (f", {result.variant}" if result.variant else "") for result in results]
    measures = [result.measures() for result in results]
    names = [*results[0].by_category(), TOTAL]
    rows = [[name, str(measures[0][name]["n"]), *(_share(found.get(name)) for found in measures)] for name in names]
    loops = [found["loops"]["replies"] for found in measures]
    rows.append(["replies that loop", str(loops[0]["n"]), *(f"{one['value']:.1%}" for one in loops)])
    lines = [f"{results[0].suite} in {format_seconds(sum(result.seconds for result in results))}", ""]
    lines += [f"{number}  {label}" for number, label in enumerate(labels, start=1)]
    header = ["category", "n", *(str(number) for number in range(1, len(results) + 1))]
    lines += ["", text_table(header, rows, right=range(1, len(results) + 2)), "", "against 1, on shared probes:"]
    kind = PASS_RATE if all(result.is_sampled for result in results) else ""
    totals = [(found[kind] if kind else found)[TOTAL]["items"] for found in measures]
    for number, items in enumerate(totals[1:], start=2):
        paired = paired_test(totals[0], items)
        if paired is not None:
            sure = "not resolved" if paired.p >= SIGNIFICANCE else "better" if paired.gain > 0 else "worse"
            lines.append(
                f"{number}: {paired.won} won, {paired.lost} lost of {paired.shared} (p = {paired.p:.3g}): {sure}"
            )
    return "\n".join(lines)


def _share(measure: Mapping[str, Any] | None) -> str:
    return "" if measure is None else f"{measure['value']:.1%}"


def _interval(measure: Mapping[str, Any]) -> str:
    return f"[{measure['lower']:.1%}, {measure['upper']:.1%}]"
