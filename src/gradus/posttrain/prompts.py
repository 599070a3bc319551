"""A prompt with what its answers are judged by, for pairs and for reinforcement learning. Imports without torch.

An answer passes when its turn breaks no rule of the validator, was well-formed and satisfies the prompt's checks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gradus.conversation.artifacts import Found, find_artifacts
from gradus.conversation.checks import (
    AnswerNumber,
    AnswerRegex,
    AssistantTurn,
    Calls,
    CallsNone,
    Check,
    ExactlyOneOf,
    answer_number,
    run_checks,
)
from gradus.conversation.messages import Conversation, Message
from gradus.conversation.validate import turn_violations
from gradus.core.errors import DataError

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


@dataclass(frozen=True)
class PairPrompt:
    """A conversation up to the user message to answer, and how an answer is judged.

    checks: as in probe files. reference: a good turn, if there is one. exact: the answer's text must be the
    reference's, but for case, spacing and a full stop at the end.
    """

    conversation: Conversation
    checks: tuple[Check, ...] = ()
    reference: tuple[Message, ...] = ()
    exact: bool = False


def prompt_from_conversation(conversation: Conversation, checks: tuple[Check, ...] | None = None) -> PairPrompt:
    """The last user message as a prompt, what the row answers as its reference.

    Without `checks` the reference judges: the same tools called or none; the weekday or the date that it names
    and its last number, citations apart; where it has none of these, its text. DataError where the row does not
    end with an answer to a user.
    """
    messages = conversation.messages
    last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    reference = messages[last_user + 1 :]
    if last_user < 0 or not reference or reference[-1].role != "assistant":
        raise DataError(f'row "{conversation.id}": a prompt for pairs must hold a user message and end with its answer')
    prompt = replace(conversation, messages=messages[: last_user + 1])
    if checks is not None:
        return PairPrompt(prompt, checks, reference)
    turn = AssistantTurn(reference)
    names = list(dict.fromkeys(call.name for call in turn.calls))
    derived: list[Check] = [Calls(kind="calls", tool=name) for name in names]
    if not names:
        derived.append(CallsNone(kind="calls_none"))
    facts = _stated_facts(turn.answer)
    return PairPrompt(prompt, (*derived, *facts), reference, exact=not facts)


def _stated_facts(answer: str) -> list[Check]:
    """Checks for what an answer states in a form that can be read: a weekday, a date, a number."""
    facts: list[Check] = []
    days = [day for day in WEEKDAYS if re.search(rf"\b{day}\b", answer)]
    if len(days) == 1:
        facts.append(ExactlyOneOf(kind="exactly_one_of", value=days[0], of=WEEKDAYS))
    dates = re.findall(rf"\b(?:{'|'.join(MONTHS)}) \d{{1,2}}\b", answer)
    if dates:
        facts.append(AnswerRegex(kind="answer_regex", pattern=rf"\b{dates[-1]}\b"))
    number = answer_number(answer)
    if number is not None and (number.denominator == 1 or abs(number) < sys.float_info.max):
        value = int(number) if number.denominator == 1 else float(number)
        facts.append(AnswerNumber(kind="answer_number", value=value))
    return facts


def judge(prompt: PairPrompt, turn: AssistantTurn) -> list[str]:
    """Names of what is wrong with an answer; empty where it passes."""
    reasons = [f"ended_by_{turn.finish_reason}"] if turn.finish_reason != "stop" else []
    reasons += ["malformed"] if turn.problems else []
    conversation = prompt.conversation
    found = turn_violations(turn.messages, conversation.tools, conversation.think)
    reasons += [violation.reason for violation in found]
    reasons += [failure.split(":")[0] for failure in run_checks(prompt.checks, turn)]
    if prompt.exact and _plain(turn.answer) != _plain(AssistantTurn(prompt.reference).answer):
        reasons.append("answer_text")
    return reasons


def answer_artifacts(turn: Sequence[Message]) -> list[Found]:
    """The artifacts in an assistant turn's answers, never in what tools gave."""
    return [item for message in turn if message.role == "assistant" for item in find_artifacts(message.content)]


def artifact_reasons(turn: Sequence[Message]) -> list[str]:
    """Names of the artifacts in an assistant turn's answers, as reasons."""
    return [f"artifact_{kind}" for kind in dict.fromkeys(item.kind for item in answer_artifacts(turn))]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
