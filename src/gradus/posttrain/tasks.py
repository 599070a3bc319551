"""What a model is asked in reinforcement learning, with what its answer is judged by.

A task is a prompt (posttrain/prompts.py: a conversation up to a user message, checks, the reference turn) and, where
known, the final answer in words and the tests of a program. Tasks come from pools, whose rows end with the reference;
from the synthetic generators; and from files with one JSON object a line:

    {"id": "sum-1", "messages": [{"role": "user", "content": "17 + 25?"}], "think": true, "tools": [],
     "checks": [{"kind": "answer_number", "value": 42}], "answer": "42", "tests": "assert add(17, 25) == 42"}

of which id and messages are required; probe files of single questions can be read as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, TypeAdapter

from gradus.conversation.checks import AssistantTurn, Calls, Check
from gradus.conversation.messages import Conversation, Message, messages_from_json
from gradus.conversation.probes import Question
from gradus.core.errors import ConfigError
from gradus.core.settings import Settings, check_settings
from gradus.data.synthetic.config import DEFAULT_WEIGHTS, ConversationSettings
from gradus.data.synthetic.conversations import checked_conversations
from gradus.data.synthetic.item import Side
from gradus.posttrain.prompts import PairPrompt, prompt_from_conversation
from gradus.tools.toolbox import ToolBox


@dataclass(frozen=True)
class Task:
    """prompt: what is asked. answer: the reference's text, "" where unknown. tests: Python, "" where there are none.

    source: where it comes from, for counting.
    """

    prompt: PairPrompt
    answer: str = ""
    tests: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        return self.prompt.conversation.id

    @property
    def reference(self) -> AssistantTurn:
        """The reference's turn, without messages where there is none."""
        return AssistantTurn(self.prompt.reference)


class TaskRow(Settings):
    """One line of a file of tasks."""

    id: str = Field(min_length=1)
    category: str = "all"
    messages: Question
    think: bool | None = None
    tools: tuple[str, ...] = ()
    samples: int = 1
    checks: tuple[Check, ...] = ()
    answer: str = ""
    tests: str = ""


def tasks_from_pool(rows: Iterable[Conversation], source: str) -> Iterator[Task]:
    """The last question of every row that ends with an answer; that answer is the reference."""
    for row in rows:
        if row.messages[-1].role == "assistant" and any(message.role == "user" for message in row.messages):
            prompt = prompt_from_conversation(row)
            yield Task(prompt, AssistantTurn(prompt.reference).answer, source=source)


def tasks_from_generator(category: str, count: int, seed: int, side: Side) -> Iterator[Task]:
    """Problems of one category of the offline generators, each with its checks. ConfigError for an unknown one."""
    weights = {name: float(name == category) for name in DEFAULT_WEIGHTS} | {category: 1.0}
    settings, problems = check_settings(
        ConversationSettings, {"rows": count, "weights": weights, "sessions_fraction": 0.0}
    )
    if settings is None:
        raise ConfigError([problem.text for problem in problems])
    checks: TypeAdapter[tuple[Check, ...]] = TypeAdapter(tuple[Check, ...])
    for conversation, found in checked_conversations(settings, seed, side):
        prompt = prompt_from_conversation(conversation, checks.validate_python(found))
        yield Task(prompt, AssistantTurn(prompt.reference).answer, source=f"synthetic:{category}")


def load_tasks(path: Path, source: str) -> list[Task]:
    """The tasks of a file; ConfigError with every problem as file:line."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    tasks: list[Task] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    toolbox = ToolBox()
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}:{line}: not a line of JSON ({error})")
            continue
        row, found = check_settings(TaskRow, data if isinstance(data, dict) else {})
        problems += [f"{path}:{line}: {problem.text}" for problem in found]
        if row is None:
            continue
        if row.id in lines:
            problems.append(f'{path}:{line}: id "{row.id}" is used on line {lines[row.id]} too')
        lines[row.id] = line
        try:
            tasks.append(_task(row, toolbox, source))
        except ConfigError as error:
            problems.append(f"{path}:{line}: {error}")
    if not tasks and not problems:
        problems.append(f"{path}: holds no task")
    if problems:
        raise ConfigError(problems)
    return tasks


def _task(row: TaskRow, toolbox: ToolBox, source: str) -> Task:
    messages = messages_from_json(row.messages, "messages")
    conversation = Conversation(messages, toolbox.schemas(row.tools), source, row.id, row.think)
    reference = (Message("assistant", row.answer),) if row.answer else ()
    return Task(PairPrompt(conversation, row.checks, reference), row.answer, row.tests, source)


def with_switches(task: Task, think: bool | None, tools: tuple[str, ...] | None) -> Task:
    """The task with thinking and tools as asked for; None leaves them.

    A check that a tool was called is left out where the tool is not declared any more.
    """
    conversation = task.prompt.conversation
    checks = task.prompt.checks
    if think is not None:
        conversation = replace(conversation, think=think)
    if tools is not None:
        conversation = replace(conversation, tools=ToolBox().schemas(tools))
        checks = tuple(check for check in checks if not (isinstance(check, Calls) and check.tool not in tools))
    return replace(task, prompt=replace(task.prompt, conversation=conversation, checks=checks))
