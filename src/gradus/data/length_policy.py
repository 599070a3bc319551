"""Conversations longer than the row, made to fit by a stated policy.

All work is on messages, never on tokens, so that what remains is a whole conversation in any format: thinking
closed, calls answered, stop token trained.

    drop      leave it out
    split     cut between turns into consecutive parts that fit, each with the system message and the tools;
              a turn that does not fit alone is left out
    truncate  keep the longest beginning that fits, with the text of its last answer cut short if that lets
              one more answer in; a beginning without any answer is left out
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from gradus.conversation.messages import Conversation, Message

LengthPolicy = Literal["drop", "split", "truncate"]
Measure = Callable[[Conversation], int]


def fit_conversation(
    conversation: Conversation, row_length: int, policy: LengthPolicy, measure: Measure
) -> list[Conversation]:
    """The parts of a conversation that is too long which may be trained on; none where it is left out.

    measure: tokens of a conversation as rendered. Every part measures at most `row_length`.
    """
    if policy == "split":
        return _split(conversation, row_length, measure)
    if policy == "truncate":
        shorter = _truncate(conversation, row_length, measure)
        return [shorter] if shorter is not None else []
    return []


def _split(conversation: Conversation, row_length: int, measure: Measure) -> list[Conversation]:
    opening, turns = _turns(conversation.messages)
    parts: list[Conversation] = []
    held: tuple[Message, ...] = ()
    for turn in turns:
        longer = replace(conversation, messages=(*opening, *held, *turn))
        if held and measure(longer) > row_length:
            parts.append(replace(conversation, messages=(*opening, *held)))
            held, longer = (), replace(conversation, messages=(*opening, *turn))
        if not held and measure(longer) > row_length:
            continue
        held = (*held, *turn)
    if held:
        parts.append(replace(conversation, messages=(*opening, *held)))
    return parts


def _turns(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], list[tuple[Message, ...]]]:
    """(the system message if any, turns that each begin with a user message)."""
    starts = [i for i, message in enumerate(messages) if message.role == "user"]
    if not starts:
        return (), [messages]
    ends = [*starts[1:], len(messages)]
    return messages[: starts[0]], [messages[a:b] for a, b in zip(starts, ends, strict=True)]


def _truncate(conversation: Conversation, row_length: int, measure: Measure) -> Conversation | None:
    messages = conversation.messages
    kept: Conversation | None = None
    for index, message in enumerate(messages):
        if message.role != "assistant" or message.tool_calls:
            continue
        whole = replace(conversation, messages=messages[: index + 1])
        if measure(whole) <= row_length:
            kept = whole
            continue
        # The first answer that does not fit: as much of its text as does.
        return (_cut_answer(whole, row_length, measure) if message.train else None) or kept
    return kept


def _cut_answer(conversation: Conversation, row_length: int, measure: Measure) -> Conversation | None:
    """The conversation with its last message's text cut to fit; None where not one word of it does."""
    *before, last = conversation.messages

    def cut(size: int) -> Conversation:
        return replace(conversation, messages=(*before, replace(last, content=last.content[:size].rstrip())))

    fits, too_long = 0, len(last.content)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if measure(cut(middle)) <= row_length:
            fits = middle
        else:
            too_long = middle
    # Back to the end of a word, so that the last token trained before the stop is a real one.
    text = last.content[:fits]
    if fits < len(last.content) and not last.content[fits].isspace():
        text = text[: max(text.rfind(" "), text.rfind("\n"), 0)]
    shorter = cut(len(text))
    # Fewer characters can, rarely, be more tokens.
    fitting = bool(shorter.messages[-1].content.strip()) and measure(shorter) <= row_length
    return shorter if fitting else None
