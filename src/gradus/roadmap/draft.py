"""One stage of a roadmap's file on its way: its settings typed, its gates, the stages that it names, its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from gradus.core.errors import did_you_mean
from gradus.core.gate import Gate
from gradus.core.settings import KeyPath, Settings, check_settings
from gradus.roadmap.kinds import KINDS, stage_module
from gradus.roadmap.layers import OVERRIDABLE, Layered, StageData
from gradus.roadmap.stage import Input, Reference, Seed, SourceError
from gradus.roadmap.walked import Walked, walked_sources

RESERVED = ("name", "kind", "seed", "gate")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of a roadmap or stage: those become names of folders


class _Seeded(Settings):
    seed: Seed


@dataclass
class Draft:
    """A stage on its way: what has been found out so far."""

    source: StageData
    name: str
    module: ModuleType | None = None
    settings: Any = None
    gates: tuple[Gate, ...] = ()
    seed: int | None = None
    references: dict[str, list[Reference]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    absent: str = ""

    @property
    def kind(self) -> str:
        return str(self.source.data.get("kind", ""))

    @property
    def makes(self) -> str:
        return str(self.module.MAKES) if self.module else ""


def check_stage(
    layered: Layered, source: StageData, roadmap_dir: Path, smoke: int | None, walked: Mapping[str, Walked]
) -> Draft:
    """Type what a stage's table says; what is wrong with it goes to the problems of the file.

    smoke: the number of processes of a smoke run, None for a real one. walked: what the last walk knew of the stages,
    by name.
    """
    data = source.data
    report = reporter(layered, source)
    name = data.get("name")
    draft = Draft(source, name if isinstance(name, str) else "")
    if name is None:
        report((), 'missing key "name"')
    elif not isinstance(name, str) or not NAME.fullmatch(name) or name in OVERRIDABLE:
        report(("name",), f"a stage cannot be called {name!r}; use letters, digits, - and _, and none of "
               f"{', '.join(OVERRIDABLE)}")  # fmt: skip
    if "seed" in data:
        seeded, problems = check_settings(_Seeded, {"seed": data["seed"]})
        draft.seed = None if seeded is None else seeded.seed
        for problem in problems:
            report(problem.path, problem.text)
    draft.gates = _check_gates(data.get("gate", []), report)
    kind = data.get("kind")
    if kind is None:
        report((), f'missing key "kind"; kinds are {", ".join(KINDS)}')
        return draft
    if kind not in KINDS:
        hint = did_you_mean(str(kind), KINDS) or f"; kinds are {', '.join(KINDS)}"
        report(("kind",), f'unknown kind "{kind}"{hint}')
        return draft
    draft.module = stage_module(kind)
    _check_own_settings(draft, report, smoke)
    if smoke is not None:
        # A toy run has other steps than the ones whose checkpoints are named.
        draft.references = {k: [replace(r, checkpoint=None) for r in refs] for k, refs in draft.references.items()}
    if draft.settings is not None:
        before = walked_sources(walked.get(draft.name, {}), kind, draft.settings)
        try:
            draft.sources = dict(draft.module.sources(draft.settings, roadmap_dir))
            if hasattr(draft.module, "pinned"):
                draft.sources |= draft.module.pinned(draft.settings, before)
        except SourceError as error:
            draft.sources = before
            if draft.sources:
                draft.absent = "; ".join(problem.text for problem in error.problems)
                return draft
            for problem in error.problems:
                report(problem.path, f'"{key_text(problem.path)}": {problem.text}')
    return draft


Report = Callable[[KeyPath, str], None]


def reporter(layered: Layered, source: StageData) -> Report:
    """What adds a problem of a stage, with the place of a key, to the file's."""

    def report(path: KeyPath, text: str) -> None:
        layered.problems.append(f"{layered.label(source, path)}: {text}")

    return report


def key_text(path: KeyPath) -> str:
    """mixture[0].source for ("mixture", 0, "source")."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def _check_gates(data: Any, report: Report) -> tuple[Gate, ...]:
    if not isinstance(data, list) or not all(isinstance(g, dict) for g in data):
        report(("gate",), 'gates are written as [[stage.gate]] tables, or gate = [{ measure = "..." }]')
        return ()
    gates = []
    for index, table in enumerate(data):
        gate, found = check_settings(Gate, table)
        for problem in found:
            report(("gate", index, *problem.path), f"gate: {problem.text}")
        if gate is not None:
            gates.append(gate)
    return tuple(gates)


def _check_own_settings(draft: Draft, report: Report, smoke: int | None) -> None:
    """Take the inputs out of a stage's table, and type the rest."""
    assert draft.module is not None
    inputs: tuple[Input, ...] = draft.module.INPUTS
    settings_class: type[Settings] = draft.module.Settings
    plain = {i.key: i for i in inputs if i.nested is None}
    fields = [f.alias or name for name, f in settings_class.model_fields.items()]
    known = [*plain, *fields]
    rest = {}
    for key, value in draft.source.data.items():
        if key in plain:
            _read_input(draft, plain[key], value, report)
        elif key in fields:
            rest[key] = value
        elif key not in RESERVED:
            hint = did_you_mean(key, [*known, *RESERVED]) or f"; keys of {draft.kind} stages are {', '.join(known)}"
            report((key,), f'unknown key "{key}"{hint}')
    for key, declared in plain.items():
        if declared.required and key not in draft.source.data:
            report((), f'missing key "{key}", the name of an earlier stage that makes {an_artifact(declared.kinds)}')
    settings, found = check_settings(settings_class, rest)
    for problem in found:
        report(problem.path, problem.text)
    for declared in inputs:
        if declared.nested is not None:
            _read_nested(draft, declared, rest)
    if settings is not None:
        draft.settings = settings if smoke is None else settings.smoke_of(smoke)  # type: ignore[attr-defined]


def _read_input(draft: Draft, declared: Input, value: Any, report: Report) -> None:
    if declared.many:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            report((declared.key,), f'"{declared.key}": expected a list of stage names, ["..."], found {value!r}')
            return
        for index, text in enumerate(value):
            _refer(draft, declared, text, (declared.key, index))
    elif not isinstance(value, str):
        report((declared.key,), f'"{declared.key}": expected the name of an earlier stage, found {value!r}')
    else:
        _refer(draft, declared, value, (declared.key,))


def _read_nested(draft: Draft, declared: Input, data: Mapping[str, Any]) -> None:
    """Mentions of stages inside a list of tables; wrong types there are the settings' own problem."""
    assert declared.nested is not None
    head, tail = declared.nested
    entries = data.get(head, [])
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        text = entry.get(tail) if isinstance(entry, dict) else None
        if isinstance(text, str):
            _refer(draft, declared, text, (head, index, tail))


def _refer(draft: Draft, declared: Input, text: str, path: KeyPath) -> None:
    prefix, colon, _ = text.partition(":")
    if colon and prefix in declared.outside:
        return
    stage, _, checkpoint = text.partition("@")
    draft.references.setdefault(declared.key, []).append(Reference(stage, checkpoint or None, path))


def an_artifact(kinds: Sequence[str]) -> str:
    """What is expected, in words: "a pool or corpus artifact"."""
    article = "an" if kinds[0][0] in "aeiou" else "a"
    return f"{article} {either(kinds)} artifact"


def either(names: Sequence[str]) -> str:
    """a, b or c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
