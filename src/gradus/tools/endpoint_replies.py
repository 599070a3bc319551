"""What a service replies to a chat completion, read with care: statuses, bodies that are none, usage, other models."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from gradus.conversation.messages import JsonObject, Message
from gradus.core.errors import GradusError
from gradus.core.fingerprint import canonical_json
from gradus.core.secrets import hidden_in, redacted
from gradus.tools.endpoint_settings import EndpointSettings

RATE_LIMIT = "rate_limit"
_RETRIED = {408, 409, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_REFUSED = {400, 413, 422}
_BYTES_PER_TOKEN = 4  # of text that a service does not count for us
_SHOWN = 300
_MOST_TOKENS = 2**40  # that a service can tell of one request


class Repeat(GradusError):
    """An attempt that failed and may be made again. is_paid: it may have been charged all the same."""

    def __init__(self, reason: str, *, is_paid: bool, retry_after: float | None = None, detail: str = "") -> None:
        self.reason, self.is_paid, self.retry_after = reason, is_paid, retry_after
        self.text = redacted(f"{reason}: {detail[:_SHOWN]}" if detail else reason)
        super().__init__(self.text)

    @property
    def is_rate_limit(self) -> bool:
        return self.reason == RATE_LIMIT


class Refused(GradusError):
    """The service will not answer this request."""

    def __init__(self, text: str) -> None:
        super().__init__(redacted(text))


class Stop(GradusError):
    """The service cannot be used as asked. asks_for_models: it may be the model's name that is wrong."""

    def __init__(self, text: str, *, is_paid: bool = False, asks_for_models: bool = False) -> None:
        self.is_paid, self.asks_for_models = is_paid, asks_for_models
        super().__init__(redacted(text))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of requests. cached: of the input. estimated: answers without usage, taken by their bytes."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    estimated: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated + other.estimated,
        )

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def wire_message(message: Message) -> JsonObject:
    """A message as the API takes it: calls nested, their arguments as JSON text; thinking is not sent back."""
    row: JsonObject = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["content"] = message.content or None
        row["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def judge_status(status: int, headers: Mapping[str, str], text: str) -> None:
    """Nothing for 200. Raises Repeat, Refused or Stop. text: the start of the body, without secrets."""
    if status == 200:
        return
    said = _said(text)
    if status == 429 and not _is_out_of_money(text):
        raise Repeat(RATE_LIMIT, is_paid=False, retry_after=retry_after(headers), detail=said)
    if status in _RETRIED:
        raise Repeat(f"status_{status}", is_paid=False, retry_after=retry_after(headers), detail=said)
    if status in {402, 429}:
        raise Stop(f"the account has no money left (status {status}): {said}")
    if status in {401, 403}:
        raise Stop(f"refuses the key (status {status}): {said}; check key_variable or key_file")
    if status == 404 or (status in _REFUSED and "model" in said.casefold() and "exist" in said.casefold()):
        raise Stop(f"does not know the model or the address (status {status}): {said}", asks_for_models=True)
    if status in _REFUSED:
        hint = ""
        if "max_completion_tokens" in said:
            hint = '; set limit_key = "max_completion_tokens"'
        raise Refused(f"status {status}: {said}{hint}")
    where = f" to {headers['location']}" if "location" in headers else ""
    raise Stop(f"answered with status {status}{where}, expected 200: {said}")


def _said(text: str) -> str:
    """The message in an error's body, in whichever of the usual places."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return " ".join(text.split())[:_SHOWN] or "(no text)"
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error.get("detail", error)) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:_SHOWN]


def _is_out_of_money(text: str) -> bool:
    return "insufficient_quota" in text or "insufficient_balance" in text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait: retry-after-ms, or Retry-After in seconds or as a date (RFC 9110, 10.2.3)."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        text = headers.get("retry-after", "").strip()
        if not text:
            return None
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def read_completion(reply: bytes, settings: EndpointSettings) -> dict[str, Any]:
    """What is kept of a good reply: {message, finish_reason, model, usage}; usage is {} where it is not told.

    Raises Repeat for a body that is no completion; Stop where another model has answered.
    """
    try:
        # A service that shows our key in an answer must not bring it into an artifact.
        body = hidden_in(json.loads(reply))
    except (ValueError, RecursionError) as error:
        raise Repeat("truncated_json", is_paid=True, detail=str(error)) from None
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list) or not body["choices"]:
        # Some services tell their errors with status 200.
        raise Repeat("no_choices", is_paid=True, detail=_said(reply[:2000].decode("utf-8", "replace")))
    choice = body["choices"][0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Repeat("no_message", is_paid=True)
    _refuse_another_model(body.get("model"), settings)
    kept = _kept_message(message)
    try:
        canonical_json(kept)
    except (ValueError, RecursionError) as error:
        raise Repeat("no_message", is_paid=True, detail=str(error)) from None
    return {
        "message": kept,
        "finish_reason": str(choice.get("finish_reason") or "stop"),
        "model": str(body.get("model") or ""),
        "usage": _usage(body.get("usage")),
    }


def _refuse_another_model(answered: object, settings: EndpointSettings) -> None:
    """Names may be prefixed by an owner and followed by a date; another name is another model."""
    if not isinstance(answered, str) or not answered:
        return
    asked = settings.served_as or settings.model
    one, other = (name.rpartition("/")[2].casefold() for name in (asked, answered))
    if one.startswith(other) or other.startswith(one):
        return
    raise Stop(
        f'asked for "{asked}", answered by "{answered}"; if that is the same model, set served_as = "{answered}"',
        is_paid=True,
        asks_for_models=False,
    )


def _kept_message(message: Mapping[str, Any]) -> JsonObject:
    """The message in the keys that gradus reads."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    kept: JsonObject = {"role": "assistant", "content": content if isinstance(content, str) else ""}
    thinking = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thinking, str):
        kept["reasoning_content"] = thinking
    if message.get("refusal") and not kept["content"]:
        kept["content"] = str(message["refusal"])
    if message.get("tool_calls"):
        kept["tool_calls"] = message["tool_calls"]
    return kept


def _usage(found: object) -> dict[str, int]:
    if not isinstance(found, dict):
        return {}
    details = found.get("prompt_tokens_details")
    numbers = {
        "input_tokens": found.get("prompt_tokens"),
        "output_tokens": found.get("completion_tokens"),
        "cached_tokens": (details.get("cached_tokens") if isinstance(details, dict) else 0) or 0,
    }
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= _MOST_TOKENS for n in numbers.values()):
        return {}
    counted = {name: int(str(number)) for name, number in numbers.items()}
    # More than all of the input would lower what was spent.
    return counted | {"cached_tokens": min(counted["cached_tokens"], counted["input_tokens"])}


def estimated_usage(content: bytes, found: Mapping[str, Any]) -> Usage:
    """By bytes, where a service tells no usage."""
    return Usage(len(content) // _BYTES_PER_TOKEN, len(canonical_json(found["message"])) // _BYTES_PER_TOKEN, 0, 1)


def most_input_tokens(content: bytes) -> int:
    """An upper bound of a request's input: no token is less than a byte, and the frame around messages is smaller
    than the JSON around them."""
    return len(content)
