"""Probe suites: what to ask a model, with which switches, and what its answer must satisfy.

JSON lines, one probe a line; or TOML with one [[probe]] table each for suites written by hand. What web_search finds
is fixed where a suite brings documents: a first line {"documents": FILE}, in TOML a key above the tables. Suites that
come with gradus go by their names alone (SUITES).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from gradus.conversation.checks import Check, Judge, ProbeCheck
from gradus.conversation.messages import Conversation, Message, ToolSchema, messages_from_json
from gradus.core.errors import ConfigError, DataError
from gradus.core.files import expand_path
from gradus.core.fingerprint import digest, file_digest
from gradus.core.settings import Settings, check_settings

SUITES = ("starter",)
"""Suites that come with gradus."""
TOTAL, PASS_RATE, LOOPS = "total", "pass_rate", "loops"
"""Names of measures beside those of categories."""


def _ends_with_the_user(messages: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    try:
        found = messages_from_json(messages, "messages")
    except DataError as error:
        raise ValueError(str(error)) from error
    if not found or found[-1].role != "user":
        raise ValueError(f"the last message must be the user's, found {found[-1].role if found else 'none'}")
    return messages


Question = Annotated[tuple[dict[str, Any], ...], AfterValidator(_ends_with_the_user)]
"""Messages as JSON, readable, of which the last is the user's."""


class Probe(Settings):
    """One question with its checks.

    Either `messages` (the last is the user's, earlier turns stand as written) or `turns` (user messages
    that the model answers one after another; the checks are on the last answer). think and tools: None
    leaves them to whoever runs the suite.
    """

    id: str = Field(min_length=1)
    category: str = Field(default="all", min_length=1)
    messages: Question | None = None
    turns: tuple[str, ...] | None = None
    think: bool | None = None
    tools: tuple[str, ...] | None = None
    samples: int = Field(default=1, ge=1)
    checks: tuple[ProbeCheck, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_question(self) -> Probe:
        if self.category in (TOTAL, PASS_RATE, LOOPS):
            raise ValueError(f'a category cannot be called "{self.category}", the name of a measure')
        if (self.messages is None) == (self.turns is None):
            raise ValueError("give either messages or turns")
        if self.turns is not None and (not self.turns or not all(turn.strip() for turn in self.turns)):
            raise ValueError("turns must hold user messages, none of them empty")
        return self

    def first_prompt(self, tools: tuple[ToolSchema, ...] = ()) -> Conversation:
        """What the model answers first: the messages, or the first of the turns."""
        if self.messages is not None:
            messages = messages_from_json(self.messages, "messages")
        else:
            messages = (Message("user", self.turns[0] if self.turns else ""),)
        return Conversation(messages, tools, id=self.id, think=self.think)

    @property
    def own_checks(self) -> tuple[Check, ...]:
        """The checks that the turn alone decides."""
        return tuple(check for check in self.checks if not isinstance(check, Judge))

    @property
    def judgements(self) -> tuple[Judge, ...]:
        """The checks that a judge decides."""
        return tuple(check for check in self.checks if isinstance(check, Judge))

    @property
    def later_turns(self) -> tuple[str, ...]:
        """User messages to ask after the first answer."""
        return self.turns[1:] if self.turns is not None else ()


@dataclass(frozen=True)
class Suite:
    """A named list of probes; `digest` identifies what is asked and checked.

    documents: a file of {"title", "url", "text"} records that web_search looks in while the suite is asked.
    """

    name: str
    probes: tuple[Probe, ...]
    digest: str
    documents: Path | None = None

    @property
    def num_judgements(self) -> int:
        """Checks that a judge decides, of an answer to each probe."""
        return sum(len(probe.judgements) for probe in self.probes)

    @property
    def categories(self) -> tuple[str, ...]:
        """In order of first appearance."""
        return tuple(dict.fromkeys(probe.category for probe in self.probes))


def suite_path(text: str, folder: Path) -> Path:
    """The file of a suite that an author named: one of SUITES, or a path from a folder."""
    if text in SUITES:
        return Path(str(resources.files("gradus.conversation").joinpath("suites", f"{text}.jsonl")))
    return expand_path(text, folder)


def load_suite(path: Path | str) -> Suite:
    """Read a suite; ConfigError with every problem as file:line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        known = ", ".join(SUITES)
        raise ConfigError(f"{path}: no such probe file; suites that come with gradus: {known}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    probes: list[Probe] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    documents: Path | None = None
    for line, row in _toml_rows(path, text) if path.suffix == ".toml" else _json_rows(path, text):
        if isinstance(row, str):
            problems.append(f"{path}:{line}: {row}")
            continue
        if set(row) == {"documents"} and not probes and documents is None:
            documents = path.parent / str(row["documents"])
            if not documents.is_file():
                problems.append(f"{path}:{line}: documents: no such file: {documents}")
            continue
        probe, found = check_settings(Probe, row)
        problems += [f"{path}:{line}: {problem.text}" for problem in found]
        if probe is None:
            continue
        if probe.id in lines:
            problems.append(f'{path}:{line}: id "{probe.id}" is used on line {lines[probe.id]} too')
        lines.setdefault(probe.id, line)
        probes.append(probe)
    if not probes and not problems:
        problems.append(f"{path}: holds no probe")
    if problems:
        raise ConfigError(problems)
    asked: Any = [probe.model_dump(mode="json") for probe in probes]
    if documents is not None:
        asked = [asked, file_digest(documents)]
    return Suite(path.stem, tuple(probes), digest(asked), documents)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, row or what is wrong with it)."""
    # Not splitlines: JSON may hold U+2028 and its like inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"not a line of JSON ({error})"
            continue
        yield number, row if isinstance(row, dict) else "expected an object {...}"


def _toml_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    rows = data.pop("probe", [])
    documents = {key: data.pop(key) for key in ("documents",) if key in data}
    if data or not isinstance(rows, list):
        raise ConfigError(f"{path}: expected only [[probe]] tables, found {', '.join(data) or 'probe'}")
    if documents:
        yield 1, documents
    heads = [n for n, line in enumerate(text.splitlines(), start=1) if line.replace(" ", "").startswith("[[probe]]")]
    for index, row in enumerate(rows):
        # An inline array `probe = [...]` has no heads; then the file's first line stands for all.
        yield heads[index] if len(heads) == len(rows) else 1, row
