"""Asking a model the items of a task whose answers it writes: many at once, over processes and interruptions.

What is answered and judged is kept in a journal (journal.py) and is not asked again. Each answer draws from a random
stream of its own, so that it does not depend on what else is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple
from pathlib import Path

from gradus.conversation.messages import Conversation, Message
from gradus.core.fingerprint import digest
from gradus.core.machine import usable_cores
from gradus.engine.engine import Engine
from gradus.engine.sampling import Sampling
from gradus.engine.turn import PromptTooLongError, Reply, Request
from gradus.eval.benchmarks import BenchmarkSettings, problems_asked
from gradus.eval.bfcl_services import PACKAGE, services_version
from gradus.eval.dialogue_run import ask_dialogues, random_seed
from gradus.eval.generative import GENERATIVE, GenerativeTask, Problem
from gradus.eval.generative_result import NO_ROOM, Answer, Answered, GenerativeResult
from gradus.eval.journal import Journal, SharedWork
from gradus.train.parallel import World

_JOURNAL_EVERY = 16  # answers
_DOES_NOT_FIT = "the question does not fit into the context"
_PROGRAMS_AT_ONCE = min(8, usable_cores())


def run_generative(
    engine: Engine,
    name: str,
    settings: BenchmarkSettings,
    *,
    label: str = "",
    identity: str = "",
    journals: Path | None = None,
    world: World | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> GenerativeResult:
    """One task; arguments and errors as of `run_tasks`. journals: the folder of this task's own."""
    began = time.monotonic()
    problems = problems_asked(name, settings)
    how = settings.chosen() | settings.decoding()
    questions = digest([[[key, asdict(problem)] for key, problem in problems], settings.decoding()])
    journal = Journal(journals, digest([identity, questions])) if journals is not None else None
    units = [(key, problem, sample) for key, problem in problems for sample in range(settings.samples)]
    work = SharedWork(len(units), journal, world, on_progress, len(problems))

    def keep(found: dict[int, Answer]) -> None:
        work.keep({number: astuple(answer) for number, answer in found.items()})

    task = GENERATIVE[name]
    if task.dialogue is not None:
        how |= {"services": f"{PACKAGE} {services_version()}"}
        dialogues = [((settings.seed, key, sample), task.dialogue(problem.row)) for key, problem, sample in units]
        ask_dialogues(engine, {n: dialogues[n] for n in work.todo}, settings, keep)
    else:
        asked = [_request(task, *units[number], settings) for number in work.todo]
        _ask(engine, task, [units[number][1] for number in work.todo], asked, work.todo, keep)
    answers = [Answer(*found) for found in work.everything()]
    items = tuple(
        Answered(key, problem, tuple(answers[place * settings.samples + n] for n in range(settings.samples)))
        for place, (key, problem) in enumerate(problems)
    )
    return GenerativeResult(name, label, items, questions, round(time.monotonic() - began, 3), how)


def _request(task: GenerativeTask, key: str, problem: Problem, sample: int, settings: BenchmarkSettings) -> Request:
    return Request(
        Conversation((*problem.earlier, Message("user", problem.prompt)), problem.tools),
        think=settings.think,
        tools=settings.tools if settings.tools and not task.declares_tools else None,
        sampling=Sampling(temperature=settings.temperature, seed=random_seed(settings.seed, key, sample)),
        max_tokens=settings.max_tokens,
    )


def _ask(
    engine: Engine,
    task: GenerativeTask,
    problems: Sequence[Problem],
    requests: Sequence[Request],
    numbers: Sequence[int],
    keep: Callable[[dict[int, Answer]], None],
) -> None:
    """Answer and judge requests; `keep` gets the answers by their numbers, a few at a time.

    A question that does not fit into the context has no right answer.
    """
    fitting = [place for place, request in enumerate(requests) if fits(engine, request)]
    outside = sorted(set(range(len(requests))) - set(fitting))
    keep({numbers[p]: Answer("", "", NO_ROOM, 0, dict.fromkeys(task.judges, _DOES_NOT_FIT)) for p in outside})
    fresh: dict[int, Reply] = {}

    def flush() -> None:
        judged = judges.map(lambda place: _judged(task, problems[place], fresh[place]), fresh)
        keep({numbers[place]: answer for place, answer in zip(fresh, judged, strict=True)})
        fresh.clear()

    def take(index: int, reply: Reply) -> None:
        fresh[fitting[index]] = reply
        if len(fresh) >= _JOURNAL_EVERY:
            flush()

    with ThreadPoolExecutor(_PROGRAMS_AT_ONCE if task.runs_programs else 1) as judges:
        engine.generate([requests[place] for place in fitting], take)
        flush()


def fits(engine: Engine, request: Request) -> bool:
    """Whether a conversation leaves room to answer in the model's context."""
    try:
        engine.check(request)
    except PromptTooLongError:
        return False
    return True


def _judged(task: GenerativeTask, problem: Problem, reply: Reply) -> Answer:
    turn = reply.turn
    faults = {name: judge(problem, turn) for name, judge in task.judges.items()}
    calls = tuple({"name": call.name, "arguments": call.arguments} for call in turn.calls)
    return Answer(turn.answer, turn.thinking, turn.finish_reason, reply.num_tokens, faults, calls)
