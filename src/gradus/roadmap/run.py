"""The walk: what will run and why, then each stage in order, its gates, the report and the closing card.

runs/<roadmap>/roadmap.json   the walked roadmap: stages with fingerprints, inputs, settings, predictions
runs/<roadmap>/<stage>        points to artifacts/<kind>-<fingerprint>
runs/<roadmap>/ledger.jsonl   one line per event: walk, stage, result, gate, measure (see _Walk)
runs/<roadmap>/report.html    written after the last stage
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gradus.core.artifact import Artifact, begin_work, open_artifact, sweep_scratch
from gradus.core.comparison import named_measures
from gradus.core.errors import ArtifactError, ConfigError, GateFailedError, GradusError
from gradus.core.files import disk_full_error, is_disk_full, write_atomic
from gradus.core.gate import judge, without_items
from gradus.core.home import ARTIFACTS, LEDGER, LOCK, RUN_RECORD, RUNS
from gradus.core.ledger import Ledger
from gradus.core.lock import exclusive_lock
from gradus.core.machine import machine_facts, software_versions
from gradus.core.quantity import format_seconds
from gradus.roadmap.card import closing_card, run_command
from gradus.roadmap.kinds import stage_module
from gradus.roadmap.launched import Meeting, other_processes
from gradus.roadmap.memory_advice import is_out_of_memory, memory_advice
from gradus.roadmap.place import Place, now
from gradus.roadmap.plan import PlannedStage, choose_device, own_device, plan_roadmap, refuse_what_follows
from gradus.roadmap.plan_text import device_json
from gradus.roadmap.progress import Progress
from gradus.roadmap.pushing import pushing
from gradus.roadmap.schema import Roadmap
from gradus.roadmap.stage import Device, Inputs, Stage
from gradus.roadmap.status import (
    StageStatus,
    artifact_path,
    link_stage,
    parent_fingerprints,
    stage_status,
)
from gradus.roadmap.table import text_table
from gradus.roadmap.tracking import Track, tracking
from gradus.roadmap.workers import set_threads, worker_processes


@dataclass(frozen=True)
class WalkResult:
    """What a finished walk leaves: artifacts by stage name, the run folder, the report if one was written."""

    artifacts: dict[str, Artifact]
    run_dir: Path
    report: Path | None


@dataclass
class _Walk:
    """State of one walk. `accepted` is the user's reason to go on past failed gates, None to stop."""

    roadmap: Roadmap
    home: Path
    progress: Progress
    ledger: Ledger
    planned: dict[str, PlannedStage]
    device: Device
    accepted: str | None = None
    meeting: Meeting | None = None  # where a launcher started the other processes
    keeps: bool = True
    only: Sequence[str] = ()  # the stages that are walked alone; none: all
    track: Track | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)

    @property
    def artifacts_dir(self) -> Path:
        return self.home / ARTIFACTS

    @property
    def run_dir(self) -> Path:
        return self.home / RUNS / self.roadmap.name


def walk(
    roadmap: Roadmap,
    home: Path,
    progress: Progress,
    only: Sequence[str] = (),
    override: str | None = None,
    meeting: Meeting | None = None,
    *,
    keeps: bool = True,
) -> WalkResult:
    """Walk a roadmap, or some of its stages; finished stages are reused.

    only: names of stages, walked in the roadmap's order whatever theirs; none: all. override: a reason to go on past
    failed gates, kept in the ledger. meeting: with the other processes, where a launcher started them; this one is rank
    0. keeps: whether what is made stays, else no report is written and no word of resuming said (see dry_run). Errors:
    GateFailedError where a gate fails; GradusError of any kind from a stage, with its place; KeyboardInterrupt after a
    word on resuming.
    """
    run_dir = home / RUNS / roadmap.name
    named = {roadmap.stage(name).name for name in only}
    chosen = [stage for stage in roadmap.stages if not named or stage.name in named]
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        refusal = f'another walk of "{roadmap.name}" is going on (process {{pid}}); wait for it or stop it'
        with ExitStack() as held:
            # What is found there is held by the record once that is written: till then nothing may be deleted.
            waits = "waiting for process {pid}, which looks through artifacts/ too"
            with exclusive_lock(home / ARTIFACTS / LOCK, waits, progress.line):
                held.enter_context(exclusive_lock(run_dir / LOCK, refusal))
                device = choose_device(own_device(roadmap.machine, home), roadmap.machine, home)
                planned = {p.stage.name: p for p in plan_roadmap(roadmap, device, home / ARTIFACTS).stages}
                walking = _Walk(
                    roadmap, home, progress, Ledger(run_dir / LEDGER), planned, device, override, meeting, keeps, only
                )
                _begin(walking, chosen)
            return _walk(walking, chosen, finish=not only)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full_error(error, home) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise GradusError(
                f"{error.filename or home}: {error.strerror}; choose another folder with --home"
            ) from error
        raise


