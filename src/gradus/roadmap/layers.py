"""A roadmap as written: TOML files in layers (`extends`), overrides on top, and where each key stands.

Merging: a table is merged key by key, a stage by its name; anything else is replaced. Strings may hold
`${NAME}` or `${NAME:-default}`, environment variables. What comes out is plain data plus an answer to "where
was this key written", for messages.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.settings import KeyPath
from gradus.roadmap.locate import Locator

TOP_KEYS = ("name", "seed", "description", "extends", "machine", "push", "track", "stage")
OVERRIDABLE = ("seed", "name", "description", "machine", "push", "track")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass
class StageData:
    """One `[[stage]]` as merged: its keys, and the label of each layer that wrote one of them."""

    data: dict[str, Any]
    marks: list[tuple[KeyPath, str]] = field(default_factory=list)  # newest last


@dataclass
class Layered:
    """The merged roadmap before any typing. problems: complete lines, ready to show."""

    path: Path
    top: dict[str, Any] = field(default_factory=dict)
    stages: list[StageData] = field(default_factory=list)
    marks: list[tuple[KeyPath, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def label(self, stage: StageData | None, path: KeyPath) -> str:
        """`quickstart.toml:12 stage "chat"` for a path inside a stage (or the top, where stage is None)."""
        place = _newest_mark(stage.marks if stage else self.marks, path) or f"{self.path}:1"
        name = stage.data.get("name") if stage else None
        return f'{place} stage "{name}"' if isinstance(name, str) else place


def read_layers(path: Path, overrides: Sequence[str] = ()) -> Layered:
    """Read a roadmap with what it extends and the overrides `stage.key=value`.

    Errors: ConfigError for a missing file, TOML syntax or a circle of `extends`; all else goes to `problems`.
    """
    layered = Layered(path)
    for file in _chain(path):
        _add_file(layered, file)
    for override in overrides:
        _add_override(layered, override)
    layered.top = _with_variables(layered, None, layered.top)
    for stage in layered.stages:
        stage.data = _with_variables(layered, stage, stage.data)
    return layered


def _newest_mark(marks: list[tuple[KeyPath, str]], path: KeyPath) -> str | None:
    """The label of the longest written prefix of a path; of equally long ones, the newest."""
    best: tuple[int, str] | None = None
    for marked, label in marks:
        if path[: len(marked)] == marked and (best is None or len(marked) >= best[0]):
            best = (len(marked), label)
    return best[1] if best else None


# Files


def _chain(path: Path) -> list[tuple[Path, dict[str, Any], Locator]]:
    """The files from the one furthest down to the one asked for."""
    chain: list[tuple[Path, dict[str, Any], Locator]] = []
    seen: list[Path] = []
    mention = ""
    while True:
        data, locator = _read_toml(path, mention)
        chain.insert(0, (path, data, locator))
        seen.append(path.resolve())
        base = data.get("extends")
        if not isinstance(base, str):
            if base is not None:
                raise ConfigError(f'{path}:{locator.line(("extends",))}: "extends" takes one file name in quotes')
            return chain
        mention = f"{path}:{locator.line(('extends',))}: "
        following = path.parent / Path(base).expanduser()
        if following.resolve() in seen:
            circle = " -> ".join(p.name for p in [*seen, following])
            raise ConfigError(f'{mention}"extends" goes in a circle: {circle}')
        path = following


def _read_toml(path: Path, mention: str) -> tuple[dict[str, Any], Locator]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors mark their files as UTF-8
    except FileNotFoundError:
        names = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise ConfigError(f"{mention}{path}: no such roadmap file{did_you_mean(path.name, names)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{mention}{path}: a folder, expected a roadmap file (.toml)") from None
    except PermissionError:
        raise ConfigError(f"{mention}{path}: this file may not be read by you") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text (byte {error.object[error.start]:#04x})") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_problem(path, text, str(error))) from None
    # tomllib reads "\r\n" as one line end; so must the line count.
    return data, Locator(text)


def _syntax_problem(path: Path, text: str, message: str) -> str:
    found = re.search(r"\(at line (\d+), column (\d+)\)", message)
    line = int(found[1]) if found else text.count("\n") + 1
    what = re.sub(r"\s*\(at .*\)$", "", message)
    lines = text.splitlines()
    shown = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return f"{path}:{line}: not valid TOML: {what}" + (f" in `{shown[:60]}`" if shown else "")


def _add_file(layered: Layered, file: tuple[Path, dict[str, Any], Locator]) -> None:
    path, data, locator = file

    def mark(where: KeyPath) -> str:
        return f"{path}:{locator.line(where)}"

    for key, value in data.items():
        if key == "stage":
            continue
        if key not in TOP_KEYS:
            layered.problems.append(f'{mark((key,))}: unknown key "{key}"{did_you_mean(key, TOP_KEYS)}')
            continue
        layered.top[key] = _merge(layered.top.get(key), value)
        layered.marks += [(p, mark(p)) for p in locator.lines if p[:1] == (key,)]
    stages = data.get("stage", [])
    if not isinstance(stages, list) or not all(isinstance(s, dict) for s in stages):
        layered.problems.append(f"{mark(('stage',))}: stages are written as [[stage]] tables")
        return
    here: dict[str, int] = {}
    for index, stage in enumerate(stages):
        root: KeyPath = ("stage", index)
        marks = [(p[2:], mark(p)) for p in locator.lines if p[:2] == root]
        name = stage.get("name")
        if isinstance(name, str) and name in here:
            first = locator.line(("stage", here[name]))
            layered.problems.append(
                f'{mark((*root, "name"))} stage "{name}": a stage of this name stands at line {first} already'
            )
            continue
        if isinstance(name, str):
            here[name] = index
        known = next((s for s in layered.stages if isinstance(name, str) and s.data.get("name") == name), None)
        if known is None:
            layered.stages.append(StageData(dict(stage), marks))
        else:
            known.data = _merge(known.data, stage)
            # A rewritten value hides the marks inside the old one.
            known.marks = [m for m in known.marks if m[0] == () or _survives(m[0], stage)] + marks[1:]


def _survives(path: KeyPath, newer: Any) -> bool:
    """Whether a marked path of an older layer is still what stands there after a merge."""
    for part in path:
        if not isinstance(newer, dict):
            return False
        if part not in newer:
            return True
        newer = newer[part]
    return isinstance(newer, dict)


def _merge(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: _merge(old.get(key), value) for key, value in new.items()}
    return new


# Overrides


def _add_override(layered: Layered, text: str) -> None:
    """Apply one `stage.key=value`; what is wrong with it goes to the problems."""
    label = f"override {text}"
    target, equals, value_text = text.partition("=")
    parts = [part.strip() for part in target.split(".")]
    if not equals or not all(parts):
        layered.problems.append(f"{label}: expected stage.key=value, machine.key=value or seed=value")
        return
    try:
        value = read_value(value_text.strip())
    except tomllib.TOMLDecodeError as error:
        layered.problems.append(f"{label}: the value is not valid TOML: {error}")
        return
    by_name = {s.data["name"]: s for s in layered.stages if isinstance(s.data.get("name"), str)}
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in parts)
    stage = by_name.get(parts[0])
    if stage is None and parts[0] not in OVERRIDABLE:
        hint = did_you_mean(parts[0], [*by_name, *OVERRIDABLE]) or f"; stages are {', '.join(by_name)}"
        layered.problems.append(f'{label}: no stage "{parts[0]}"{hint}')
        return
    if stage is not None and len(parts) == 1:
        layered.problems.append(f'{label}: name a key of stage "{parts[0]}", as in {parts[0]}.key=value')
        return
    holder, rest = (layered.top, path) if stage is None else (stage.data, path[1:])
    marks = layered.marks if stage is None else stage.marks
    problem = _set(holder, rest, value)
    if problem:
        layered.problems.append(f"{label}: {problem}")
        return
    marks[:] = [m for m in marks if m[0][: len(rest)] != rest]
    marks.append((rest, label))


def read_value(text: str) -> Any:
    """A value in TOML syntax; a bare word (no quote, bracket or brace at its start) is taken as text.

    Errors: TOMLDecodeError for what begins like a string, list or table and is none.
    """
    try:
        data = tomllib.loads(f"value = {text}\n")
        if list(data) == ["value"]:
            return data["value"]
    except tomllib.TOMLDecodeError:
        if text[:1] in {'"', "'", "[", "{"}:
            raise
    return text


def _set(holder: Any, path: KeyPath, value: Any) -> str:
    """Put a value at a path of keys and list positions, making tables on the way; '' or what is wrong."""
    for index, part in enumerate(path):
        last = index == len(path) - 1
        if isinstance(holder, list):
            if not isinstance(part, int) or part >= len(holder):
                return f'"{_dots(path[:index])}" is a list of {len(holder)}; write a position from 0'
        elif isinstance(holder, dict):
            part = str(part)
            if not last and not isinstance(holder.get(part), dict | list):
                holder[part] = {}
        if last:
            holder[part] = value
            return ""
        holder = holder[part]
    return ""


def _dots(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


# Environment variables


def _with_variables(layered: Layered, stage: StageData | None, value: Any, path: KeyPath = ()) -> Any:
    if isinstance(value, dict):
        return {k: _with_variables(layered, stage, v, (*path, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_variables(layered, stage, v, (*path, i)) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def expand(match: re.Match[str]) -> str:
        default: str | None = match[2]
        found = os.environ.get(match[1], default)
        if found is None:
            layered.problems.append(
                f'{layered.label(stage, path)}: "{_dots(path)}": the environment variable {match[1]} is not '
                f"set; set it, or give a default as in ${{{match[1]}:-value}}"
            )
            return match[0]
        return found

    return _VARIABLE.sub(expand, value)
