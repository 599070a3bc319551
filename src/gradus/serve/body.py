"""A request's body: JSON read with care, and parameters that have no effect here refused by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from gradus.conversation.messages import check_json_text, is_deeper
from gradus.core.errors import DataError
from gradus.core.settings import SettingsType, check_settings
from gradus.serve.errors import bad_request, unsupported

_MOST_DEPTH = 64
# Parameters that are not offered, each with the values that ask for what is done anyway.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "background": (False,),
    "best_of": (1,),
    "context_management": ([],),
    "conversation": (),
    "frequency_penalty": (0,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "include": ([],),
    "logit_bias": ({},),
    "max_tool_calls": (),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True,),
    "prediction": (),
    "presence_penalty": (0,),
    "previous_response_id": (),
    "prompt": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "truncation": ("disabled",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
# Names that others have for a parameter: llama.cpp, and Open WebUI after it.
_SYNONYMS = {"repeat_penalty": "repetition_penalty"}
# Names that a client gives to a request for its own books; they change no answer.
LABELS = ("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user")


def read_json(data: bytes) -> dict[str, Any]:
    """The JSON object of a body. Errors: ApiError."""
    try:
        body = json.loads(data, parse_constant=_no_constant)
        check_json_text(body, "the body")
    except (ValueError, RecursionError, DataError) as error:
        raise bad_request(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise bad_request("the body is no JSON object")
    if is_deeper(body, _MOST_DEPTH):
        raise bad_request(f"the body is nested more than {_MOST_DEPTH} deep")
    return body


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def load_body(cls: type[SettingsType], body: Mapping[str, Any], besides: Collection[str] = ()) -> SettingsType:
    """The parameters of a request. Errors: ApiError for the first that is wrong, unknown or without effect here.

    besides: parameters of NEUTRAL that this request does have.
    """
    kept = {}
    for given, value in body.items():
        name = _SYNONYMS.get(given, given)
        if name != given and name in body:
            raise bad_request(f'"{given}" is another name of "{name}"; give one of them', given)
        if name in LABELS and name not in cls.model_fields:
            continue
        if name in cls.model_fields or name not in NEUTRAL or name in besides:
            kept[name] = value
        elif value is not None and not any(_same(value, neutral) for neutral in NEUTRAL[name]):
            raise unsupported(name, f'"{name}" is not supported here; leave it out')
    settings, problems = check_settings(cls, kept)
    if settings is None:
        problem = problems[0]
        raise bad_request(problem.text, _param(problem.path))
    return settings


def _same(value: Any, neutral: Any) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _param(path: tuple[str | int, ...]) -> str | None:
    """messages[0].content for ("messages", 0, "content")."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or None
