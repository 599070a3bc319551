"""Which items of a benchmark stand in a training corpus: beside every score, and the score without them.

What counts as standing in a document is the rule of data/decontaminate.py: half of an item's word 13-grams (8 for
mathematics). Articles of WikiText are running text, of which nothing is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from gradus.data.benchmarks import BENCHMARKS, row_files
from gradus.data.decontaminate import DecontaminateSettings, Decontaminator
from gradus.eval.benchmarks import BUNDLE, CORE, BenchmarkSettings, tasks_meant
from gradus.eval.core_metric import CORE_TASKS
from gradus.eval.generative import GENERATIVE
from gradus.eval.letters import LETTER_TASKS
from gradus.eval.mt_bench import MT_BENCH
from gradus.eval.results import Result
from gradus.eval.tasks import TASKS

_TOGETHER = 512  # documents


def set_of(task: str) -> str | None:
    """The evaluation set whose item ids a task has; None where it is running text."""
    if task in TASKS:
        return TASKS[task].set
    if task in GENERATIVE:
        return GENERATIVE[task].set
    if task == MT_BENCH:
        return MT_BENCH
    if task in LETTER_TASKS:
        return LETTER_TASKS[task].set
    if task.startswith(f"{CORE}."):
        return f"core_{CORE_TASKS[task.removeprefix(f'{CORE}.')].files[0]}"
    return None


def check_contamination(names: Iterable[str], settings: BenchmarkSettings) -> None:
    """Before anything is asked. Errors: DataError where a file is missing that `with_contamination` will read."""
    for name in dict.fromkeys(_looked_for(tasks_meant(names), settings).values()):
        row_files(name, settings.folder)


def _looked_for(tasks: Iterable[str], settings: BenchmarkSettings) -> dict[str, str]:
    """The evaluation set of each task whose items are looked for."""
    own_bundle = settings.bundle is None or (
        settings.folder is not None
        and isinstance(settings.bundle, Path)
        and settings.bundle.resolve() == (settings.folder / BUNDLE).resolve()
    )
    sets = {task: name for task in tasks if (name := set_of(task)) is not None and name in BENCHMARKS}
    return {task: name for task, name in sets.items() if own_bundle or not task.startswith(f"{CORE}.")}


def with_contamination(
    results: Mapping[str, Result], settings: BenchmarkSettings, texts: Iterable[str]
) -> dict[str, Result]:
    """The results with the items that stand in the texts, a training corpus, marked.

    Those that are not looked for stay as they are: running text, and CORE from a bundle that is not the folder's own.
    """
    sets = _looked_for(results, settings)
    if not sets:
        return dict(results)
    assert settings.folder is not None
    looked_for = tuple(dict.fromkeys(sets.values()))
    judge = Decontaminator(DecontaminateSettings(sets=looked_for, folder=str(settings.folder.resolve())), Path())
    found: set[tuple[str, str]] = set()
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _TOGETHER:
            found |= judge.found_items(batch).keys()
            batch = []
    found |= judge.found_items(batch).keys()
    marked = {
        task: frozenset(item.id for item in results[task].items if (name, item.id) in found)
        for task, name in sets.items()
    }
    return {
        task: replace(result, contaminated=marked[task]) if task in marked else result
        for task, result in results.items()
    }
