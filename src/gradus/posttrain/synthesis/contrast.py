"""Preference pairs with a teacher: its answer is chosen; rejected is the current model's, or one made worse on purpose.

The chosen turn has the form of the row that the prompt comes from: it thinks where that one thinks, and calls the tool
that it calls, which is run by our own tools. Without a model the rejected answer is the teacher's own under an
instruction that spoils it (RLCD, Yang et al. 2023), with thinking, call and result as in the chosen turn.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradus.conversation.checks import AnswerNumber, AssistantTurn, Check, Citation
from gradus.conversation.messages import Conversation, Message, Pair, ToolCall, arguments_from_json
from gradus.conversation.validate import violations
from gradus.core.errors import DataError
from gradus.posttrain.prompts import PairPrompt, artifact_reasons, judge
from gradus.posttrain.synthesis.judge import refuse_artifacts
from gradus.posttrain.synthesis.synthesize import RejectedTry
from gradus.posttrain.synthesis.teacher import Brief, Rejected, Teacher
from gradus.tools.endpoint import Endpoint
from gradus.tools.in_flight import in_flight
from gradus.tools.running import is_error
from gradus.tools.toolbox import ToolBox

TASK = "pair"

_HISTORY_CHARACTERS = 12_000
_SPOILED = (
    "It apologises and hedges before it comes to the point.",
    "It is three times as long as it need be, and repeats itself.",
    "It answers a question that is close to the one asked, not the one asked.",
    'It begins with praise of the question and says "As an AI language model" somewhere.',
    "It leaves out the one thing that the user most wanted to know.",
    "It lectures the user on something that was not asked.",
    "It is stiff, like a notice from an office.",
    "It is chatty and vague where a figure or a name was asked for.",
    "It marks words with HTML tags and lists what needs no list.",
    "It ends with three questions back to the user.",
)
_SPOILER = (
    "You write examples of poor answers, from which a small assistant learns what to avoid. They are harmless, in the "
    "language of the request, and have the fault that is named. Reply with one JSON object and nothing else."
)


@dataclass
class Contrast:
    """Pairs in the order of their prompts. skipped: prompts without a pair, by reason. failed: of the rejected sides,
    those that have a fault by the judge or an artifact."""

    pairs: list[Pair] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    rejected: list[RejectedTry] = field(default_factory=list)
    failed: int = 0


@dataclass(frozen=True)
class _Outcome:
    pair: Pair | None
    reason: str
    rejected: tuple[RejectedTry, ...]


async def contrast(
    endpoint: Endpoint,
    toolbox: ToolBox,
    prompts: Sequence[PairPrompt],
    answers: Sequence[AssistantTurn] | None,
    tries: int,
    watch: Callable[[int, int], None] | None = None,
) -> Contrast:
    """A pair for each prompt, as far as there is one.

    answers: the current model's turn for each prompt; None lets the teacher write the rejected side too. watch: called
    with prompts done, and tries rejected. Errors: BudgetError, EndpointError.
    """
    result = Contrast()
    # Another wording of an answer without figures is what pairs are for.
    prompts = [replace(prompt, exact=False, checks=_checks(prompt)) for prompt in prompts]
    done = rejected = 0

    async def write(number: int) -> _Outcome:
        prompt, answer = prompts[number], None if answers is None else answers[number]
        fault = "" if answer is None else _unusable(answer)
        return _Outcome(None, fault, ()) if fault else await _write_pair(
            endpoint, toolbox, prompt, answer, number, tries
        )  # fmt: skip

    def show(number: int, outcome: _Outcome) -> None:
        nonlocal done, rejected
        done, rejected = done + 1, rejected + len(outcome.rejected)
        if watch is not None:
            watch(done, rejected)

    outcomes = await in_flight(range(len(prompts)), write, endpoint.settings.concurrency, show)
    for number, prompt in enumerate(prompts):
        outcome = outcomes[number]
        result.rejected += outcome.rejected
        if outcome.pair is None:
            result.skipped[outcome.reason] += 1
            continue
        worse = outcome.pair.rejected
        result.pairs.append(outcome.pair)
        result.failed += bool(judge(prompt, AssistantTurn(worse)) or artifact_reasons(worse))
    return result


def _checks(prompt: PairPrompt) -> tuple[Check, ...]:
    """The prompt's checks; of a row that cites, the citation in place of its last number: sources have several."""
    citation = Citation(kind="citation")
    if not prompt.reference or citation.failure(AssistantTurn(prompt.reference)) is not None:
        return prompt.checks
    return (*(check for check in prompt.checks if not isinstance(check, AnswerNumber)), citation)


def _unusable(answer: AssistantTurn) -> str:
    """Why a model's turn cannot be a rejected side: it would be rendered as what the model did not say."""
    return "no_whole_rejection" if answer.finish_reason != "stop" or answer.problems or not answer.messages else ""


