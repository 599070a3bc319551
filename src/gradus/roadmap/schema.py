"""A roadmap loaded: every stage typed, its inputs resolved to earlier stages, and its fingerprint known.

All problems of a file are reported at once, each with its place. Nothing heavy is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.fingerprint import stage_fingerprint
from gradus.core.gate import Gate
from gradus.core.home import RUNS
from gradus.core.settings import KeyPath, Settings, check_settings
from gradus.release.settings import PushSettings
from gradus.roadmap.kinds import KINDS, stage_module
from gradus.roadmap.layers import OVERRIDABLE, Layered, StageData, read_layers
from gradus.roadmap.place import MachineSettings
from gradus.roadmap.stage import Input, Reference, SourceError, Stage
from gradus.roadmap.tracking import TrackSettings
from gradus.roadmap.walked import Walked, walked_sources, walked_stages
from gradus.roadmap.xla_limits import machine_problems, stage_problems

RESERVED = ("name", "kind", "seed", "gate")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class RoadmapHead(Settings):
    """The keys above the first stage. name: by default the file's name. push, track: nowhere if None."""

    name: str = ""
    description: str = ""
    extends: str | None = None
    seed: int = 0
    machine: MachineSettings = MachineSettings()
    push: PushSettings | None = None
    track: TrackSettings | None = None


@dataclass(frozen=True)
class Roadmap:
    """A checked roadmap; `path` is its file, relative paths in it start at `directory`."""

    name: str
    seed: int
    machine: MachineSettings
    stages: tuple[Stage, ...]
    path: Path
    smoke: bool = False
    description: str = ""
    overrides: tuple[str, ...] = ()
    push: PushSettings | None = None
    track: TrackSettings | None = None

    @property
    def directory(self) -> Path:
        return self.path.resolve().parent

    def stage(self, name: str) -> Stage:
        """A stage by name. Errors: ConfigError with the nearest name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        hint = did_you_mean(name, names) or f"; stages are {', '.join(names)}"
        raise ConfigError(f'{self.path}: no stage "{name}"{hint}')


@dataclass
class _Draft:
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


def load_roadmap(path: Path, overrides: Sequence[str] = (), smoke: bool = False, home: Path | None = None) -> Roadmap:
    """Read, check and identify a roadmap. Errors: ConfigError, all problems at once.

    overrides: texts such as `chat.epochs=3`, `machine.threads=1`, `seed=2`, newest last.
    smoke: every stage at toy size; the roadmap's name then ends in `-smoke`.
    home: where it was walked or pulled to. A stage whose files are not on this machine, and which was walked there
    with the same settings, keeps the identity that it had; `Stage.absent` then says what is missing.
    """
    layered = read_layers(path, overrides)
    problems = layered.problems
    head = _check_head(layered)
    walked = walked_stages(home / RUNS / _full_name(head, path, smoke)) if home and head else {}
    drafts = [_check_stage(layered, source, path.resolve().parent, smoke, walked) for source in layered.stages]
    _check_references(layered, drafts)
    if head is not None and head.machine.device == "xla":
        _check_xla(layered, head.machine, drafts)
    if not layered.stages and not problems:
        problems.append(f"{path}:1: a roadmap needs at least one [[stage]]")
    if head is None or problems:
        raise ConfigError(_in_order(problems))
    return Roadmap(
        name=_full_name(head, path, smoke),
        seed=head.seed,
        machine=head.machine,
        stages=_identified(layered, drafts, head.seed),
        path=path,
        smoke=smoke,
        description=head.description,
        overrides=tuple(overrides),
        push=head.push,
        track=head.track,
    )


def _check_xla(layered: Layered, machine: MachineSettings, drafts: Sequence[_Draft]) -> None:
    """Report what the device cannot do: of `[machine]`, and of the stages."""
    for path, text in machine_problems(machine):
        layered.problems.append(f"{layered.label(None, ('machine', *path))}: {text}")
    for draft in drafts:
        if draft.settings is not None:
            for path, text in stage_problems(draft.kind, draft.settings):
                _reporter(layered, draft.source)(path, text)


def _full_name(head: RoadmapHead, path: Path, smoke: bool) -> str:
    return (head.name or path.stem) + ("-smoke" if smoke else "")


def _in_order(problems: list[str]) -> list[str]:
    """Problems by file and line, each once; overrides and the like keep their order at the end."""

    def key(text: str) -> tuple[int, str, int]:
        found = re.match(r"(.*?\.toml):(\d+)", text)
        return (0, found[1], int(found[2])) if found else (1, "", 0)

    return sorted(dict.fromkeys(problems), key=key)


def _check_head(layered: Layered) -> RoadmapHead | None:
    head, found = check_settings(RoadmapHead, layered.top)
    for problem in found:
        layered.problems.append(f"{layered.label(None, problem.path)}: {problem.text}")
    if head is not None and head.name and not _NAME.fullmatch(head.name):
        place = layered.label(None, ("name",))
        layered.problems.append(f'{place}: "{head.name}" cannot be a folder name; use letters, digits, - and _')
    return head


# One stage


def _check_stage(
    layered: Layered, source: StageData, roadmap_dir: Path, smoke: bool, walked: Mapping[str, Walked]
) -> _Draft:
    data = source.data
    report = _reporter(layered, source)
    name = data.get("name")
    draft = _Draft(source, name if isinstance(name, str) else "")
    if name is None:
        report((), 'missing key "name"')
    elif not isinstance(name, str) or not _NAME.fullmatch(name) or name in OVERRIDABLE:
        report(("name",), f"a stage cannot be called {name!r}; use letters, digits, - and _, and none of "
               f"{', '.join(OVERRIDABLE)}")  # fmt: skip
    if "seed" in data:
        if isinstance(data["seed"], int) and not isinstance(data["seed"], bool):
            draft.seed = data["seed"]
        else:
            report(("seed",), f'"seed": expected a whole number, found {data["seed"]!r}')
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
    if smoke:
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
                report(problem.path, f'"{_key_text(problem.path)}": {problem.text}')
    return draft


Report = Callable[[KeyPath, str], None]


def _reporter(layered: Layered, source: StageData) -> Report:
    def report(path: KeyPath, text: str) -> None:
        layered.problems.append(f"{layered.label(source, path)}: {text}")

    return report


def _key_text(path: KeyPath) -> str:
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


def _check_own_settings(draft: _Draft, report: Report, smoke: bool) -> None:
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
            report((), f'missing key "{key}", the name of an earlier stage that makes {_a(declared.kinds)}')
    settings, found = check_settings(settings_class, rest)
    for problem in found:
        report(problem.path, problem.text)
    for declared in inputs:
        if declared.nested is not None:
            _read_nested(draft, declared, rest)
    if settings is not None:
        draft.settings = settings.smoke() if smoke else settings  # type: ignore[attr-defined]


def _read_input(draft: _Draft, declared: Input, value: Any, report: Report) -> None:
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


def _read_nested(draft: _Draft, declared: Input, data: Mapping[str, Any]) -> None:
    """Mentions of stages inside a list of tables; wrong types there are the settings' own problem."""
    assert declared.nested is not None
    head, tail = declared.nested
    entries = data.get(head, [])
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        text = entry.get(tail) if isinstance(entry, dict) else None
        if isinstance(text, str):
            _refer(draft, declared, text, (head, index, tail))


