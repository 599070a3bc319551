"""Asking the teacher for one row: a prompt with named fields out, a JSON object with just these fields back.

The object is asked for in words, since not every service has a mode for it; what comes back is read with care.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gradus.conversation.messages import Message
from gradus.core.errors import GradusError
from gradus.core.secrets import without_read_secrets
from gradus.tools.endpoint import ChatRequest, Endpoint, RequestRefusedError

SYSTEM = (
    "You write examples that a small assistant learns from. Write what the fields ask for, in the language of the "
    "request, and nothing about being an example. The assistant is friendly, concrete and brief. It never calls "
    'itself a language model, never says "As an AI", does not praise the question, uses no emoji and no HTML. '
    "Everything that is stated must be true. Reply with one JSON object and nothing else."
)
TRIES_PER_ROW = 8  # at most; keeps the draws of two rows apart
_MOST_BRACKETS = 50  # tried as the start of the object
_FENCE = re.compile(r"\A```\w*\s*|\s*```\Z")
_REFUSAL = re.compile(r"\b(?:I(?:'m| am) (?:sorry|unable|not able)|I can(?:'t|not|’t)|as an ai)\b", re.IGNORECASE)


class Rejected(GradusError):
    """A row that is not taken. reason: a name to count by; answer: the teacher's words, where they are at fault."""

    def __init__(self, reason: str, detail: str = "", answer: str = "") -> None:
        self.reason, self.detail, self.answer = reason, detail, answer
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True)
class Brief:
    """What is asked for a row. facts: what its later steps and its judge need to know; system: who the teacher is."""

    prompt: str
    fields: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    system: str = SYSTEM

    def request(self, draw: int = 0) -> ChatRequest:
        """The brief as the teacher gets it."""
        listed = "\n".join(f'- "{name}": {meaning}' for name, meaning in self.fields.items())
        text = f"{self.prompt}\n\nReply with one JSON object with these keys, each with text:\n{listed}"
        return ChatRequest((Message("system", self.system), Message("user", text)), draw=draw)


class Teacher:
    """The endpoint for one try at one row."""

    def __init__(self, endpoint: Endpoint, row: int, attempt: int) -> None:
        self._endpoint = endpoint
        self._draw = row * TRIES_PER_ROW + attempt

    async def write(self, brief: Brief) -> dict[str, str]:
        """The fields of a brief, none of them empty. Errors: Rejected; what `Endpoint.chat` raises for the service."""
        try:
            answer = await self._endpoint.chat(brief.request(self._draw))
        except RequestRefusedError as error:
            raise Rejected("no_answer", str(error)) from None
        text = answer.message.content
        if answer.finish_reason == "length":
            raise Rejected("cut_short", "the answer reached max_tokens", text)
        return read_fields(text, brief.fields)


def read_fields(text: str, names: Mapping[str, str]) -> dict[str, str]:
    """The texts of a JSON object, wherever in the reply it stands. Errors: Rejected."""
    found = _json_object(text)
    if found is None:
        reason = "refused" if _REFUSAL.search(text) else "wrong_format"
        raise Rejected(reason, "no JSON object in the reply", text)
    fields = {}
    for name in names:
        value = found.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = json.dumps(value)
        if not isinstance(value, str) or not value.strip():
            raise Rejected("wrong_format", f'"{name}" is {"missing" if value is None else "no text, or empty"}', text)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Rejected("wrong_format", f'"{name}" holds an unpaired surrogate') from None
        # A second time: the object is JSON inside of JSON.
        fields[name] = without_read_secrets(value.strip())
    return fields


def _json_object(text: str) -> dict[str, object] | None:
    """The first JSON object of a text; thinking before it and a code fence around it are passed over."""
    text = _FENCE.sub("", text.rpartition("</think>")[2].strip())
    # Line breaks inside strings are no JSON, and common.
    decoder = json.JSONDecoder(strict=False)
    start = text.find("{")
    for _ in range(_MOST_BRACKETS):
        if start < 0:
            return None
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return value if isinstance(value, dict) else None
    return None
