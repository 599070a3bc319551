"""A roadmap loaded: every stage typed, its inputs resolved to earlier stages, and its fingerprint known.

All problems of a file are reported at once, each with its place. Nothing heavy is imported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.fingerprint import stage_fingerprint
from gradus.core.home import RUNS
from gradus.core.settings import Settings, check_settings
from gradus.release.settings import PushSettings
from gradus.roadmap.device_limits import machine_problems, stage_problems
from gradus.roadmap.draft import NAME, Draft, check_stage, reporter
from gradus.roadmap.layers import Layered, read_layers
from gradus.roadmap.place import MachineSettings
from gradus.roadmap.references import check_references
from gradus.roadmap.stage import Seed, Stage
from gradus.roadmap.tracking import TrackSettings
from gradus.roadmap.walked import walked_stages


class RoadmapHead(Settings):
    """The keys above the first stage. name: by default the file's name. push, track: nowhere if None."""

    name: str = ""
    description: str = ""
    extends: str | None = None
    seed: Seed = 0
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
    processes = (head.machine.processes if head else 1) if smoke else None
    drafts = [check_stage(layered, source, path.resolve().parent, processes, walked) for source in layered.stages]
    check_references(layered, drafts)
    if head is not None:
        _check_device(layered, head.machine, drafts)
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


def _check_device(layered: Layered, machine: MachineSettings, drafts: Sequence[Draft]) -> None:
    """Report what the device cannot do: of `[machine]`, and of the stages."""
    for path, text in machine_problems(machine):
        layered.problems.append(f"{layered.label(None, ('machine', *path))}: {text}")
    for draft in drafts:
        if draft.settings is not None:
            for path, text in stage_problems(machine, draft.kind, draft.settings):
                reporter(layered, draft.source)(path, text)


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
    if head is not None and head.name and not NAME.fullmatch(head.name):
        place = layered.label(None, ("name",))
        layered.problems.append(f'{place}: "{head.name}" cannot be a folder name; use letters, digits, - and _')
    return head


def _identified(layered: Layered, drafts: list[Draft], seed: int) -> tuple[Stage, ...]:
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