def _refer(draft: _Draft, declared: Input, text: str, path: KeyPath) -> None:
    prefix, colon, _ = text.partition(":")
    if colon and prefix in declared.outside:
        return
    stage, _, checkpoint = text.partition("@")
    draft.references.setdefault(declared.key, []).append(Reference(stage, checkpoint or None, path))


# References between stages


def _check_references(layered: Layered, drafts: list[_Draft]) -> None:
    positions = {d.name: i for i, d in reversed(list(enumerate(drafts))) if d.name}
    in_circles = _report_circles(layered, drafts, positions)
    for index, draft in enumerate(drafts):
        report = _reporter(layered, draft.source)
        earlier = [d for d in drafts[:index] if d.name]
        for key, references in draft.references.items():
            assert draft.module is not None
            declared = next(i for i in draft.module.INPUTS if i.key == key)
            for reference in references:
                _check_reference(declared, reference, drafts, positions, index, earlier, in_circles, report)
        for number, gate in enumerate(draft.gates):
            other = gate.not_worse_than
            if other is not None and other not in [d.name for d in earlier]:
                path: KeyPath = ("gate", number, "not_worse_than")
                hint = did_you_mean(other, [d.name for d in earlier])
                report(path, f'gate: "not_worse_than" needs an earlier stage, found "{other}"{hint}')


