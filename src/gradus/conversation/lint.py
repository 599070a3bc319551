"""Lint: the hard rules for rendered conversations, checked on a pool before any training.

On every row: something is trained, and each trained assistant message trains its stop token. On a sample,
because they render again and again: rendering is prefix-preserving, the generation prompt is a prefix of what
follows it, and ids and mask are those of the exported chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradus.conversation.chat_template import TemplateRenderer
from gradus.conversation.formats.wire import Format, Rendered
from gradus.conversation.messages import Conversation
from gradus.conversation.validate import Violation


def lint(
    conversations: Sequence[Conversation],
    format: Format,
    sample: int | None = 500,
    rendered: Sequence[Rendered] | None = None,
) -> list[Violation]:
    """Every broken rule, with the number of its row; training on a pool with any is a mistake.

    sample: how many rows, evenly spread, get the rules that cost more rendering; None is all of them. rendered: the
    conversations as the format renders them, where that is known already.
    """
    found: list[Violation] = []
    if rendered is None:
        rendered = format.render_many(conversations)
    for row, (conversation, result) in enumerate(zip(conversations, rendered, strict=True)):
        found += [replace(v, row=row) for v in _trained(conversation, result, format)]
    template = TemplateRenderer(format)
    for row in _spread(len(conversations), sample):
        conversation, result = conversations[row], rendered[row]
        broken = _prefixes(conversation, result, format) + _template(conversation, result, template, format)
        found += [replace(violation, row=row) for violation in broken]
    return sorted(found, key=lambda violation: violation.row)


def _spread(count: int, sample: int | None) -> list[int]:
    """Row numbers, evenly spaced over all rows."""
    if sample is None or sample >= count:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(1, sample - 1)) for i in range(sample)})


def _trained(conversation: Conversation, result: Rendered, format: Format) -> list[Violation]:
    expected = sum(message.role == "assistant" and message.train for message in conversation.messages)
    if not result.mask.any():
        return [Violation("nothing_trained", None, "no token is trained")]
    stops = int(np.count_nonzero(result.mask & np.isin(result.ids, format.stop_ids)))
    if stops != expected:
        return [Violation("stop_not_trained", None, f"{stops} trained stop tokens for {expected} trained messages")]
    return []


def _prefixes(conversation: Conversation, result: Rendered, format: Format) -> list[Violation]:
    found = []
    messages = conversation.messages
    for index, message in enumerate(messages):
        if message.role != "assistant" or index == 0 or messages[index - 1].role not in ("user", "tool"):
            continue
        so_far = replace(conversation, messages=messages[:index])
        prompt = format.render_prompt(so_far, conversation.think)
        if not _is_prefix(prompt, result.ids):
            detail = "the generation prompt is not how the row goes on"
            found.append(Violation("prompt_not_prefix", index, detail))
        part = format.render(replace(conversation, messages=messages[: index + 1]))
        if not (_is_prefix(part.ids, result.ids) and _is_prefix(part.mask, result.mask)):
            detail = "rendering up to here is not the start of rendering all"
            found.append(Violation("not_prefix_preserving", index, detail))
    return found


def _is_prefix(short: NDArray[np.generic], long: NDArray[np.generic]) -> bool:
    return len(short) <= len(long) and bool(np.array_equal(short, long[: len(short)]))


def _template(
    conversation: Conversation, result: Rendered, template: TemplateRenderer, format: Format
) -> list[Violation]:
    found = []
    if template.text(conversation) != format.tokenizer.decode(result.ids):
        found.append(Violation("template_text", None, "the chat template writes another text"))
    elif not _spells_control(conversation, format):
        # Where content spells out a control token, ids differ by design: ours stay text.
        other = template.render(conversation)
        if not np.array_equal(other.ids, result.ids):
            found.append(Violation("template_ids", None, "the chat template gives other ids"))
        elif not np.array_equal(other.mask, result.mask):
            found.append(Violation("template_mask", None, "the chat template trains other tokens"))
    return found


def _spells_control(conversation: Conversation, format: Format) -> bool:
    text = str(conversation.to_json())
    return any(name in text for name in format.tokenizer.special_tokens)
