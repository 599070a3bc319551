"""The explicit table of tasks: what each asks the teacher for, how a row is written and judged, and what it takes.

A task is two functions and its figures. Adding one is an entry here, its functions and a test.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from gradus.conversation.messages import Conversation
from gradus.posttrain.synthesis import problem_tasks, talk_tasks, tool_tasks
from gradus.posttrain.synthesis.material import Material
from gradus.posttrain.synthesis.teacher import Brief, Teacher
from gradus.tools.endpoint_settings import EndpointSettings


@dataclass(frozen=True)
class Task:
    """draw: the brief of a row from its own random generator. write: the row, or Rejected.

    about: for people. requests: of a row that is taken at its first try. output_tokens: of all its answers, and
    later_input_tokens: of the requests after the first, both as they usually are, for plans. allowed: kinds of
    artifacts that its answers may have: a kind no is an answer where it is asked for. What a task cannot do without
    stands in `config.TASK_NEEDS`.
    """

    about: str
    draw: Callable[[random.Random, Material], Brief]
    write: Callable[[Brief, Material, Teacher], Awaitable[Conversation]]
    requests: int = 1
    output_tokens: int = 250
    later_input_tokens: int = 0
    allowed: tuple[str, ...] = ()


TASKS: dict[str, Task] = {
    "think_search_answer": Task(
        "thinks, searches your documents, answers with citations",
        tool_tasks.draw_search, tool_tasks.write_search, 2, 280, 1000,
    ),
    "think_calculator_answer": Task(
        "thinks, calls the calculator, answers with its result",
        tool_tasks.draw_calculator, tool_tasks.write_calculator, 2, 260, 420,
    ),
    "think_answer": Task("thinks, answers without a tool", tool_tasks.draw_direct, tool_tasks.write_direct, 1, 300),
    "reasoning": Task(
        "puzzles; taken where two independent solutions agree",
        problem_tasks.draw_reasoning, problem_tasks.write_reasoning, 2, 700, 330,
    ),
    "temporal": Task(
        "weekdays, dates, ages, hours; the truth is computed", problem_tasks.draw_temporal, problem_tasks.write_temporal
    ),
    "arithmetic": Task(
        "stories of several steps, long multiplication; the truth is computed",
        problem_tasks.draw_arithmetic, problem_tasks.write_arithmetic, 1, 350,
    ),
    "identity": Task(
        "who the assistant is, from a persona sheet",
        talk_tasks.draw_identity, talk_tasks.write_identity, 1, 130, 0, ("refusal",),
    ),
    "creative": Task("haiku, jokes, stories, poems, letters", talk_tasks.draw_creative, talk_tasks.write_creative),
    "follow_up": Task("two or three turns, later by pronoun", talk_tasks.draw_follow_up, talk_tasks.write_follow_up),
    "documents": Task(
        "questions about notes, answered from them with a citation",
        talk_tasks.draw_documents, talk_tasks.write_documents, 1, 200,
    ),
    "tone": Task(
        "difficult moments, in the right register",
        talk_tasks.draw_tone, talk_tasks.write_tone, 1, 180, 0, ("refusal",),
    ),
}  # fmt: skip


def draw_brief(task: str, seed: int, index: int, material: Material) -> Brief:
    """The brief of a task's row by its number; it does not depend on other rows."""
    return TASKS[task].draw(random.Random(f"{seed} {task} {index}"), material)


# Before the spend

_SAMPLE = 16  # briefs of a task that are drawn to see how long they are
_BYTES_PER_TOKEN = 4.4  # of English, with the vocabularies of large models
USUAL_FAILED_FRACTION = 0.15  # of the rows, those asked for once more


@dataclass(frozen=True)
class Forecast:
    """What synthesis is expected to take. money: None where prices are not set."""

    rows: int
    requests: float
    input_tokens: float
    output_tokens: float
    money: float | None


def forecast(counts: Mapping[str, int], seed: int, settings: EndpointSettings, persona: str) -> Forecast:
    """Requests, tokens and money of so many rows of each task, without asking anyone."""
    requests = input_tokens = output_tokens = 0.0
    again = 1 + USUAL_FAILED_FRACTION
    for name, rows in counts.items():
        task = TASKS[name]
        sample = [draw_brief(name, seed, index, Material(persona=persona)) for index in range(min(rows, _SAMPLE))]
        first = sum(_tokens(brief) for brief in sample) / max(1, len(sample))
        requests += rows * task.requests * again
        input_tokens += rows * (first + task.later_input_tokens) * again
        output_tokens += rows * task.output_tokens * again
    money = settings.price(input_tokens, output_tokens)
    return Forecast(sum(counts.values()), requests, input_tokens, output_tokens, money)


def _tokens(brief: Brief) -> float:
    return sum(len(message.content.encode()) for message in brief.request().messages) / _BYTES_PER_TOKEN
