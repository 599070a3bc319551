"""Asking a model the items of a task: over several processes, and over interruptions.

What has been scored is kept in a journal (journal.py) and is not asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gradus.core.fingerprint import digest
from gradus.engine.engine import Engine
from gradus.eval.asked import Asked, Continuation, Likelihood
from gradus.eval.benchmarks import CORE, GROUPS, BenchmarkSettings, asked_of, check_tasks, group_measures, tasks_meant
from gradus.eval.core_metric import core_measures
from gradus.eval.generative import GENERATIVE, check_can_run
from gradus.eval.generative_run import run_generative
from gradus.eval.journal import Journal, SharedWork
from gradus.eval.letters import LETTER_TASKS
from gradus.eval.likelihood import TOKENS_PER_BATCH, likelihoods
from gradus.eval.mt_bench import MT_BENCH
from gradus.eval.mt_bench_run import run_mt_bench
from gradus.eval.results import Result
from gradus.eval.task_result import TaskResult
from gradus.model.transformer import Transformer
from gradus.train.parallel import World

Answers = tuple[Likelihood, ...]
_JOURNAL_EVERY = 16  # items


def questions_digest(items: Sequence[Asked]) -> str:
    """Identity of what is asked, in tokens, and of what is right."""
    return digest([[item.id, item.gold, *[[list(c.context), list(c.tokens)] for c in item.question]] for item in items])


def answers_of(
    model: Transformer,
    items: Sequence[Asked],
    *,
    journal: Journal | None = None,
    world: World | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> list[Answers]:
    """The likelihoods of every item's continuations, in the items' order, to the last bit the same for any `world`.

    world: processes that share the items; each returns all. on_progress: called with (items done, items in all).
    """
    units = _units(items)
    work = SharedWork(len(units), journal, world, on_progress, len(items))
    fresh: dict[int, list[tuple[float, bool, int]]] = {}

    def keep() -> None:
        work.keep(fresh)
        fresh.clear()

    found_here = likelihoods(model, units, tokens_per_batch=tokens_per_batch, done=work.kept.keys(), world=world)
    for number, answers in found_here:
        fresh[number] = [(answer.logp, answer.is_greedy, answer.num_tokens) for answer in answers]
        if len(fresh) >= _JOURNAL_EVERY:
            keep()
    keep()
    found = (tuple(Likelihood(*answer) for answer in answers) for answers in work.everything())
    return [tuple(next(found)[0] for _ in item.question) if item.is_document else next(found) for item in items]


def _units(items: Sequence[Asked]) -> list[Sequence[Continuation]]:
    """What is read at once: an item's choices, each window of a document by itself."""
    units: list[Sequence[Continuation]] = []
    for item in items:
        units += [(window,) for window in item.question] if item.is_document else [item.question]
    return units


def run_tasks(
    engine: Engine,
    names: Sequence[str],
    settings: BenchmarkSettings,
    *,
    label: str = "",
    identity: str = "",
    journals: Path | None = None,
    world: World | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[tuple[str, Result]]:
    """(name, result) of each task; of CORE its 22 tasks as "core.<task>".

    label: of the model, for records. journals: a folder in which what is done survives an interruption; identity:
    that of the model, so that another's is not taken for it. on_progress: called with (task, items done, items).
    Errors: ConfigError for an unknown name, DataError for files that are missing or wrong, SandboxError or
    MissingPackageError where a task runs programs or services and this machine cannot.
    """
    check_tasks(names, settings)
    check_can_run(tasks_meant(names))
    for name in tasks_meant(names):
        if name in GENERATIVE or name == MT_BENCH:
            ask = run_mt_bench if name == MT_BENCH else partial(run_generative, name=name)
            show = None if on_progress is None else partial(on_progress, name)
            folder = None if journals is None else journals / name
            yield name, ask(
                engine, settings=settings, label=label, identity=identity, journals=folder, world=world,
                on_progress=show,
            )  # fmt: skip
            continue
        for key, wanted, items in asked_of(name, engine.form, settings, engine.context):
            began = time.monotonic()
            questions = questions_digest(items)
            journal = None
            if journals is not None:
                journal = Journal(journals / key, digest([identity, questions]))
            show = None if on_progress is None else partial(on_progress, key)
            answers = answers_of(engine.model, items, journal=journal, world=world, on_progress=show)
            seconds = round(time.monotonic() - began, 3)
            how = settings.chosen()
            how |= settings.asking() if name in LETTER_TASKS else {"bos": settings.bos or name == CORE}
            yield key, TaskResult(key, label, wanted, tuple(items), tuple(answers), questions, seconds, how)


def gathered(results: Mapping[str, Result]) -> dict[str, Any]:
    """Measures by task, those of a group's tasks and its figures under its name."""
    found: dict[str, Any] = {}
    core: dict[str, Result] = {}
    for name, result in results.items():
        group, _, member = name.partition(".")
        if group == CORE:
            core[member] = result
        elif member:
            found.setdefault(group, {})[member] = result.measures()
        else:
            found[name] = result.measures()
    for group in GROUPS.keys() & found.keys():
        members = found[group].items()
        accuracy = {m: measures["acc"] if "acc" in measures else measures["pass@1"] for m, measures in members}
        found[group] = group_measures(group, accuracy) | found[group]
    return found | ({CORE: core_measures(core)} if core else {})