def _begin(walking: _Walk, chosen: list[Stage]) -> None:
    """Find what is made already, say what will run and why, and write the record."""
    roadmap = walking.roadmap
    statuses = {s.name: stage_status(roadmap, s, walking.artifacts_dir, walking.run_dir) for s in roadmap.stages}
    walking.artifacts = {name: s.artifact for name, s in statuses.items() if s.artifact is not None}
    walking.progress.line(_opening(walking, chosen, statuses))
    absent = [f"{s.place}: {s.absent}" for s in chosen if s.absent and s.name not in walking.artifacts]
    if absent:
        raise ConfigError(absent)
    _write_record(walking)


def _walk(walking: _Walk, chosen: list[Stage], finish: bool) -> WalkResult:
    roadmap = walking.roadmap
    walking.ledger.append(
        {"event": "walk", "time": now(), "roadmap": roadmap.name, "stages": [s.name for s in chosen],
         "machine": machine_facts(), "software": software_versions()}
    )  # fmt: skip
    set_threads(roadmap.machine.threads)
    with (
        pushing(roadmap, walking.home, walking.progress) as pusher,
        tracking(
            roadmap.track, roadmap.name, walking.run_dir, _made_with(roadmap), walking.progress.line
        ) as walking.track,
    ):
        try:
            for stage in chosen:
                _walk_stage(walking, stage)
                if pusher is not None:
                    pusher.look()
        except GateFailedError:
            # A failed gate leaves everything usable, the report on why included.
            if walking.keeps:
                _write_report(walking)
            raise
        report = _write_report(walking) if finish and walking.keeps else None
        if finish and walking.keeps:
            walking.progress.line(closing_card(roadmap, walking.artifacts, report, walking.home))
    return WalkResult(walking.artifacts, walking.run_dir, report)


def _walk_stage(walking: _Walk, stage: Stage) -> None:
    """Make or reuse one stage, record it, judge it."""
    _refuse_missing_inputs(walking, stage)
    if stage.name not in walking.artifacts:
        _run_stage(walking, stage)
    artifact = walking.artifacts[stage.name]
    _record_stage(walking, stage, artifact)
    if walking.keeps:
        sweep_scratch(artifact.path)
    link_stage(walking.run_dir, stage.name, artifact.path)
    _judge_gates(walking, stage, artifact)
    if not walking.only:
        refuse_what_follows(walking.roadmap, walking.planned, walking.artifacts, stage, walking.device)


def _opening(walking: _Walk, chosen: list[Stage], statuses: dict[str, StageStatus]) -> str:
    """The table that says what will run, why, and for about how long."""
    words = {"done": "reuse", "resume": "resume", "run": "run"}
    rows, left = [], 0.0
    for stage in chosen:
        status = statuses[stage.name]
        seconds = walking.planned[stage.name].estimate.seconds
        waits = status.state != "done" and seconds is not None
        left += (seconds or 0.0) if waits else 0.0
        rows.append([
            stage.name, stage.kind, words[status.state],
            f"about {format_seconds(seconds or 0)}" if waits else "",
            status.reason + (" (its files are not on this machine)" if stage.absent else ""),
        ])  # fmt: skip
    table = text_table(["stage", "kind", "", "time", "why"], rows)
    todo = sum(status.state != "done" for name, status in statuses.items() if name in {s.name for s in chosen})
    ending = f"{todo} to run, about {format_seconds(left)}" if todo else "everything is done already"
    return f"{walking.roadmap.name} ({walking.roadmap.path})\n\n{table}\n\n{ending}\n"


def _refuse_missing_inputs(walking: _Walk, stage: Stage) -> None:
    missing = [name for name in stage.parents if name not in walking.artifacts]
    if missing and stage.name not in walking.artifacts:
        raise ConfigError(
            f"{stage.place}: its input {', '.join(missing)} has not been made yet; "
            f"run the whole roadmap: {run_command(walking.roadmap, walking.home)}"
        )


