"""Rewards that can be verified, as an explicit table: each a pure function of a task and what the model answered.

A reward gives 0 to 1, and an answer's reward is their sum by weight. Rewards read the answer only, as checks do: a
right number in the thinking earns nothing. What a model could do instead of solving the task is in
tests/posttrain/test_rewards.py: several answers at once, empty thinking, calls of everything, programs that end early.
Imports without torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from gradus.conversation.checks import AssistantTurn, RegularExpression
from gradus.conversation.code_blocks import FENCE, program_of
from gradus.conversation.final_answers import boxed_answer, gsm8k_answer, last_value, same_value, stated_answer
from gradus.conversation.timed_patterns import compiled, found_in
from gradus.conversation.validate import schema_faults, turn_violations
from gradus.core.errors import DataError
from gradus.core.settings import Settings
from gradus.posttrain.prompts import judge
from gradus.posttrain.tasks import Task
from gradus.tools.sandbox import Limits, run_program


class _Reward(Settings):
    """weight: of this reward in the sum."""

    weight: float = Field(default=1.0, gt=0.0)

    def needs(self, task: Task) -> str | None:
        """What the task lacks for this reward, in words; None where it has everything."""
        return None


class ChecksReward(_Reward):
    """The answer ended by itself, breaks no rule of conversations and passes the task's checks."""

    kind: Literal["checks"]

    def score(self, task: Task, turn: AssistantTurn) -> float:
        return float(not judge(task.prompt, turn))

    def needs(self, task: Task) -> str | None:
        return None if task.prompt.checks or task.prompt.exact else "checks"


class GSM8KReward(_Reward):
    """The number behind the first "#### " is the reference's."""

    kind: Literal["gsm8k"]

    def score(self, task: Task, turn: AssistantTurn) -> float:
        found = gsm8k_answer(turn.answer)
        return float(found is not None and found == stated_answer(task.answer))

    def needs(self, task: Task) -> str | None:
        return None if stated_answer(task.answer) else 'an answer with "#### N"'


class MathReward(_Reward):
    r"""The final answer is the reference's, as a number or as text.

    final: where the final answer stands: in the last \boxed{}, or "last_number". The reference's is its last \boxed{};
    without one its "#### N", or all of it.
    """

    kind: Literal["math"]
    final: Literal["boxed", "last_number"] = "boxed"

    def score(self, task: Task, turn: AssistantTurn) -> float:
        found = boxed_answer(turn.answer) if self.final == "boxed" else last_value(turn.answer)
        return float(found is not None and same_value(found, _reference_value(task, self.final)))

    def needs(self, task: Task) -> str | None:
        return None if _reference_value(task, self.final) else "a final answer"


class RegexReward(_Reward):
    """The pattern is found in the answer; what its group `answer` holds, if it has one, is the reference's value."""

    kind: Literal["regex"]
    pattern: RegularExpression

    def score(self, task: Task, turn: AssistantTurn) -> float:
        found = found_in(turn.answer, self.pattern)
        if found is None:
            return 0.0
        if "answer" not in compiled(self.pattern).groupindex:
            return 1.0
        return float(found["answer"] is not None and same_value(found["answer"], task.answer))

    def needs(self, task: Task) -> str | None:
        named = "answer" in compiled(self.pattern).groupindex
        return "an answer" if named and not task.answer else None


class JsonSchemaReward(_Reward):
    """The answer is one JSON document, bare or in a ```json fence with nothing around it, that satisfies the schema."""

    kind: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        for reason, detail in schema_faults(None, schema):
            if reason == "bad_schema":
                raise ValueError(detail)
        return schema

    def score(self, task: Task, turn: AssistantTurn) -> float:
        text = turn.answer.strip()
        fenced = FENCE.fullmatch(text)
        try:
            value = json.loads(fenced[2] if fenced else text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return 0.0
        return float(not schema_faults(value, self.json_schema))


class ToolCallReward(_Reward):
    """The calls of the turn are the reference's: the same tools with the same arguments, in order, and no others."""

    kind: Literal["tool_call"]
    name_credit: float = Field(default=0.0, ge=0.0, lt=1.0)
    """For the right tools with other arguments."""

    def score(self, task: Task, turn: AssistantTurn) -> float:
        made, expected = turn.calls, task.reference.calls
        if [call.name for call in made] != [call.name for call in expected]:
            return 0.0
        same = all(_same_json(a.arguments, b.arguments) for a, b in zip(made, expected, strict=True))
        return 1.0 if same else self.name_credit

    def needs(self, task: Task) -> str | None:
        return None if task.prompt.reference else "a reference turn"


class CodeReward(_Reward):
    """The answer's last fenced block of code, or all of it, passes the task's tests in the sandbox."""

    kind: Literal["code"]
    seconds: float = Field(default=5.0, gt=0.0)
    memory_bytes: int = Field(default=2**28, ge=2**26)

    def score(self, task: Task, turn: AssistantTurn) -> float:
        limits = Limits(seconds=self.seconds, memory_bytes=self.memory_bytes)
        return float(run_program(program_of(turn.answer), task.tests, limits).passed)

    def needs(self, task: Task) -> str | None:
        return None if task.tests else "tests"


class ThinkReward(_Reward):
    """The turn thinks first, once, closes its thinking and then answers, by its own end.

    min_chars: of the thinking, so that an empty block earns nothing.
    """

    kind: Literal["think"]
    min_chars: int = Field(default=1, ge=1)

    def score(self, task: Task, turn: AssistantTurn) -> float:
        sound = turn.finish_reason == "stop" and not turn.problems
        faults = turn_violations(turn.messages, task.prompt.conversation.tools, think=True)
        return float(sound and not faults and len(turn.thinking.strip()) >= self.min_chars)


Reward = Annotated[
    ChecksReward
    | GSM8KReward
    | MathReward
    | RegexReward
    | JsonSchemaReward
    | ToolCallReward
    | CodeReward
    | ThinkReward,
    Field(discriminator="kind"),
]
REWARD_KINDS = ("checks", "gsm8k", "math", "regex", "json_schema", "tool_call", "code", "think")


@dataclass(frozen=True)
class Scored:
    """reward: the sum by weight; scores: of each kind, 0 to 1."""

    reward: float
    scores: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether every reward is full."""
        return all(score == 1.0 for score in self.scores.values())


def score(rewards: Sequence[Reward], task: Task, turn: AssistantTurn) -> Scored:
    """All rewards of one answer."""
    scores: dict[str, float] = {reward.kind: reward.score(task, turn) for reward in rewards}
    return Scored(sum(reward.weight * scores[reward.kind] for reward in rewards), scores)


def check_tasks(rewards: Sequence[Reward], tasks: Sequence[Task]) -> None:
    """DataError where a task lacks what a reward judges by, with the first of them and their number."""
    for reward in rewards:
        lacking = [(task, lacks) for task in tasks if (lacks := reward.needs(task)) is not None]
        if lacking:
            task, lacks = lacking[0]
            raise DataError(
                f'reward "{reward.kind}" needs {lacks}: {len(lacking):,} of {len(tasks):,} tasks of {task.source} have '
                f'none, "{task.id}" first; give them, or take another reward'
            )


def _reference_value(task: Task, final: str) -> str:
    boxed = boxed_answer(task.answer)
    if boxed is not None:
        return boxed
    stated = stated_answer(task.answer)
    if stated is not None:
        return stated
    return (last_value(task.answer) or "") if final == "last_number" else task.answer.strip()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _same_json(one: object, other: object) -> bool:
    """Equality of JSON values: 1 is 1.0, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same_json(a, b) for a, b in zip(one, other, strict=True))
    return one == other
