"""`gradus compare A B`: for each measure of two evaluations whether the second is better, worse, or not resolved."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from gradus.core.comparison import SIGNIFICANCE, Compared, compare_measures, named_measures, unshared
from gradus.core.errors import DataError, did_you_mean
from gradus.eval.result import suite_measures
from gradus.roadmap.models import resolve_stage
from gradus.roadmap.table import text_table


def compare(first: str, second: str, home: Path, as_json: bool) -> None:
    """Print the table. Errors: ArtifactError or DataError for what is no evaluation, or where nothing is shared."""
    measures = [_sound(name, named_measures(_results(name, home))) for name in (first, second)]
    compared = compare_measures(*measures)
    only = unshared(list(measures[0]), list(measures[1]))
    if not compared:
        raise DataError(
            f"{first} and {second} share no measure: {', '.join(only[0][:6]) or 'none'} against "
            f"{', '.join(only[1][:6]) or 'none'}; evaluate both on the same tasks or "
            "suites; of a file with several runs name one, as in FILE#RUN"
        )
    if as_json:
        record = {"first": first, "second": second, "measures": [asdict(one) for one in compared]}
        typer.echo(json.dumps(record | {"only_first": only[0], "only_second": only[1]}, indent=1, ensure_ascii=False))
        return
    typer.echo(comparison_text(first, second, compared, only))


def comparison_text(first: str, second: str, compared: list[Compared], only: tuple[list[str], list[str]]) -> str:
    """The table, and what to make of it."""
    rows = []
    for one in compared:
        p = "" if one.p is None else ("<0.001" if one.p < 0.001 else f"{one.p:.3f}")
        least = "" if one.resolvable is None else f"{one.resolvable:.3g}"
        rows.append([one.measure, f"{one.first:.4g}", f"{one.second:.4g}", one.verdict, p, least, one.text])
    header = ["measure", "first", "second", "the second is", "p", "resolves", "by"]
    lines = [f"first {first}, second {second}", "", text_table(header, rows, right=(1, 2, 4, 5)), ""]
    lines.append("resolves: the least true difference that so many items show four times in five; of perplexities, of")
    lines.append("their nats where items are shared.")
    if len(compared) > 1:
        chance = SIGNIFICANCE * len(compared)
        lines.append(f"Of {len(compared)} measures without any difference about {chance:.2g} would look like one.")
    for name, names in zip((first, second), only, strict=True):
        if names:
            lines.append(f"only in {name}: {', '.join(names)}")
    return "\n".join(lines)


def _results(name: str, home: Path) -> Mapping[str, Any]:
    """The results of an eval stage, or what `gradus eval ... --json` wrote, of FILE#RUN one of its runs."""
    path, run = Path(name).expanduser(), ""
    if not path.is_file() and "#" in name:
        before, _, run = name.rpartition("#")
        path = Path(before).expanduser()
    if not path.is_file():
        return resolve_stage(name, home, "eval").results
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); give what gradus eval wrote with --json") from error
    if isinstance(record, dict) and isinstance(record.get("suite"), str):
        try:
            return {"probes": {record["suite"]: _of_suite(path, record, run)}}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: not as gradus eval probes --json writes it ({type(error).__name__}: {error})"
            ) from error
    if run:
        raise DataError(f'{path}: holds no runs of a probe suite; leave "#{run}" out')
    if isinstance(record, dict) and isinstance(record.get("measures"), dict):
        return {"tasks": record["measures"]}
    raise DataError(f"{path}: no evaluation; give a file that gradus eval wrote with --json, or ROADMAP/STAGE")


def _of_suite(path: Path, record: Mapping[str, Any], run: str) -> dict[str, Any]:
    """Measures of a suite; of several runs by the name of each, or of the one that is chosen by name or number."""
    if "runs" not in record:
        if run:
            raise DataError(f'{path}: holds one run; leave "#{run}" out')
        return suite_measures(record)
    names = _run_names(record["runs"])
    known = ", ".join(f"{number} ({name})" for number, name in enumerate(names, start=1))
    chosen = [index for index, name in enumerate(names) if name == run]
    chosen = chosen or [index for index in range(len(names)) if str(index + 1) == run]
    if run and not chosen:
        raise DataError(f'{path}: no run "{run}"{did_you_mean(run, names)}; there are {known}')
    if len(chosen) > 1 or (not run and len(set(names)) < len(names)):
        raise DataError(f"{path}: several runs have the same name; choose one by its number, as in FILE#1: {known}")
    if chosen:
        return suite_measures(record["runs"][chosen[0]])
    return {name: suite_measures(one) for name, one in zip(names, record["runs"], strict=True)}


def _run_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells the runs of a file apart, by which those of another file find theirs.

    The stage, where all are of one roadmap, the model otherwise; the variant alone, where all are of one model.
    """
    models = [str(run["model"]) for run in runs]
    variants = [str(run.get("variant", "")) for run in runs]
    if len(set(models)) == 1 and len(set(variants)) == len(runs):
        return variants
    if len({model.partition("/")[0] for model in models}) == 1 and all("/" in model for model in models):
        models = [model.partition("/")[2] for model in models]
    return [model + (f", {variant}" if variant else "") for model, variant in zip(models, variants, strict=True)]


def _sound(name: str, measures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The measures. Errors: DataError for a value that is no number."""
    for key, measure in measures.items():
        items = measure.get("items")
        for value in [measure["value"], *(items.values() if isinstance(items, Mapping) else ())]:
            if not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
                raise DataError(f'{name}: "{key}" holds {value!r}, expected a number; evaluate again')
    return measures