# One stage


def _run_stage(walking: _Walk, stage: Stage) -> None:
    """Run one stage to its artifact, with the errors of anything inside told with the stage's place."""
    folder = artifact_path(walking.artifacts_dir, stage)
    lock = walking.artifacts_dir / ".locks" / folder.name
    sentence = f"{stage.place}: process {{pid}} is making the same artifact; waiting for it"
    with exclusive_lock(lock, sentence, walking.progress.line):
        if folder.exists():
            walking.artifacts[stage.name] = open_artifact(folder)
            return
        inputs = _open_inputs(walking, stage)
        work = begin_work(walking.artifacts_dir, stage_module(stage.kind).MAKES, stage.fingerprint)
        place = _place(walking, stage, work)
        walking.progress.line(f"{stage.name} ({stage.kind})")
        with (
            _told_with_place(walking, stage, place, inputs),
            place.memory.watching(),
            _other_processes(walking, stage, place),
        ):
            artifact: Artifact = stage_module(stage.kind).run(stage, inputs, place)
    if artifact.fingerprint != stage.fingerprint:
        raise ArtifactError(f"{stage.place}: the stage left an artifact that is not its own: {artifact.path}")
    walking.artifacts[stage.name] = artifact
    walking.verified.add(stage.name)
    walking.progress.line(f"  done in {format_seconds(artifact.manifest.seconds)}")


def _open_inputs(walking: _Walk, stage: Stage) -> Inputs:
    """The stage's input artifacts, every byte of them checked once a walk."""
    for name in stage.parents:
        if name not in walking.verified:
            artifact = walking.artifacts[name]
            walking.artifacts[name] = open_artifact(artifact.path, artifact.kind, verify=True)
            walking.verified.add(name)
    by_key = {
        key: tuple(walking.artifacts[r.stage] for r in references) for key, references in stage.references.items()
    }
    return Inputs(by_key, walking.artifacts)


def _other_processes(walking: _Walk, stage: Stage, place: Place) -> AbstractContextManager[None]:
    """The other data-parallel processes of a training stage; nothing where the roadmap asks for one."""
    module = stage_module(stage.kind)
    if walking.roadmap.machine.processes == 1 or not getattr(module, "PARALLEL", False):
        return nullcontext()
    place.world_size = walking.roadmap.machine.processes
    if walking.meeting is not None:
        return other_processes(walking.meeting, walking.roadmap, stage, place)
    return worker_processes(walking.roadmap, stage, place)


def _place(walking: _Walk, stage: Stage, work: Path) -> Place:
    module = stage_module(stage.kind)
    return Place(
        stage=stage,
        work=work,
        roadmap_dir=walking.roadmap.directory,
        home=walking.home,
        machine=walking.roadmap.machine,
        progress=walking.progress,
        ledger=walking.ledger,
        smoke=walking.roadmap.smoke,
        makes=module.MAKES,
        stage_version=module.VERSION,
        parents=parent_fingerprints(walking.roadmap, stage),
        track=walking.track,
    )


@contextmanager
def _told_with_place(walking: _Walk, stage: Stage, place: Place, inputs: Inputs) -> Iterator[None]:
    walking.progress.tick = place.tick
    try:
        yield
    except KeyboardInterrupt:
        after = f"the same command resumes it: {run_command(walking.roadmap, walking.home, walking.only)}"
        what = f"what it saved is kept, {after}" if walking.keeps else "nothing of it is kept"
        walking.progress.line(f'stopped in stage "{stage.name}" after {format_seconds(place.seconds)}; {what}')
        raise
    except (MemoryError, RuntimeError, GradusError) as error:
        if is_out_of_memory(error):
            advice = memory_advice(stage, inputs, walking.roadmap.machine.processes)
            raise GradusError(f"{stage.place}: {advice}") from error
        if not isinstance(error, GradusError):
            raise
        raise GradusError(f"{stage.place}: {error}") from error
    finally:
        walking.progress.tick = None


# Records


def _made_with(roadmap: Roadmap) -> dict[str, Any]:
    """Settings and seed of each stage by name, for trackers."""
    return {s.name: s.settings.model_dump(mode="json", by_alias=True) | {"seed": s.seed} for s in roadmap.stages}


