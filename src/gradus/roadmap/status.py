"""What a walk will do with each stage, and why: done, resumed, new, or made again after a change."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradus.core.artifact import MANIFEST, Artifact, Manifest, folder_name, open_artifact
from gradus.core.errors import ArtifactError
from gradus.core.home import WORK_SUFFIX
from gradus.core.quantity import format_seconds
from gradus.roadmap.kinds import stage_module
from gradus.roadmap.schema import Roadmap
from gradus.roadmap.stage import Stage


@dataclass(frozen=True)
class StageStatus:
    """The state of one stage before a walk, with the reason in words."""

    state: Literal["done", "resume", "run"]
    reason: str
    artifact: Artifact | None = None


def artifact_path(artifacts_dir: Path, stage: Stage) -> Path:
    """Where a stage's artifact lies once committed."""
    return artifacts_dir / folder_name(stage_module(stage.kind).MAKES, stage.fingerprint)


def stage_status(roadmap: Roadmap, stage: Stage, artifacts_dir: Path, run_dir: Path) -> StageStatus:
    """Look for the stage's artifact, its unfinished work, or what it was made from before.

    Errors: ArtifactError where the artifact is there and damaged.
    """
    path = artifact_path(artifacts_dir, stage)
    if path.exists():
        artifact = open_artifact(path, stage_module(stage.kind).MAKES, verify=False)
        took = format_seconds(artifact.manifest.seconds)
        return StageStatus("done", f"done in {took} on {artifact.manifest.started[:10]}, reused", artifact)
    changes = _changes(roadmap, stage, run_dir)
    work = path.with_name(path.name + WORK_SUFFIX)
    if work.is_dir() and any(work.iterdir()):
        return StageStatus("resume", f"resumes in {work.name}" + (f" ({changes})" if changes else ""))
    return StageStatus("run", changes or "new")


def _changes(roadmap: Roadmap, stage: Stage, run_dir: Path) -> str:
    """In what the stage differs from its last finished run under this roadmap; '' where there is none."""
    before = _last_manifest(run_dir / stage.name)
    if before is None:
        return ""
    module = stage_module(stage.kind)
    if before.kind != module.MAKES:
        return f"kind changed from {before.kind} to {module.MAKES}"
    found = []
    if before.stage_version != module.VERSION:
        found.append(f"gradus changed this stage (version {before.stage_version} to {module.VERSION})")
    if before.seed != stage.seed:
        found.append(f"seed changed from {before.seed} to {stage.seed}")
    now = stage.settings.model_dump(mode="json", by_alias=True)
    found += differences(before.settings, now)
    # A path that is new or gone shows in the settings already.
    for label in sorted(before.sources.keys() & stage.sources.keys()):
        if before.sources[label] != stage.sources[label]:
            found.append(f"files of {label} changed")
    found += _changed_inputs(roadmap, stage, before)
    if len(found) > 3:
        found = [*found[:3], f"and {len(found) - 3} more"]
    return ", ".join(found) or "its last result is gone"


def _changed_inputs(roadmap: Roadmap, stage: Stage, before: Manifest) -> list[str]:
    now = parent_fingerprints(roadmap, stage)
    changed = []
    for key in dict.fromkeys([*before.parents, *now]):
        if before.parents.get(key) == now.get(key):
            continue
        names = [r.stage for r in stage.references.get(key, ())]
        old, new = _as_list(before.parents.get(key)), _as_list(now.get(key))
        if len(old) == len(new):
            names = [name for name, a, b in zip(names, old, new, strict=True) if a != b]
        changed.append(f"input {', '.join(names)} changed" if names else f"input {key} left out")
    return changed


def _as_list(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value


def parent_fingerprints(roadmap: Roadmap, stage: Stage) -> dict[str, str | list[str]]:
    """Fingerprints of a stage's inputs by key, as manifests record them."""
    known = {s.name: s.fingerprint for s in roadmap.stages}
    found: dict[str, str | list[str]] = {}
    for key, references in stage.references.items():
        found[key] = [known[r.stage] + (f"@{r.checkpoint}" if r.checkpoint else "") for r in references]
    return found


def _last_manifest(link: Path) -> Manifest | None:
    """The manifest that runs/<roadmap>/<stage> points to; None where it points to nothing readable."""
    try:
        body = json.loads((link / MANIFEST).read_text(encoding="utf-8"))
        body.pop("checksum", None)
        return Manifest.model_validate(body)
    except (OSError, ValueError):
        return None


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Changed settings in words: `epochs changed from 6 to 8`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found = []
        for key in dict.fromkeys([*before, *now]):
            found += differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
        return found
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        found = []
        for index, (a, b) in enumerate(zip(before, now, strict=True)):
            found += differences(a, b, f"{path}[{index}]")
        return found
    if before == now:
        return []
    return [f"{path} changed from {_short(before)} to {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return "nothing" if value is None else text if len(text) <= 40 else text[:37] + "..."


def link_stage(run_dir: Path, name: str, target: Path) -> None:
    """Point runs/<roadmap>/<stage> at an artifact, replacing an older pointer in one step."""
    link = run_dir / name
    relative = os.path.relpath(target, run_dir)
    if (run_dir.resolve() / relative).resolve() != target.resolve():
        # runs/ is itself a link, and what a link holds is followed from where the folder really lies.
        relative = os.path.relpath(target.resolve(), run_dir.resolve())
    if link.is_symlink() and os.readlink(link) == relative:
        return
    if link.exists() and not link.is_symlink():
        raise ArtifactError(f"{link}: expected a link that gradus made, found something else; move it away")
    temporary = run_dir / f".{name}.link-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(relative, target_is_directory=True)
    os.replace(temporary, link)