def _check_reference(
    declared: Input,
    reference: Reference,
    drafts: list[_Draft],
    positions: Mapping[str, int],
    index: int,
    earlier: list[_Draft],
    in_circles: set[str],
    report: Report,
) -> None:
    name, written = reference.stage, _key_text(reference.path)
    fitting = [d.name for d in earlier if not d.makes or d.makes in declared.kinds]
    position = positions.get(name)
    if reference.checkpoint is not None and declared.key != "from":
        report(reference.path, f'"{written}": only `from` takes a checkpoint; leave out "@{reference.checkpoint}"')
    if position is None:
        hint = did_you_mean(name, fitting) or did_you_mean(name, positions)
        if not hint:
            hint = f"; earlier stages that fit: {', '.join(fitting)}" if fitting else "; no earlier stage fits"
        report(reference.path, f'"{written}": no stage is called "{name}"{hint}')
    elif position >= index:
        if name not in in_circles:
            place = drafts[position].source
            report(
                reference.path,
                f'"{written}": stage "{name}" stands later (at {_newest_place(place)}); '
                "a stage takes its inputs from earlier ones: move it up",
            )
    elif drafts[position].makes and drafts[position].makes not in declared.kinds:
        quoted = [f'"{name}"' for name in fitting]
        hint = f"; did you mean {_either(quoted)}?" if fitting else ""
        report(
            reference.path,
            f'"{written}": expected {_a(declared.kinds)}, but stage "{name}" makes '
            f"{_a((drafts[position].makes,))}{hint}",
        )


def _newest_place(source: StageData) -> str:
    return next((label for path, label in source.marks if path == ()), "the end")


def _report_circles(layered: Layered, drafts: list[_Draft], positions: Mapping[str, int]) -> set[str]:
    """Report each circle of inputs once, at its first stage; the names of all stages in circles."""
    edges = {d.name: [r.stage for refs in d.references.values() for r in refs if r.stage in positions] for d in drafts}
    circles: set[str] = set()
    for draft in drafts:
        if draft.name in circles or not draft.name:
            continue
        circle = _path_back(draft.name, edges)
        if circle:
            circles.update(circle)
            report = _reporter(layered, draft.source)
            first = next(r for refs in draft.references.values() for r in refs if r.stage == circle[0])
            text = " -> ".join([draft.name, *circle])
            report(first.path, f'"{_key_text(first.path)}": the inputs go in a circle: {text}')
    return circles


def _path_back(start: str, edges: Mapping[str, list[str]]) -> list[str]:
    """The shortest way from a stage along its inputs back to itself, without the start; [] if none."""
    ways = [[name] for name in edges[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, name] for name in edges.get(way[-1], [])]
    return []


def _a(kinds: Sequence[str]) -> str:
    article = "an" if kinds[0][0] in "aeiou" else "a"
    return f"{article} {_either(kinds)} artifact"


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


# Identity


def _identified(layered: Layered, drafts: list[_Draft], seed: int) -> tuple[Stage, ...]:
    """Stages with fingerprints, each over its parents' fingerprints."""
    known: dict[str, str] = {}
    makes = {draft.name: draft.module.MAKES for draft in drafts if draft.module is not None}
    stages = []
    for draft in drafts:
        assert draft.module is not None
        stage_seed = seed if draft.seed is None else draft.seed
        references = {key: tuple(refs) for key, refs in draft.references.items()}
        parents = {
            key: [known[r.stage] + (f"@{r.checkpoint}" if r.checkpoint else "") for r in refs]
            for key, refs in references.items()
        }
        fingerprint = stage_fingerprint(
            kind=draft.kind,
            version=draft.module.VERSION,
            # Names inside lists of tables stay in: stages label what they mix by them.
            settings=draft.settings.model_dump(mode="json", by_alias=True),
            seed=stage_seed,
            sources=draft.sources,
            parents=parents,
        )
        known[draft.name] = fingerprint
        own_gates = getattr(draft.module, "own_gates", lambda parents: ())
        kinds = {key: [makes[reference.stage] for reference in refs] for key, refs in references.items()}
        stages.append(
            Stage(
                name=draft.name,
                kind=draft.kind,
                settings=draft.settings,
                seed=stage_seed,
                fingerprint=fingerprint,
                references=references,
                gates=(*draft.gates, *own_gates(kinds)),
                sources=draft.sources,
                absent=draft.absent,
                directory=layered.path.resolve().parent,
                place=layered.label(draft.source, ()),
            )
        )
    return tuple(stages)