async def _write_pair(
    endpoint: Endpoint, toolbox: ToolBox, prompt: PairPrompt, answer: AssistantTurn | None, number: int, tries: int
) -> _Outcome:
    """The pair of one prompt: the first try whose chosen turn passes the judge."""
    rejected: list[RejectedTry] = []
    for attempt in range(tries):
        teacher = Teacher(endpoint, number, attempt)
        try:
            chosen = await _chosen(prompt, toolbox, teacher)
            _judge_chosen(prompt, chosen)
            worse = answer.messages if answer is not None else await _spoiled(prompt, chosen, number, teacher)
            if _plain(worse) == _plain(chosen):
                raise Rejected("same_answers", "", chosen[-1].content)
        except Rejected as error:
            rejected.append(RejectedTry(TASK, number, attempt, error.reason, error.detail, error.answer))
            continue
        conversation = prompt.conversation
        pair = Pair(conversation, chosen, worse, conversation.source, conversation.id)
        return _Outcome(pair, "", tuple(rejected))
    return _Outcome(None, rejected[-1].reason, tuple(rejected))


async def _chosen(prompt: PairPrompt, toolbox: ToolBox, teacher: Teacher) -> tuple[Message, ...]:
    """The teacher's turn, in the form of the prompt's reference."""
    reference = AssistantTurn(prompt.reference)
    if len(reference.calls) > 1:
        raise Rejected("several_calls", "the row that the prompt comes from calls tools more than once")
    thinks = {"thinking": "what the assistant thinks first, in two to six plain sentences; not its answer"}
    asked = _history(prompt.conversation)
    fields = dict(thinks) if reference.thinking else {}
    if not reference.calls:
        answer = {"answer": "what the assistant says to the user"}
        found = await teacher.write(Brief(f"{asked}\n\nWrite the assistant's best next turn.", fields | answer))
        return (Message("assistant", found["answer"], found.get("thinking")),)
    (known,) = reference.calls
    (tool,) = [schema for schema in prompt.conversation.tools if schema.name == known.name]
    schema = json.dumps(tool.parameters, ensure_ascii=False)
    arguments = {"arguments": f"the arguments of one call of {tool.name} as a JSON object, by this schema: {schema}"}
    first = await teacher.write(
        Brief(f"{asked}\n\nThe assistant now calls {tool.name}. Write what it thinks and calls.", fields | arguments)
    )
    call = ToolCall("call_1", tool.name, _arguments(first["arguments"]))
    result = toolbox.run(call)
    if is_error(result):
        raise Rejected("tool_error", result.content, first["arguments"])
    second = await teacher.write(
        Brief(
            f"{asked}\n\nThe assistant called {tool.name} with {json.dumps(call.arguments, ensure_ascii=False)} and "
            f"got:\n{result.content}\n\nWrite its answer to the user, from this result.",
            {"answer": "what the assistant says to the user"},
        )
    )
    return (
        Message("assistant", "", first.get("thinking"), (call,)),
        result,
        Message("assistant", second["answer"]),
    )


def _arguments(text: str) -> dict[str, Any]:
    try:
        return arguments_from_json(text, "arguments")
    except DataError as error:
        raise Rejected("wrong_format", str(error), text) from None


def _judge_chosen(prompt: PairPrompt, chosen: tuple[Message, ...]) -> None:
    """The validator, artifacts, and the checks that follow from the reference. Errors: Rejected."""
    whole = replace(prompt.conversation, messages=(*prompt.conversation.messages, *chosen))
    for fault in violations(whole):
        raise Rejected(fault.reason, fault.detail)
    # What was said before this turn is not the teacher's.
    refuse_artifacts(chosen)
    faults = judge(prompt, AssistantTurn(chosen))
    if faults:
        raise Rejected(faults[0], "the chosen answer fails what the row's own answer passes", chosen[-1].content)


async def _spoiled(
    prompt: PairPrompt, chosen: tuple[Message, ...], number: int, teacher: Teacher
) -> tuple[Message, ...]:
    """The chosen turn with a worse last message."""
    fault = _SPOILED[number % len(_SPOILED)]
    text = (
        f"{_history(prompt.conversation)}\n\nA good answer would be:\n{chosen[-1].content}\n\nWrite a poor one to the "
        f"same message. {fault}"
    )
    found = await teacher.write(Brief(text, {"answer": "the poor answer"}, system=_SPOILER))
    return (*chosen[:-1], replace(chosen[-1], content=found["answer"]))


def _history(conversation: Conversation) -> str:
    """The talk so far as text. Errors: Rejected where it is too long to be asked about."""
    lines = []
    for message in conversation.messages:
        if message.content:
            lines.append(f"{message.role}: {message.content}")
        lines += [f"{message.role} calls {c.name}: {json.dumps(c.arguments)}" for c in message.tool_calls]
    text = "\n\n".join(lines)
    if len(text) > _HISTORY_CHARACTERS:
        raise Rejected("long_prompt", f"{len(text):,} characters")
    return f"A talk of a user with an assistant:\n\n{text}"


def _plain(turn: Sequence[Message]) -> list[str]:
    return [" ".join(message.content.casefold().split()) for message in turn if message.role == "assistant"]
