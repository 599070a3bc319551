"""The table of benchmarks whose answers a model writes: what is asked, and when an answer is right. Without torch.

A task asks each item as one message of a user, in the model's own chat format: the item's text and a sentence that says
how the answer has to end. Only the answer is judged, never thinking; of questions with tools, the calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gradus.conversation.checks import AssistantTurn
from gradus.conversation.code_blocks import program_of
from gradus.conversation.final_answers import boxed_answer, gsm8k_answer, last_value, same_value
from gradus.conversation.messages import Message, ToolSchema
from gradus.core.errors import DataError
from gradus.data import benchmark_rows as rows
from gradus.data.benchmark_rows import Row
from gradus.data.benchmarks import BenchmarkRow, Read, benchmark_rows, read_row
from gradus.eval import bfcl
from gradus.eval.bfcl_multi_turn import BFCL_MULTI_TURN, Dialogue, dialogue_of, with_functions
from gradus.eval.bfcl_multi_turn import CATEGORIES as MULTI_TURN_CATEGORIES
from gradus.eval.bfcl_services import services_version
from gradus.eval.letters import with_examples
from gradus.eval.spelling import count_items, is_spelled, spelling_items
from gradus.eval.tasks import Limit, evenly_spread
from gradus.tools.sandbox import Limits, require_sandbox, run_program


@dataclass(frozen=True, slots=True)
class Problem:
    """One item.

    prompt: the user's message; reference: the right final answer, or a program that is right. Of programs, before: what
    stands before the answer's own; tests: run behind it. earlier: messages before the prompt. tools: declared and never
    run, their calls are the answer. row: what the item is made of, where it is judged by more than its reference.
    """

    prompt: str
    reference: str
    before: str = ""
    tests: str = ""
    earlier: tuple[Message, ...] = ()
    tools: tuple[ToolSchema, ...] = ()
    row: Row = field(default_factory=dict)

    @property
    def num_characters(self) -> int:
        """About how much of it a model reads."""
        tools = sum(len(str(tool.to_json())) for tool in self.tools)
        return len(self.prompt) + sum(len(message.content) for message in self.earlier) + tools


Judge = Callable[[Problem, AssistantTurn], str | None]
"""What is wrong with an answer, None where it is right."""


@dataclass(frozen=True)
class GenerativeTask:
    """A benchmark. set: of `BENCHMARKS`, None for items that are made here; file: its evaluation split among the set's.

    judges: by measure. runs_programs: answers are programs, judged in the sandbox (tools/sandbox.py); pass@k is worked
    out of "passes". examples: a file of rows for worked examples, and worked, such a row's answer as it should be
    written. declares_tools: its questions come with tools, and no others are declared. made: of a task without a
    set (id, question, reference) of each item. dialogue: of conversations of several turns that act on simulated
    services, judged by what these come to; its one measure is `ACC`.
    """

    set: str | None
    problem: Callable[[Row], Problem]
    judges: Mapping[str, Judge]
    file: str | None = None
    runs_programs: bool = False
    examples: str | None = None
    worked: Callable[[Row], str] | None = None
    declares_tools: bool = False
    made: Callable[[], list[tuple[str, str, str]]] | None = None
    dialogue: Callable[[Row], Dialogue] | None = None


ACC = "acc"
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


def gsm8k_worked(row: Row) -> str:
    """The published solution without the calculator's annotations."""
    return rows.CALCULATION.sub("", row["answer"])


def aqua_worked(row: Row) -> str:
    """The published rationale, and the letter behind it."""
    return f"{row['rationale'].strip()}\n#### {row['correct']}"


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


def bfcl_question(row: Row) -> Problem:
    """A question with tools, behind the messages that precede it."""
    asked = bfcl.question(row)
    *earlier, last = asked.messages
    return Problem(last.content, bfcl.right_calls(row), earlier=tuple(earlier), tools=asked.tools, row=row)


def bfcl_conversation(row: Row) -> Problem:
    """A conversation of several turns: all that the user says, the tools that it begins with, and the right calls."""
    dialogue = dialogue_of(row)
    said = "\n\n".join(message.content for turn in dialogue.turns for message in turn)
    return Problem(said, bfcl.right_calls(row), tools=dialogue.tools[0], row=row)


def calls_fault(problem: Problem, turn: AssistantTurn) -> str | None:
    """The calls must be the right ones."""
    return bfcl.fault(problem.row, turn)


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
    # What stands before a function is the tests' own: they may use it, and the answer must not change it for them.
    outcome = run_program(f"{problem.before}\n{program_of(answer)}", f"{problem.before}\n{problem.tests}", _LIMITS)
    return None if outcome.passed else f"{outcome.ending}: {outcome.errors.strip()[-_SHOWN:]}".rstrip(": ")


def _value_fault(found: str | None, problem: Problem) -> str | None:
    return None if found is not None and same_value(found, problem.reference) else _other(found, problem)


def _other(found: str | None, problem: Problem) -> str:
    return f"{'no final answer' if found is None else found[:_SHOWN]}, expected {problem.reference}"


def made_problem(row: Row) -> Problem:
    """A question that is made here."""
    return Problem(row["question"], row["reference"])


