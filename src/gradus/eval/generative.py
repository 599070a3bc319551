"""The table of benchmarks whose answers a model writes: what is asked, and when an answer is right. Without torch.

A task asks each item as one message of a user, in the model's own chat format and without examples: the item's text
and a sentence that says how the answer has to end. Only the answer is judged, never thinking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradus.conversation.final_answers import gsm8k_answer, last_value, same_value
from gradus.core.errors import DataError
from gradus.data import benchmark_rows as rows
from gradus.data.benchmark_rows import Row
from gradus.data.benchmarks import benchmark_rows, read_row
from gradus.eval.tasks import evenly_spread


@dataclass(frozen=True, slots=True)
class Problem:
    """One item. prompt: the user's message; reference: the right final answer."""

    prompt: str
    reference: str


Judge = Callable[[Problem, str], bool]


@dataclass(frozen=True)
class GenerativeTask:
    """A benchmark. set: of `BENCHMARKS`; file: its evaluation split among the set's files; judges: by measure."""

    set: str
    problem: Callable[[Row], Problem]
    judges: Mapping[str, Judge]
    file: str | None = None


_NUMBER = 'Work it out step by step. End with a line "#### N", where N is the final number.'


def gsm8k(row: Row) -> Problem:
    """The question; the reference is the number behind "#### ". Errors: ValueError where there is none."""
    reference = gsm8k_answer(row["answer"])
    if reference is None:
        raise ValueError('no "#### N" in the answer')
    return Problem(f"{row['question']}\n\n{_NUMBER}", reference)


def svamp(row: Row) -> Problem:
    """Story and question."""
    question, reference = rows.svamp(row)
    return Problem(f"{question}\n\n{_NUMBER}", reference)


def is_gsm8k_answer(problem: Problem, answer: str) -> bool:
    """The number behind the first "#### " is the reference, as text. Source: Cobbe et al. 2021, dataset.py."""
    return gsm8k_answer(answer) == problem.reference


def is_marked_number(problem: Problem, answer: str) -> bool:
    """The number behind the first "#### " has the reference's value: 51.0 is 51."""
    found = gsm8k_answer(answer)
    return found is not None and same_value(found, problem.reference)


def is_last_number(problem: Problem, answer: str) -> bool:
    """The last number of the answer has the reference's value, whatever the answer's form."""
    found = last_value(answer)
    return found is not None and same_value(found, problem.reference)


GENERATIVE: dict[str, GenerativeTask] = {
    "gsm8k": GenerativeTask("gsm8k", gsm8k, {"acc": is_gsm8k_answer, "acc_last": is_last_number}),
    "svamp": GenerativeTask("svamp", svamp, {"acc": is_marked_number, "acc_last": is_last_number}),
}


def problems_of(name: str, folder: Path | None, limit: int | None = None) -> list[tuple[str, Problem]]:
    """(id, problem) of a task's items, at most `limit`. Errors: DataError for files that are missing or wrong."""
    task = GENERATIVE[name]
    found = list(benchmark_rows(task.set, folder, task.file))
    chosen = [found[number] for number in evenly_spread(len(found), limit)]
    if not chosen:
        raise DataError(f'task "{name}": its file holds no item; fetch it again')
    return [(row.id, read_row(task.set, row, task.problem)) for row in chosen]
