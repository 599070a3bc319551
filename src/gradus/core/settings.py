"""Typed settings (pydantic, frozen, no unknown keys) and loading that reports every problem at once.

Values are read strictly, as TOML or JSON wrote them: "6" is no number and 1 is no text. pydantic's own
messages are rewritten into one sentence each that names the key, what was found and what was expected.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from gradus.core.errors import ConfigError, did_you_mean

KeyPath = tuple[str | int, ...]


class Settings(BaseModel):
    """Base of every settings class: immutable, unknown keys refused, defaults checked, numbers finite.

    TOML and JSON readers know inf and nan; nothing here means them, and no manifest can hold them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


SettingsType = TypeVar("SettingsType", bound=Settings)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with settings: the path of keys to it, and a sentence without the place."""

    path: KeyPath
    text: str


def load_settings(
    cls: type[SettingsType], data: Mapping[str, Any], where: str | Callable[[KeyPath], str] = ""
) -> SettingsType:
    """Check `data` against `cls`; ConfigError holds all problems, each prefixed by its place.

    where: a label, or a function from the path of keys to a label such as `roadmap.toml:12 stage "chat"`.
    """
    settings, problems = check_settings(cls, data)
    if settings is None:
        lines = []
        for problem in problems:
            label = where(problem.path) if callable(where) else where
            lines.append(f"{label}: {problem.text}" if label else problem.text)
        raise ConfigError(lines)
    return settings


def check_settings(cls: type[SettingsType], data: Mapping[str, Any]) -> tuple[SettingsType | None, list[Problem]]:
    """The settings, or None and every problem in them."""
    try:
        # The JSON route is strict about scalars and lets arrays become tuples, which is what TOML needs.
        text = json.dumps(data, default=_json_text)
        return cls.model_validate_json(text, strict=True), []
    except ValidationError as error:
        problems: dict[tuple[KeyPath, str], Problem] = {}
        for detail in error.errors(include_url=False, include_context=True):
            problem = _problem(cls, data, detail)
            if detail["type"] == "too_short" and any(path[: len(problem.path)] == problem.path for path, _ in problems):
                continue  # entries that are wrong are not counted, and told already
            problems.setdefault((problem.path, problem.text), problem)
        return None, list(problems.values())


def _json_text(value: Any) -> str:
    return value.as_posix() if hasattr(value, "as_posix") else str(value)


def _problem(cls: type[Settings], data: Mapping[str, Any], detail: ErrorDetails) -> Problem:
    """One pydantic error as a path into `data` and a sentence."""
    path, owner = _follow(cls, data, detail["loc"])
    kind = detail["type"]
    name = _dotted(path)
    if kind == "extra_forbidden":
        known = _keys(owner)
        hint = did_you_mean(str(path[-1]), known)
        if not hint and known:
            hint = f"; known keys are {', '.join(known)}"
        return Problem(path, f'unknown key "{name}"{hint}')
    if kind == "missing":
        return Problem(path, f'missing key "{name}"')
    if kind in {"value_error", "assertion_error"}:
        text = str(detail["ctx"]["error"]) if "ctx" in detail and "error" in detail["ctx"] else detail["msg"]
        return Problem(path, f'"{name}": {text}' if name else text)
    if kind == "json_invalid":
        # The JSON is ours and valid but for this: JSON escapes and bytes of a command line bring lone surrogates.
        path = _half_character(data)
        place = f'"{_dotted(path)}": ' if path else ""
        return Problem(path, f"{place}holds half a character (a lone surrogate), which is no text; write it anew")
    found = _found(detail["input"])
    if kind in {"literal_error", "union_tag_invalid"}:
        return Problem(path, _choice_text(name, detail, found))
    if kind == "union_tag_not_found":
        key = str(detail["ctx"]["discriminator"]).strip("'")
        return Problem(path, f'"{name}": missing key "{key}"')
    expected = _EXPECTED.get(kind)
    if expected is not None:
        expected = expected.format(**detail.get("ctx", {}))
        return Problem(path, f'"{name}": expected {expected}, found {found}')
    return Problem(path, f'"{name}": {detail["msg"][:1].lower()}{detail["msg"][1:]}, found {found}')


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text in quotes",
    "tuple_type": "a list [...]",
    "list_type": "a list [...]",
    "dict_type": "a table {{...}}",
    "model_type": "a table {{...}}",
    "model_attributes_type": "a table {{...}}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "finite_number": "a finite number",
    "none_required": "nothing",
}


def _half_character(value: Any, path: KeyPath = ()) -> KeyPath:
    """The path of keys to the first text with a lone surrogate; () where none has one."""
    children: list[tuple[str | int, Any]] = []
    if isinstance(value, Mapping):
        children = list(value.items())
    elif isinstance(value, list | tuple):
        children = list(enumerate(value))
    for key, child in children:
        texts = [text for text in (key, child) if isinstance(text, str)]
        if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
            return (*path, key)
        if found := _half_character(child, (*path, key)):
            return found
    return ()


def _choice_text(name: str, detail: ErrorDetails, found: str) -> str:
    """The sentence for a value outside its closed list, with the nearest member."""
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_invalid":
        options = [o.strip().strip("'") for o in str(context["expected_tags"]).split(",")]
        value = str(context["tag"])
        key = str(context["discriminator"]).strip("'").removesuffix("()")
        name, found = (f"{name}.{key}" if name else key), _found(value)
    else:
        listed = str(context["expected"]).replace(" or ", ", ")
        options = [o.strip().strip("'") for o in listed.split(",")]
        value = str(detail["input"])
    hint = did_you_mean(value, options)
    return f'"{name}": expected one of {", ".join(options)}, found {found}{hint}'


def _found(value: Any) -> str:
    """A value as its author wrote it, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _dotted(path: KeyPath) -> str:
    """sources[1].path for ("sources", 1, "path")."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _keys(owner: Any) -> list[str]:
    return list(owner.model_fields) if isinstance(owner, type) and issubclass(owner, BaseModel) else []


def _follow(cls: type[Settings], data: Any, loc: tuple[str | int, ...]) -> tuple[KeyPath, Any]:
    """pydantic's location as keys of the author's data, and the settings class that owns the last key.

    pydantic puts union tags and member names into locations; they are not keys, and are left out here. A
    name counts as a key where the data holds it, or where it is the last part (a missing key).
    """
    path: list[str | int] = []
    kinds: list[Any] = [cls]
    owner: Any = cls
    for index, part in enumerate(loc):
        is_last = index == len(loc) - 1
        holds = (isinstance(data, Mapping) and part in data) or (
            isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        )
        models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        missing = is_last and isinstance(data, Mapping) and any(part in m.model_fields for m in models)
        if not holds and not missing:
            kinds = _narrow(kinds, str(part))
            continue
        owner = next((m for m in models if part in m.model_fields), models[0] if models else owner)
        path.append(part)
        data = data[part] if holds else None
        kinds = _children(kinds, part)
    return tuple(path), owner


def _narrow(kinds: list[Any], tag: str) -> list[Any]:
    """Of a union's members, those that a tag or a class name means; all of them where it means none."""
    chosen = []
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            continue
        choices = [typing.get_args(field.annotation) for field in kind.model_fields.values()]
        tags = [value for values in choices for value in values if isinstance(value, str)]
        if kind.__name__ == tag or tag in tags:
            chosen.append(kind)
    return chosen or kinds


def _children(kinds: list[Any], part: str | int) -> list[Any]:
    """The types that may stand under key `part` of any of `kinds`."""
    found: list[Any] = []
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if part in kind.model_fields:
                found += _members(kind.model_fields[str(part)].annotation)
        elif typing.get_origin(kind) in (list, tuple, dict):
            for argument in typing.get_args(kind):
                found += _members(argument)
    return found


def _members(annotation: Any) -> list[Any]:
    """A union, optional or annotated type as the list of its plain members."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [m for argument in typing.get_args(annotation) for m in _members(argument)]
    return [annotation]