def spelled_fault(problem: Problem, answer: str) -> str | None:
    """The letters of the word must stand one by one in the answer."""
    return None if is_spelled(answer, problem.reference) else f"does not spell {problem.reference}"


def _by_answer(**faults: Callable[[Problem, str], str | None]) -> dict[str, Judge]:
    """Judges by measure that read the answer alone."""

    def judge(fault: Callable[[Problem, str], str | None]) -> Judge:
        return lambda problem, turn: fault(problem, turn.answer)

    return {name: judge(fault) for name, fault in faults.items()}


def _bfcl(category: str) -> GenerativeTask:
    return GenerativeTask(
        bfcl.BFCL, bfcl_question, {ACC: calls_fault}, f"bfcl/BFCL_v4_{category}.json", declares_tools=True
    )


def _bfcl_multi_turn(category: str) -> GenerativeTask:
    file = f"bfcl/BFCL_v4_multi_turn_{category}.json"
    return GenerativeTask(bfcl.BFCL, bfcl_conversation, {}, file, declares_tools=True, dialogue=dialogue_of)


_GSM8K = GenerativeTask(
    "gsm8k", gsm8k, _by_answer(acc=gsm8k_answer_fault, acc_last=last_number_fault),
    examples="gsm8k/train.jsonl", worked=gsm8k_worked,
)  # fmt: skip
_HUMANEVAL = GenerativeTask("humaneval", human_eval, _by_answer(passes=program_fault), runs_programs=True)

GENERATIVE: dict[str, GenerativeTask] = {
    "aqua": GenerativeTask(
        "aqua", aqua, _by_answer(acc=letter_fault), "aqua/test.json", examples="aqua/dev.json", worked=aqua_worked
    ),
    "gsm8k": _GSM8K,
    "humaneval": _HUMANEVAL,
    "math": GenerativeTask("core_math", math, _by_answer(acc=boxed_fault)),
    "mbpp": GenerativeTask("mbpp", mbpp, _by_answer(passes=program_fault), runs_programs=True),
    "svamp": GenerativeTask("svamp", svamp, _by_answer(acc=marked_number_fault, acc_last=last_number_fault)),
    "letter_counts": GenerativeTask(None, made_problem, _by_answer(acc=last_number_fault), made=count_items),
    "spelling": GenerativeTask(None, made_problem, _by_answer(acc=spelled_fault), made=spelling_items),
    "chatcore.gsm8k": _GSM8K,
    "chatcore.humaneval": _HUMANEVAL,
    **{f"{bfcl.BFCL}.{category}": _bfcl(category) for category in bfcl.CATEGORIES},
    **{f"{BFCL_MULTI_TURN}.{category}": _bfcl_multi_turn(category) for category in MULTI_TURN_CATEGORIES},
}


def check_can_run(names: Sequence[str]) -> None:
    """Errors: SandboxError or MissingPackageError where a task runs programs or services and this machine cannot."""
    if any(name in GENERATIVE and GENERATIVE[name].runs_programs for name in names):
        require_sandbox()
    check_services(names)


def check_services(names: Sequence[str]) -> None:
    """Errors: MissingPackageError where a task's conversations act on services that are not installed."""
    if any(name in GENERATIVE and GENERATIVE[name].dialogue is not None for name in names):
        services_version()


def problems_of(
    name: str, folder: Path | None, limit: Limit = None, *, shots: int = 0, multiturn: bool = True
) -> list[tuple[str, Problem]]:
    """(id, problem) of a task's items, at most `limit`, behind worked examples: the first `shots` of their file.

    multiturn: as of `with_examples`. Errors: DataError for files that are missing or wrong.
    """
    task = GENERATIVE[name]
    found = _rows(task, folder, task.file)
    chosen = [found[number] for number in evenly_spread(len(found), limit)]
    if not chosen:
        raise DataError(f'task "{name}": its file holds no item; fetch it again')
    problems = [(row.id, _read(task, row, task.problem)) for row in chosen]
    if not shots:
        return problems
    assert task.examples is not None
    assert task.worked is not None
    examples = [
        (_read(task, row, task.problem).prompt, _read(task, row, task.worked))
        for row in _rows(task, folder, task.examples)[:shots]
    ]
    behind = []
    for key, problem in problems:
        *earlier, last = with_examples(problem.prompt, examples, multiturn)
        behind.append((key, replace(problem, prompt=last.content, earlier=(*problem.earlier, *earlier))))
    return behind


def num_turns(task: GenerativeTask, problem: Problem) -> int:
    """How many answers a problem asks for, at least."""
    return 1 if task.dialogue is None else len(task.dialogue(problem.row).turns)


def _rows(task: GenerativeTask, folder: Path | None, file: str | None) -> list[BenchmarkRow]:
    if task.set is not None:
        found = list(benchmark_rows(task.set, folder, file))
        return found if task.dialogue is None else with_functions(found, folder)
    assert task.made is not None
    made = [(key, {"question": asked, "reference": reference}) for key, asked, reference in task.made()]
    return [BenchmarkRow(key, key, row) for key, row in made]


def _read(task: GenerativeTask, row: BenchmarkRow, read: Callable[[Row], Read]) -> Read:
    return read(row.row) if task.set is None else read_row(task.set, row, read)
