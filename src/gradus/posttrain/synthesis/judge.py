"""The judge of a teacher's row: the validator's invariants first, then what an answer must and must not hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from fractions import Fraction

from gradus.conversation.artifacts import ARTIFACTS, find_artifacts
from gradus.conversation.checks import CITATION, contains, number_text, numbers
from gradus.conversation.messages import Conversation, Message
from gradus.conversation.validate import violations
from gradus.posttrain.synthesis.teacher import Rejected

LEAST_THINKING = 50  # characters, as A3 of the samosa road has it
COPIED_WORDS = 8  # in a row are no accident
# How a teacher that wants to please begins; conversation.artifacts has what is a fault anywhere.
_OPENER = re.compile(r"\A\W*(?:certainly|absolutely|of course|great question|sure(?: thing)?)\s*[!,.]", re.IGNORECASE)
_OTHER_NAMES = re.compile(
    r"\b(?:chatgpt|gpt-?\d\w*|openai|claude|anthropic|gemini|bard|llama|mistral|qwen|deepseek|copilot|siri|alexa)\b",
    re.IGNORECASE,
)


def judge_conversation(conversation: Conversation, allowed: Collection[str] = ()) -> None:
    """Raise Rejected for the first fault of a row. allowed: kinds of artifacts that its task may have."""
    for fault in violations(conversation):
        raise Rejected(fault.reason, fault.detail)
    refuse_artifacts(conversation.messages, allowed)


def refuse_artifacts(messages: Sequence[Message], allowed: Collection[str] = ()) -> None:
    """No artifact in what the assistant says and thinks, outside of code; no stock opener."""
    kinds = tuple(kind for kind in ARTIFACTS if kind not in allowed)
    for message in messages:
        if message.role != "assistant":
            continue
        for part in (message.content, message.reasoning_content or ""):
            for found in find_artifacts(part, kinds):
                raise Rejected(f"artifact_{found.kind}", repr(found.excerpt), part)
        if (opener := _OPENER.search(message.content)) is not None:
            raise Rejected("stock_opener", repr(opener[0]), message.content)


def require_thinking(thinking: str, answer: str) -> None:
    """Thinking that is some, and does not have the answer in it."""
    if len(thinking) < LEAST_THINKING:
        raise Rejected("short_thinking", f"{len(thinking)} characters, expected {LEAST_THINKING}", thinking)
    if len(answer) >= 20 and _plain(answer) in _plain(thinking):
        raise Rejected("answer_in_thinking", "the whole answer stands in the thinking", thinking)


def require_number(answer: str, value: Fraction, given: str = "") -> None:
    """The answer states a number, rounded to whatever places it shows; one that was given counts where it is equal."""
    known = {number for number, _ in numbers(given)}
    for number, places in numbers(answer):
        if number == value or (number not in known and abs(number - value) * 10**places * 2 <= 1):
            return
    raise Rejected("wrong_number", f"expected {number_text(value)}", answer)


def require_last_number(answer: str, value: Fraction) -> None:
    """The last number of the answer is the value, to the places it shows."""
    found = list(numbers(answer))
    if not found:
        raise Rejected("wrong_number", f"no number, expected {number_text(value)}", answer)
    number, places = found[-1]
    if number != value and abs(number - value) * 10**places * 2 > 1:
        raise Rejected("wrong_number", f"ends with {number_text(number)}, expected {number_text(value)}", answer)


def refuse_number(text: str, value: Fraction, given: str) -> None:
    """Thinking before a call must not know the result already, unless it was among what was given."""
    if abs(value) < 10 or any(number == value for number, _ in numbers(given)):
        return
    if any(number == value for number, _ in numbers(text)):
        raise Rejected("answer_in_thinking", f"{number_text(value)} stands in the thinking before the call", text)


def require_grounded(answer: str, ground: str, reason: str = "ungrounded_number") -> None:
    """Every number of the answer, citations and the counting of lists apart, stands in what it is grounded in."""
    known = {number for number, _ in numbers(ground)}
    stated = re.sub(r"(?m)^[^\S\n]*\d+[.)]\s", "", CITATION.sub("", answer))
    for number, _ in numbers(stated):
        if number not in known and number not in (1, 2, 3):
            raise Rejected(reason, f"{number_text(number)} is in no source", answer)


def require_citations(answer: str, available: Collection[int], fitting: Collection[int]) -> None:
    """At least one [n] of those that fit, and none that there is not."""
    cited = {int(number) for number in CITATION.findall(answer)}
    if not cited:
        raise Rejected("no_citation", "", answer)
    if not cited & set(fitting) or cited - set(available):
        raise Rejected("wrong_citation", f"cites {sorted(cited)}, expected one of {sorted(fitting)}", answer)


def refuse_copied(text: str, source: str) -> None:
    """What is written before a search must not have run over from the text that it is to find."""
    known = source.casefold().split()
    runs = {tuple(known[at : at + COPIED_WORDS]) for at in range(len(known) - COPIED_WORDS + 1)}
    words = text.casefold().split()
    for at in range(len(words) - COPIED_WORDS + 1):
        if tuple(words[at : at + COPIED_WORDS]) in runs:
            raise Rejected("copied_text", " ".join(words[at : at + COPIED_WORDS]), text)


def require_parts(text: str, parts: list[str], reason: str) -> None:
    """The text has each of the parts, in any case; a number may have thousands separators or not."""
    values = {number for number, _ in numbers(text)}
    for part in parts:
        known = list(numbers(part))
        whole = len(known) == 1 and re.fullmatch(r"[\d,.]+", part) is not None
        if not (known[0][0] in values if whole else contains(_plain(text), _plain(part))):
            raise Rejected(reason, f"lacks {part!r}", text)


def refuse_other_names(answer: str, persona: str, question: str) -> None:
    """An assistant names no other than itself, unless it was asked about it or its sheet says so."""
    for found in _OTHER_NAMES.finditer(answer):
        if found[0].casefold() not in f"{persona}\n{question}".casefold():
            raise Rejected("other_assistant", found[0], answer)


def same_text(one: str, other: str) -> bool:
    """Two short answers mean the same: equal numbers, or equal words but for case, articles and punctuation."""
    first, second = ([number for number, _ in numbers(text)] for text in (one, other))
    if first or second:
        return first == second
    return _words(one) == _words(other)


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.casefold()) if word not in {"the", "a", "an", "is"}]


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace("’", "'").split())
