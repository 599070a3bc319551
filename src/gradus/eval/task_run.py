"""Asking a model the items of a task: over several processes, and over interruptions.

What has been scored is kept as lines in a journal, one file for each process, and is not asked again. A journal says
which questions and which model it belongs to; one of other questions is begun anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gradus.core.fingerprint import digest
from gradus.eval.asked import Asked, Continuation, Likelihood
from gradus.eval.benchmarks import CORE, BenchmarkSettings, asked_of, check_tasks
from gradus.eval.core_metric import core_measures
from gradus.eval.likelihood import TOKENS_PER_BATCH, likelihoods
from gradus.eval.task_result import TaskResult
from gradus.model.transformer import Transformer
from gradus.tokenizer.tokenizer import Tokenizer
from gradus.train.parallel import World

Answers = tuple[Likelihood, ...]
_JOURNAL_EVERY = 16  # items


class Journal:
    """Likelihoods as they are worked out, in a folder. identity: of questions and model together."""

    def __init__(self, folder: Path, identity: str, rank: int = 0) -> None:
        self._folder, self._identity = folder, identity
        self._path = folder / f"{rank}.jsonl"

    def begin(self) -> dict[int, Answers]:
        """What earlier runs of any number of processes have; lines from now on go behind it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found: dict[int, Answers] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            found |= self._read(path)
        return found

    def open_own(self) -> None:
        """Begin this process's file unless it goes on with the same questions."""
        if not self._path.exists() or self._header(self._path) != self._identity:
            self._path.write_text(json.dumps({"identity": self._identity}) + "\n", encoding="utf-8")
            return
        text = self._path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            # A line torn by a kill must not swallow the next one.
            self._path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")

    def append(self, answers: dict[int, Answers]) -> None:
        """Add what one batch gave."""
        with self._path.open("a", encoding="utf-8") as file:
            for number, found in answers.items():
                file.write(json.dumps([number, [[a.logp, a.is_greedy, a.num_tokens] for a in found]]) + "\n")

    def _header(self, path: Path) -> str | None:
        with path.open(encoding="utf-8") as file:
            try:
                return str(json.loads(file.readline())["identity"])
            except (ValueError, KeyError, TypeError):
                return None

    def _read(self, path: Path) -> dict[int, Answers]:
        if self._header(path) != self._identity:
            return {}
        found: dict[int, Answers] = {}
        for line in path.read_text(encoding="utf-8").split("\n")[1:-1]:
            number, answers = json.loads(line)
            found[number] = tuple(Likelihood(*answer) for answer in answers)
        return found


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
    """The likelihoods of every item's continuations, in the items' order.

    world: processes that share the items; each returns all. on_progress: called with (items done, items in all).
    """
    world = world or World()
    units = _units(items)
    done: dict[int, Answers] = journal.begin() if journal is not None else {}
    # Nobody may write while another still reads what there is.
    world.all_agree(True)
    if journal is not None:
        journal.open_own()
    todo = [number for number in range(len(units)) if number not in done][world.rank :: world.size]
    own: dict[int, Answers] = {}
    fresh: dict[int, Answers] = {}

    def note() -> None:
        if journal is not None:
            journal.append(fresh)
        fresh.clear()
        if on_progress is not None:
            share = min(1.0, (len(done) + len(own) * world.size) / max(1, len(units)))
            on_progress(round(share * len(items)), len(items))

    for place, answers in likelihoods(model, [units[number] for number in todo], tokens_per_batch=tokens_per_batch):
        fresh[todo[place]] = own[todo[place]] = tuple(answers)
        if len(fresh) >= _JOURNAL_EVERY:
            note()
    note()
    found = iter(_all(units, own | (done if world.is_main else {}), world))
    return [tuple(next(found)[0] for _ in item.question) if item.is_document else next(found) for item in items]


def _units(items: Sequence[Asked]) -> list[Sequence[Continuation]]:
    """What is read at once: an item's choices, each window of a document by itself."""
    units: list[Sequence[Continuation]] = []
    for item in items:
        units += [(window,) for window in item.question] if item.is_document else [item.question]
    return units


def _all(units: Sequence[Sequence[Continuation]], own: dict[int, Answers], world: World) -> list[Answers]:
    """Every process's answers on all of them."""
    if world.size == 1:
        return [own[number] for number in range(len(units))]
    table = torch.zeros(sum(map(len, units)), 3, dtype=torch.float64)
    row = 0
    for number, unit in enumerate(units):
        for place, answer in enumerate(own.get(number, ())):
            table[row + place] = torch.tensor([answer.logp, answer.is_greedy, answer.num_tokens], dtype=torch.float64)
        row += len(unit)
    world.sum_([table])
    rows = iter(table.tolist())
    return [
        tuple(Likelihood(logp, bool(greedy), int(tokens)) for logp, greedy, tokens in (next(rows) for _ in unit))
        for unit in units
    ]


def run_tasks(
    model: Transformer,
    tokenizer: Tokenizer,
    names: Sequence[str],
    settings: BenchmarkSettings,
    *,
    label: str = "",
    identity: str = "",
    journals: Path | None = None,
    world: World | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[tuple[str, TaskResult]]:
    """(name, result) of each task; of CORE its 22 tasks as "core.<task>".

    label: of the model, for records. journals: a folder in which what is done survives an interruption; identity:
    that of the model, so that another's is not taken for it. on_progress: called with (task, items done, items).
    Errors: ConfigError for an unknown name, DataError for files that are missing or wrong.
    """
    check_tasks(names)
    for name in dict.fromkeys(names):
        for key, wanted, items in asked_of(name, tokenizer, settings, model.config.context):
            began = time.monotonic()
            questions = questions_digest(items)
            journal = None
            if journals is not None:
                journal = Journal(journals / key, digest([identity, questions]), (world or World()).rank)
            answers = answers_of(
                model,
                items,
                journal=journal,
                world=world,
                on_progress=None if on_progress is None else lambda d, t, key=key: on_progress(key, d, t),  # type: ignore[misc]
            )
            seconds = round(time.monotonic() - began, 3)
            how = {"limit": settings.limit, "bos": settings.bos or name == CORE}
            yield key, TaskResult(key, label, wanted, tuple(items), tuple(answers), questions, seconds, how)


def gathered(results: dict[str, TaskResult]) -> dict[str, Any]:
    """Measures by task, CORE's tasks and scores under "core"."""
    found: dict[str, Any] = {}
    core: dict[str, TaskResult] = {}
    for name, result in results.items():
        if name.startswith(f"{CORE}."):
            core[name.removeprefix(f"{CORE}.")] = result
        else:
            found[name] = result.measures()
    return found | ({CORE: core_measures(core)} if core else {})
