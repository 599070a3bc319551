"""Filters of conversation pools: each looks at a conversation and names why it goes, or nothing; none changes one.

Only answers that are trained on are judged, never what users or tools wrote; patterns never see code (fences and
spans), see conversation/artifacts.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from gradus.conversation.messages import Conversation, Message
    from gradus.conversation.validate import Violation

FilterEntry = str | dict[str, Any]
"""A filter as settings name it: its name, or a table of its name and settings."""

Judge = Callable[["Conversation"], "Violation | None"]

# The kinds of conversation/artifacts.py, named here so that settings are checked without loading their patterns.
ARTIFACT_KINDS = (
    "html_tag", "stock_label", "image_placeholder", "emoji_run", "hedge", "refusal", "repeated_line", "loop",
)  # fmt: skip
_EXCERPT_BEFORE = 30
_EXCERPT_CHARACTERS = 120


class NoSettings(Settings):
    """A filter without settings."""


class LengthSettings(Settings):
    """min_characters, max_characters: of all answers of a conversation together, calls counted with them."""

    min_characters: int = Field(default=40, ge=0)
    max_characters: int | None = Field(default=None, ge=1)


class ThinkingSettings(Settings):
    """min_characters: of a thinking that is not empty. required: whether every answer must have been thought about."""

    min_characters: int = Field(default=50, ge=0)
    required: bool = False


# --- artifacts


def _artifact_judge(kind: str) -> Judge:
    from gradus.conversation.artifacts import find_artifacts

    def judge(conversation: Conversation) -> Violation | None:
        for index, message in _answers(conversation):
            found = find_artifacts(message.content, (kind,))
            if found:
                return _violation(kind, index, _around(message.content, found[0].start, found[0].end))
        return None

    return judge


def _answers(conversation: Conversation) -> Iterator[tuple[int, Message]]:
    """Messages that are trained on, with their places."""
    for index, message in enumerate(conversation.messages):
        if message.role == "assistant" and message.train:
            yield index, message


def _around(text: str, start: int, end: int) -> str:
    """A stretch of text with a little before it, its own marks around it."""
    before = text[max(0, start - _EXCERPT_BEFORE) : start]
    found = text[start:end]
    if len(found) > _EXCERPT_CHARACTERS:
        found = found[: _EXCERPT_CHARACTERS - 3] + "..."
    return f"{before}[[{found}]]{text[end : end + _EXCERPT_BEFORE]}".replace("\n", "\\n")


def _violation(reason: str, index: int | None, detail: str) -> Violation:
    from gradus.conversation.validate import Violation

    return Violation(reason, index, detail)


# --- length


def _length_judge(settings: LengthSettings) -> Judge:
    from gradus.conversation.formats.hermes import call_text

    def judge(conversation: Conversation) -> Violation | None:
        size = 0
        for _, message in _answers(conversation):
            size += len(message.content.strip()) + sum(len(call_text(call)) for call in message.tool_calls)
        if size < settings.min_characters:
            return _violation("too_short", None, f"{size} characters of answers, fewer than {settings.min_characters}")
        if settings.max_characters is not None and size > settings.max_characters:
            return _violation("too_long", None, f"{size} characters of answers, more than {settings.max_characters}")
        return None

    return judge


# --- thinking

_THINK_TAG = re.compile(r"</?think(?:ing)?>|<\|(?:begin|end)_of_(?:thought|solution)\|>", re.IGNORECASE)
# What is marked as the answer: \boxed{...} (braces inside it one deep), <answer>, or a line "Final answer: ...".
_MARKED_ANSWER = re.compile(
    r"\\boxed\s*\{(?P<boxed>(?:[^{}]|\{[^{}]*\})*)\}"
    r"|<answer>(?P<tagged>(?:(?!<answer>).)*?)</answer>"
    r"|^[^\w\n]*final answer\W*(?:is\W*)?(?P<named>[^\n]{1,80})$",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
_UNFINISHED = re.compile(r"(?:[:,]|\.\.\.|…)\s*$")


def _thinking_judge(settings: ThinkingSettings) -> Judge:
    from gradus.conversation.artifacts import without_code

    def judge(conversation: Conversation) -> Violation | None:
        for index, message in _answers(conversation):
            opens = index == 0 or conversation.messages[index - 1].role != "tool"
            thinking = (message.reasoning_content or "").strip()
            for text in (message.content, thinking):
                if (tag := _THINK_TAG.search(without_code(text))) is not None:
                    return _violation("unclosed_thinking", index, _around(text, *tag.span()))
            if settings.required and opens and not thinking:
                return _violation("no_thinking", index, "an answer without thinking")
            if thinking and len(thinking) < settings.min_characters:
                return _violation("short_thinking", index, f"{len(thinking)} characters of thinking: {thinking}")
            if thinking and not message.tool_calls and (fault := _answer_fault(thinking, message.content, index)):
                return fault
        return None

    return judge


def _answer_fault(thinking: str, answer: str, index: int) -> Violation | None:
    """Thinking whose result is not said after it."""
    text = answer.strip()
    if not text or _UNFINISHED.search(text):
        return _violation("no_final_answer", index, f"the answer ends as: {text[-60:]!r}")
    marks = list(_MARKED_ANSWER.finditer(thinking))
    if not marks:
        return None
    marked = marks[-1]
    result = _plain(next(group for group in marked.groups() if group is not None))
    # Thinking about the form that was asked for quotes it: \boxed{ANSWER}.
    if result not in ("", "answer", "youranswer") and result not in _plain(text):
        return _violation("answer_inside_thinking", index, _around(thinking, *marked.span()))
    return None


def _plain(text: str) -> str:
    """Letters, digits and signs alone, so that "$1{,}000$." and "1,000" are the same."""
    return re.sub(r"\\(?:text|mathrm|left|right|!|,)|[\s$*_{},.`\\]", "", text).casefold()


# --- the table

_SETTINGS: Mapping[str, type[Settings]] = {
    **dict.fromkeys(ARTIFACT_KINDS, NoSettings),
    "length": LengthSettings,
    "thinking": ThinkingSettings,
}
ARTIFACTS_NAME = "artifacts"
FILTER_NAMES = (ARTIFACTS_NAME, *_SETTINGS)


def checked_filters(entries: Sequence[FilterEntry]) -> list[tuple[str, Settings | None]]:
    """(name, settings) of each filter, "artifacts" spelled out; None for a function from outside, not loaded here.

    Errors: ConfigError with the nearest name, or with all that is wrong with the settings.
    """
    found: list[tuple[str, Settings | None]] = []
    for entry in entries:
        table = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        name = table.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError('a filter is a name, or a table with a "name"')
        if ":" in name and not table:
            found.append((name, None))
        elif name == ARTIFACTS_NAME and not table:
            found += [(kind, NoSettings()) for kind in ARTIFACT_KINDS]
        elif name in _SETTINGS:
            found.append((name, load_settings(_SETTINGS[name], table, where=f'filter "{name}"')))
        elif name == ARTIFACTS_NAME or ":" in name:
            raise ConfigError(f'filter "{name}": it takes no settings, found {", ".join(table)}')
        else:
            hint = did_you_mean(name, FILTER_NAMES) or f"; filters are {', '.join(FILTER_NAMES)}"
            raise ConfigError(f'no filter of conversations is called "{name}"{hint}')
    repeated = [name for index, (name, _) in enumerate(found) if name in [other for other, _ in found[:index]]]
    if repeated:
        raise ConfigError(f'filter "{repeated[0]}" is listed twice')
    return found


def conversation_filters(entries: Sequence[FilterEntry], folder: Path = Path()) -> list[tuple[str, Judge]]:
    """The filters in their order, ready to judge; folder: where a module of an outside one may lie.

    Errors: ConfigError.
    """
    judges: list[tuple[str, Judge]] = []
    for name, settings in checked_filters(entries):
        if settings is None:
            judges.append((name, _outside_judge(name, folder)))
        elif isinstance(settings, LengthSettings):
            judges.append((name, _length_judge(settings)))
        elif isinstance(settings, ThinkingSettings):
            judges.append((name, _thinking_judge(settings)))
        else:
            judges.append((name, _artifact_judge(name)))
    return judges


def outside_fingerprints(entries: Sequence[FilterEntry], folder: Path) -> dict[str, str]:
    """A digest of each function from outside: its name and the file it stands in. Errors: ConfigError."""
    names = [name for name, settings in checked_filters(entries) if settings is None]
    return {name: _outside(name, folder).fingerprint for name in names}


def _outside(name: str, folder: Path) -> Any:
    from gradus.data.filters.custom import FunctionFilter, load_custom

    found = load_custom(name, folder)
    if not isinstance(found, FunctionFilter):
        raise ConfigError(f'filter "{name}": expected a function of one answer\'s text, found a class of text filters')
    return found


def _outside_judge(name: str, folder: Path) -> Judge:
    function = _outside(name, folder)

    def judge(conversation: Conversation) -> Violation | None:
        for index, message in _answers(conversation):
            reason = function.judge_text(message.content)
            if reason is not None:
                return _violation(str(reason.name), index, message.content[:_EXCERPT_CHARACTERS])
        return None

    return judge
