"""Conversations and probes from templates: items of every category, answered with the real calculator.

`conversations` gives training rows, `probe_items` the same kinds of rows as probes; the split by problem (`side_of`)
keeps the two apart. Equal seeds give equal rows; a wording that has been used is replaced as long as there are others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from gradus.conversation.messages import Conversation, Message, ToolCall
from gradus.data.synthetic import ages, arithmetic, calendars, follow_up, knowledge, letters, percent, stories
from gradus.data.synthetic.config import ConversationSettings
from gradus.data.synthetic.grammar import TrainingDraws
from gradus.data.synthetic.item import Check, Generator, Item, Persona, Side, Turn, between
from gradus.tools.calculator import calculate
from gradus.tools.toolbox import ToolBox

GENERATORS: dict[str, Generator] = {
    "arithmetic": arithmetic.generate,
    "percent": percent.generate,
    "word_problem": stories.generate,
    "weekday": calendars.weekday,
    "date": calendars.date,
    "age": ages.generate,
    "spelling": letters.spelling,
    "letter_count": letters.letter_count,
    "identity": knowledge.identity,
    "direct": knowledge.direct,
    "follow_up": follow_up.generate,
}
CALCULATOR = "calculator"
_REPEAT_TRIES = 6
_SOURCE = "synthetic"


def conversations(settings: ConversationSettings, seed: int, side: Side = "train") -> Iterator[Conversation]:
    """`settings.rows` conversations of one side, categories mixed by their weights."""
    for conversation, _ in _rows(settings, seed, side):
        yield conversation


def checked_conversations(
    settings: ConversationSettings, seed: int, side: Side = "train"
) -> Iterator[tuple[Conversation, list[Check]]]:
    """The rows of `conversations`, each with the probe checks of its last turn: for judging a model's own answers."""
    for conversation, item in _rows(settings, seed, side):
        yield conversation, item_checks(item)


def _rows(settings: ConversationSettings, seed: int, side: Side) -> Iterator[tuple[Conversation, Item]]:
    rng = (TrainingDraws if side == "train" else random.Random)(f"{seed} {side} conversations")
    toolbox = ToolBox()
    tools = toolbox.schemas((CALCULATOR,))
    persona = Persona(settings.name, settings.maker)
    weights = settings.category_weights()
    names, shares = list(weights), list(weights.values())
    seen: set[int] = set()
    for number, category in enumerate(rng.choices(names, shares, k=settings.rows)):
        item = _fresh_item(category, rng, persona, side, seen)
        if rng.random() < settings.sessions_fraction:
            more = rng.choices(names, shares, k=between(rng, 1, 2))
            item = _session([item, *(_fresh_item(name, rng, persona, side, seen) for name in more)])
            category = item.category
        declared = tools if _needs_tool(item) or rng.random() < settings.tools_fraction else ()
        messages = tuple(_messages(item.turns, toolbox))
        yield Conversation(messages, declared, f"{_SOURCE}/{category}", f"{category}-{seed}-{number}"), item


def _session(items: list[Item]) -> Item:
    """Unrelated problems, one after another in one conversation."""
    turns = tuple(turn for item in items for turn in item.turns)
    return Item("session", " ".join(item.key for item in items), turns)


def probe_items(settings: ConversationSettings, seed: int, per_category: int) -> list[dict[str, Any]]:
    """`per_category` probes of each category with a weight above 0, as rows of a probe file."""
    rng = random.Random(f"{seed} probes")
    persona = Persona(settings.name, settings.maker)
    seen: set[int] = set()
    rows = []
    for category in (name for name, weight in settings.category_weights().items() if weight):
        for number in range(1, per_category + 1):
            item = _fresh_item(category, rng, persona, "probe", seen)
            rows.append(_probe(item, f"{category}-{number:03d}"))
    return rows


def _fresh_item(category: str, rng: random.Random, persona: Persona, side: Side, seen: set[int]) -> Item:
    """An item of the side, with a wording that was not used before if a few tries find one."""
    generate = GENERATORS[category]
    tries = 0
    while True:
        item = generate(rng, persona)
        if not item.is_of(side):
            continue
        mark = hash_text("\n".join(turn.user for turn in item.turns))
        if mark not in seen or tries >= _REPEAT_TRIES:
            seen.add(mark)
            return item
        tries += 1


def hash_text(text: str) -> int:
    """A hash of text that is the same in every process (Python's own is salted)."""
    return crc32(text.encode("utf-8")) << 32 | crc32(text[::-1].encode("utf-8"))


def _needs_tool(item: Item) -> bool:
    return any(turn.calculation is not None for turn in item.turns)


def _messages(turns: tuple[Turn, ...], toolbox: ToolBox) -> Iterator[Message]:
    """The turns as messages, each calculation run by the real tool."""
    for number, turn in enumerate(turns, start=1):
        yield Message("user", turn.user)
        thinking, result = turn.thinking, ""
        for part, expression in enumerate(turn.expressions):
            call = ToolCall(f"call_{number}" + (f"_{part + 1}" if part else ""), CALCULATOR, {"expression": expression})
            yield Message("assistant", "", thinking, (call,), train=turn.train)
            reply = toolbox.run(call)
            yield reply
            thinking, result = None, reply.content
        yield Message("assistant", turn.answer.replace("{result}", result), thinking, train=turn.train)


def item_checks(item: Item) -> list[Check]:
    """The checks of the item's last turn; those of a calculation come from the calculator's result."""
    last = item.turns[-1]
    checks = list(last.checks)
    if last.calculation is not None and "{result}" in last.answer:
        result = float(calculate(last.calculation))
        value = int(result) if result == int(result) else result
        checks += [
            {"kind": "calls", "tool": CALCULATOR},
            {"kind": "answer_number", "value": value, "tolerance": 0.005},
            {"kind": "think_closed"},
        ]
    return [*checks, {"kind": "stops"}]


def _probe(item: Item, name: str) -> dict[str, Any]:
    """The item as a row of a probe file; earlier turns are asked live unless they stand as written."""
    row: dict[str, Any] = {"id": name, "category": item.category}
    if all(turn.train for turn in item.turns) and len(item.turns) > 1:
        row["turns"] = [turn.user for turn in item.turns]
    else:
        messages = []
        for turn in item.turns[:-1]:
            messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": _spoken(turn)}]
        row["messages"] = [*messages, {"role": "user", "content": item.turns[-1].user}]
    return {**row, "tools": [CALCULATOR], "checks": item_checks(item)}


def _spoken(turn: Turn) -> str:
    """The turn's answer as the user reads it, with the calculator's result in its place."""
    return turn.answer.replace("{result}", calculate(turn.expressions[-1]) if turn.expressions else "")
