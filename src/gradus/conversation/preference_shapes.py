"""Preference rows as pairs: a prompt with a chosen and a rejected answer, in the layouts of the known sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gradus.conversation.calculator_marks import RunTool, without_marks
from gradus.conversation.messages import Conversation, Message, Pair, messages_from_json, tools_from_json
from gradus.conversation.record_values import Row, RowError, first_of, text_of, with_thinking_apart

_HELPFUL_HARMLESS = re.compile(r"\n\n(Human|Assistant):")


def from_preference(row: Row, run_tool: RunTool | None) -> Iterator[Pair]:
    """{prompt, chosen, rejected}: a prompt as text, messages or our own row; answers as text, a message or messages.

    Answers given as whole conversations hold the prompt themselves: it is the messages that both begin with.
    """
    prompt = row["prompt"]
    if isinstance(prompt, Mapping):
        yield Pair.from_json(row)
    elif isinstance(prompt, list):
        conversation = Conversation(messages_from_json(prompt, "prompt"), tools_from_json(row.get("tools")))
        chosen, rejected = (_side(row[key], key) for key in ("chosen", "rejected"))
        yield Pair(conversation, chosen, rejected, id=text_of(row.get("id")))
    elif _is_whole(row["chosen"]) and _is_whole(row["rejected"]):
        yield from from_whole_sides(row, run_tool)
    else:
        yield pair(text_of(prompt), row["chosen"], row["rejected"], row)


def from_asked_preference(row: Row, run_tool: RunTool | None) -> Iterator[Pair]:
    """{question or input, chosen, rejected}, with the system message of the set where it has one (Orca)."""
    yield pair(text_of(first_of(row, "question", "input")), row["chosen"], row["rejected"], row)


def from_whole_sides(row: Row, run_tool: RunTool | None) -> Iterator[Pair]:
    """{chosen, rejected} as whole conversations: messages, or the text of HH-RLHF ("\\n\\nHuman: ...")."""
    chosen, rejected = (_whole(row[key], key) for key in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and chosen[shared - 1].role not in ("user", "tool"):
        shared -= 1
    if not shared:
        raise RowError("no_shared_prompt", "chosen and rejected do not begin with the same messages up to a user's")
    prompt = Conversation(chosen[:shared], tools_from_json(row.get("tools")))
    sides = [with_thinking_apart(side[shared:]) if side[shared:] else () for side in (chosen, rejected)]
    yield Pair(prompt, sides[0], sides[1], id=text_of(row.get("id")))


def from_judged_solutions(row: Row, run_tool: RunTool | None) -> Iterator[Pair]:
    """{question, ground_truth, NAME: {is_correct, solution}...} (samples of models on GSM8K): right before wrong.

    The chosen side is a sample that is right, else the answer itself; the rejected one the first that is wrong.
    """
    samples = [value for value in row.values() if isinstance(value, Mapping) and "is_correct" in value]
    right = [text_of(sample.get("solution")) for sample in samples if sample["is_correct"]]
    wrong = [text_of(sample.get("solution")) for sample in samples if not sample["is_correct"]]
    if not wrong:
        raise RowError("no_wrong_answer", "every sampled solution is right: nothing to reject")
    chosen = (right or [text_of(row["ground_truth"])])[0]
    yield pair(text_of(row["question"]), without_marks(chosen), without_marks(wrong[0]), row)


def pair(question: str, chosen: object, rejected: object, row: Row) -> Pair:
    """A pair of one question, after the row's system message where it has one."""
    system = text_of(row.get("system")).strip()
    opening = (Message("system", system),) if system else ()
    prompt = Conversation((*opening, Message("user", question)))
    return Pair(prompt, _side(chosen, "chosen"), _side(rejected, "rejected"), id=text_of(row.get("id")))


def _side(value: object, where: str) -> tuple[Message, ...]:
    """A continuation given as text, as a message, or as messages (whose prompt part is dropped)."""
    if isinstance(value, str):
        return with_thinking_apart([Message("assistant", value)])
    messages = messages_from_json([value] if isinstance(value, Mapping) else value, where)
    last_user = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    answer = messages[last_user + 1 :]
    return with_thinking_apart(answer) if answer else ()


def _is_whole(side: object) -> bool:
    return isinstance(side, list) and any(isinstance(m, Mapping) and m.get("role") == "user" for m in side)


def _whole(side: object, where: str) -> tuple[Message, ...]:
    if not isinstance(side, str):
        return messages_from_json(side, where)
    before, *parts = _HELPFUL_HARMLESS.split(side)
    if before.strip() or not parts:
        raise RowError("unknown_layout", f'{where}: text that does not begin with "Human:"')
    roles = {"Human": "user", "Assistant": "assistant"}
    rows = [{"role": roles[a], "content": b.strip()} for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return messages_from_json(rows, where)