def _write_record(walking: _Walk) -> None:
    """What was walked, for `--model NAME`, the report and the next plan."""
    stages = []
    for stage in walking.roadmap.stages:
        estimate = walking.planned[stage.name].estimate
        stages.append(
            {
                "name": stage.name,
                "kind": stage.kind,
                "makes": stage_module(stage.kind).MAKES,
                "fingerprint": stage.fingerprint,
                "artifact": artifact_path(walking.artifacts_dir, stage).name,
                "inputs": {key: [r.stage for r in refs] for key, refs in stage.references.items()},
                "gates": [gate.model_dump(mode="json", exclude_none=True) for gate in stage.gates],
                "seed": stage.seed,
                "settings": stage.settings.model_dump(mode="json", by_alias=True),
                "sources": dict(stage.sources),
                "predicted": asdict(estimate)
                | {"notes": list(estimate.notes)}
                | {"money": (estimate.seconds or 0.0) * walking.device.money_per_second + estimate.fees},
            }
        )
    roadmap = walking.roadmap
    record = {
        "name": roadmap.name,
        "smoke": roadmap.smoke,
        "seed": roadmap.seed,
        "path": str(roadmap.path),
        "description": roadmap.description,
        "machine": roadmap.machine.model_dump(mode="json"),
        "device": device_json(walking.device) | {"money_per_second": walking.device.money_per_second},
        "push": roadmap.push.model_dump(mode="json") if roadmap.push else None,
        "stages": stages,
    }
    write_atomic(walking.run_dir / RUN_RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _record_stage(walking: _Walk, stage: Stage, artifact: Artifact) -> None:
    """The finished stage and each of its measures into the ledger, once: also where another roadmap made it."""
    for record in walking.ledger.records():
        same = record.get("stage") == stage.name and record.get("fingerprint") == stage.fingerprint
        if same and record["event"] == "stage":
            return
    common = {"time": now(), "stage": stage.name, "fingerprint": stage.fingerprint}
    walking.ledger.append(
        {"event": "stage", **common, "kind": stage.kind, "artifact": artifact.path.name,
         "seconds": artifact.manifest.seconds,
         "predicted_seconds": walking.planned[stage.name].estimate.seconds}
    )  # fmt: skip
    told: dict[str, Any] = {}
    for name, found in named_measures(artifact.results, numbers=True).items():
        measure = without_items(found)
        # A number deep inside (a count by reason, a model's width) is a fact; the manifest has it.
        if "." in name and "n" not in measure:
            continue
        walking.ledger.append({"event": "result", **common, "measure": name, **measure})
        told[f"results/{name}"] = measure["value"]
    if walking.track is not None:
        walking.track(stage.name, int(artifact.results.get("steps") or 0), told)


def _judge_gates(walking: _Walk, stage: Stage, artifact: Artifact) -> None:
    """Judge every gate of a stage, record new verdicts, and stop at failed ones unless told to go on."""
    parents = {name: a.results for name, a in walking.artifacts.items() if name != stage.name}
    failures = []
    for gate in stage.gates:
        try:
            verdict = judge(gate, artifact.results, parents)
        except ConfigError as error:
            raise ConfigError(f"{stage.place}: gate: {error}") from None
        walking.progress.line(f"  gate {'passed' if verdict.passed else 'FAILED'}: {verdict.text}")
        record: dict[str, Any] = {
            "event": "gate",
            "stage": stage.name,
            "fingerprint": stage.fingerprint,
            "gate": gate.model_dump(mode="json", exclude_none=True),
            "passed": verdict.passed,
            "text": verdict.text,
        }
        if not verdict.passed:
            failures.append(verdict.text)
            if walking.accepted is not None:
                record["override"] = walking.accepted
        if record not in [{k: v for k, v in r.items() if k != "time"} for r in walking.ledger.records()]:
            walking.ledger.append({"time": now(), **record})
    if not failures:
        return
    if walking.roadmap.smoke:
        walking.progress.line("  (a smoke run goes on past failed gates: toy sizes reach no bar)")
    elif walking.accepted is not None:
        walking.progress.line(f'  going on: "{walking.accepted}" (recorded)')
    else:
        kept = f"Everything made so far is kept in {walking.run_dir}; " if walking.keeps else ""
        raise GateFailedError(
            f'{stage.place}: gate failed: {"; ".join(failures)}. {kept}go on past it with --override "reason"'
        )


def _write_report(walking: _Walk) -> Path:
    # Imported when needed: a walk that is stopped never writes one.
    from gradus.roadmap.report import write_report

    return write_report(walking.run_dir)
