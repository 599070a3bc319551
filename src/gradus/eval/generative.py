"""The table of benchmarks whose answers a model writes: what is asked, and when an answer is right. Without torch.

A task asks each item as one message of a user, in the model's own chat format and without examples: the item's text
and a sentence that says how the answer has to end. Only the answer is judged, never thinking.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradus.conversation.code_blocks import program_of
from gradus.conversation.final_answers import boxed_answer, gsm8k_answer, last_value, same_value
from gradus.core.errors import DataError
from gradus.data import benchmark_rows as rows
from gradus.data.benchmark_rows import Row
from gradus.data.benchmarks import benchmark_rows, read_row
from gradus.eval.tasks import evenly_spread
from gradus.tools.sandbox import Limits, require_sandbox, run_program


@dataclass(frozen=True, slots=True)
class Problem:
    """One item.

    prompt: the user's message; reference: the right final answer, or a program that is right. Of programs, before: what
    stands before the answer's own; tests: run behind it.
    """

    prompt: str
    reference: str
    before: str = ""
    tests: str = ""


Judge = Callable[[Problem, str], str | None]
"""What is wrong with an answer, None where it is right."""


@dataclass(frozen=True)
class GenerativeTask:
    """A benchmark. set: of `BENCHMARKS`; file: its evaluation split among the set's files; judges: by measure.

    runs_programs: answers are programs, judged in the sandbox (tools/sandbox.py); pass@k is worked out of "passes".
    """

    set: str
    problem: Callable[[Row], Problem]
    judges: Mapping[str, Judge]
    file: str | None = None
    runs_programs: bool = False


PASSES = "passes"
"""What programs are judged by; pass@k is worked out of it."""
_LIMITS = Limits(seconds=10.0)  # a program that is right takes far less; a slow machine must not decide
_SHOWN = 200  # characters of what is wrong
_PROGRAM = "Answer with the whole program in one ```python block."
_LETTER = re.compile(r"#### \(?([A-E])\b")
_CHOICE = 'Work it out step by step. End with a line "#### X", where X is the letter of the right option.'
_BOXED = r"Work it out step by step. Put the final answer into \boxed{}."
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


def aqua(row: Row) -> Problem:
    """A question and its five options, a line each; the reference is a letter."""
    listed = "\n".join(row["options"])
    if row["correct"] not in ("A", "B", "C", "D", "E") or len(row["options"]) != 5:
        raise ValueError(f"answer {row['correct']} of {len(row['options'])} options")
    return Problem(f"{row['question']}\n\n{listed}\n\n{_CHOICE}", row["correct"])


def math(row: Row) -> Problem:
    """Rows of the evaluation bundle: a problem of MATH and its final answer."""
    question, reference = rows.core(row)
    return Problem(f"{question}\n\n{_BOXED}", reference)


def human_eval(row: Row) -> Problem:
    """A function's head and docstring, with what stands before it: imports, and functions that it may call."""
    head = re.search(rf"^def {re.escape(row['entry_point'])}\(", row["prompt"], re.MULTILINE)
    if head is None:
        raise ValueError(f"no function {row['entry_point']} in the prompt")
    asked = f"Complete this Python function. {_PROGRAM}\n\n```python\n{row['prompt'].strip()}\n```"
    tests = f"{row['test']}\ncheck({row['entry_point']})"
    return Problem(asked, row["prompt"] + row["canonical_solution"], row["prompt"][: head.start()], tests)


def mbpp(row: Row) -> Problem:
    """A task and its tests, which are shown. Source of the wording: Austin et al. 2021, section 2.1."""
    shown = "\n".join(row["test_list"])
    asked = f"{row['text']} Your code should pass these tests:\n\n{shown}\n\n{_PROGRAM}"
    return Problem(asked, row["code"], tests="\n".join([row["test_setup_code"], *row["test_list"]]))


def gsm8k_answer_fault(problem: Problem, answer: str) -> str | None:
    """The number behind the first "#### " must be the reference, as text. Source: Cobbe et al. 2021, dataset.py."""
    found = gsm8k_answer(answer)
    return None if found == problem.reference else _other(found, problem)


def marked_number_fault(problem: Problem, answer: str) -> str | None:
    """The number behind the first "#### " must have the reference's value: 51.0 is 51."""
    return _value_fault(gsm8k_answer(answer), problem)


def last_number_fault(problem: Problem, answer: str) -> str | None:
    """The last number of the answer must have the reference's value, whatever the answer's form."""
    return _value_fault(last_value(answer), problem)


def letter_fault(problem: Problem, answer: str) -> str | None:
    """The letter behind the first "#### " must be the reference."""
    found = _LETTER.search(answer)
    return None if found is not None and found[1] == problem.reference else _other(found and found[1], problem)


def boxed_fault(problem: Problem, answer: str) -> str | None:
    r"""What stands in the last \boxed{} must be the reference, as a number or as text in one spelling."""
    return _value_fault(boxed_answer(answer), problem)


def program_fault(problem: Problem, answer: str) -> str | None:
    """The answer's program must pass the tests. Errors: SandboxError, MissingPackageError."""
    outcome = run_program(f"{problem.before}\n{program_of(answer)}", problem.tests, _LIMITS)
    return None if outcome.passed else f"{outcome.ending}: {outcome.errors.strip()[-_SHOWN:]}".rstrip(": ")


def _value_fault(found: str | None, problem: Problem) -> str | None:
    return None if found is not None and same_value(found, problem.reference) else _other(found, problem)


def _other(found: str | None, problem: Problem) -> str:
    return f"{'no final answer' if found is None else found[:_SHOWN]}, expected {problem.reference}"


GENERATIVE: dict[str, GenerativeTask] = {
    "aqua": GenerativeTask("aqua", aqua, {"acc": letter_fault}, "aqua/test.json"),
    "gsm8k": GenerativeTask("gsm8k", gsm8k, {"acc": gsm8k_answer_fault, "acc_last": last_number_fault}),
    "humaneval": GenerativeTask("humaneval", human_eval, {PASSES: program_fault}, runs_programs=True),
    "math": GenerativeTask("core_math", math, {"acc": boxed_fault}),
    "mbpp": GenerativeTask("mbpp", mbpp, {PASSES: program_fault}, runs_programs=True),
    "svamp": GenerativeTask("svamp", svamp, {"acc": marked_number_fault, "acc_last": last_number_fault}),
}


def check_programs_run(names: Sequence[str]) -> None:
    """Errors: SandboxError or MissingPackageError where a task runs programs and this machine cannot."""
    if any(name in GENERATIVE and GENERATIVE[name].runs_programs for name in names):
        require_sandbox()


def problems_of(name: str, folder: Path | None, limit: int | None = None) -> list[tuple[str, Problem]]:
    """(id, problem) of a task's items, at most `limit`. Errors: DataError for files that are missing or wrong."""
    task = GENERATIVE[name]
    found = list(benchmark_rows(task.set, folder, task.file))
    chosen = [found[number] for number in evenly_spread(len(found), limit)]
    if not chosen:
        raise DataError(f'task "{name}": its file holds no item; fetch it again')
    return [(row.id, read_row(task.set, row, task.problem)) for row in chosen]
