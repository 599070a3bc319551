"""`--model NAME` (a roadmap's name, `roadmap/stage` or a folder) and `from = "stage"`, each with `@checkpoint`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gradus.core.artifact import MANIFEST, Artifact, open_artifact
from gradus.core.errors import ArtifactError, did_you_mean
from gradus.core.home import CHECKPOINTS_FOLDER, MODEL_FOLDER, RUN_RECORD, RUNS
from gradus.core.run_record import read_run_record, walked_runs
from gradus.roadmap.stage import Inputs, Stage


@dataclass(frozen=True)
class ModelReference:
    """A model found: its folder, the folder of its tokenizer (another for checkpoints), its name for the user."""

    folder: Path
    tokenizer: Path
    label: str


def resolve_model(reference: str, home: Path) -> ModelReference:
    """The model folder that a reference means.

    A roadmap's name means its last finished stage that holds a model. `@latest` is the finished model,
    `@best` and `@5568` are checkpoints kept beside it. Errors: ArtifactError with the nearest name.
    """
    name, _, checkpoint = reference.rpartition("@") if "@" in reference else (reference, "", "")
    base, label = _artifact_folder(name, home)
    if base is None:
        folder = Path(name).expanduser()
        return ModelReference(folder, folder, label)
    return _reference(base, checkpoint, label)


def models_of_roadmap(name: str, home: Path) -> list[str]:
    """ROADMAP/STAGE of every finished stage that holds a model, in order. Errors: ArtifactError where there is none."""
    run, _ = _run_folder(name, home, "no roadmap")
    found = [f"{run.name}/{stage}" for stage in _stage_names(run) if _has_model(run, stage)]
    if not found:
        raise ArtifactError(f'roadmap "{run.name}" has no finished stage with a model yet; run it: gradus run FILE')
    return found


def input_model(stage: Stage, inputs: Inputs, key: str = "from") -> ModelReference:
    """The model that a stage takes: the finished one of its input, or the checkpoint of it that it names."""
    reference = stage.references[key][0]
    return _reference(inputs[key].path, reference.checkpoint or "", reference.stage)


def training_state(model: ModelReference) -> Path:
    """The checkpoint folder that holds the optimizer's state of a stage's model. Errors: ArtifactError."""
    if model.folder != model.tokenizer:
        return model.folder.resolve()
    newest = newest_checkpoint(model.folder.parent)
    if newest is None:
        raise ArtifactError(
            f"{model.label} keeps no checkpoint, and so no state of its optimizer ({model.folder.parent}): its "
            "keep_checkpoints is 0"
        )
    return newest


def newest_checkpoint(folder: Path) -> Path | None:
    """The last step's checkpoint folder that an artifact keeps, or one in the making; None where there is none."""
    return max((folder / CHECKPOINTS_FOLDER).glob("step-????????"), default=None)


def named_checkpoint(base: Path, checkpoint: str, label: str) -> Path:
    """checkpoints/step-N of an artifact, its number with or without leading zeros, or another name there (best).

    Errors: ArtifactError with what there is.
    """
    folder = base / CHECKPOINTS_FOLDER
    kept = {_short(p.name): p for p in sorted(folder.iterdir()) if p.is_dir()} if folder.is_dir() else {}
    wanted = str(int(checkpoint)) if checkpoint.isdigit() else checkpoint
    if wanted in kept:
        return kept[wanted]
    listed = ", ".join("@" + name for name in ["latest", *kept])
    raise ArtifactError(f'{label} keeps no checkpoint "@{checkpoint}"; there are {listed}')


def _reference(base: Path, checkpoint: str, label: str) -> ModelReference:
    model = base / MODEL_FOLDER
    if checkpoint in ("", "latest"):
        return ModelReference(model, model, label)
    return ModelReference(named_checkpoint(base, checkpoint, label), model, f"{label}@{checkpoint}")


def resolve_stage(name: str, home: Path, kind: str) -> Artifact:
    """The artifact of a kind that ROADMAP/STAGE, a roadmap with one stage of that kind, or a folder means.

    Errors: ArtifactError with the nearest name; files are checked for their sizes, not their checksums.
    """
    path = Path(name).expanduser()
    if (path / MANIFEST).is_file():
        return open_artifact(path, kind, verify=False)
    run, stage = _run_folder(name, home, f"no {kind}")
    finished = {}
    for candidate in _stage_names(run):
        if (run / candidate / MANIFEST).is_file():
            finished[candidate] = (run / candidate).resolve()
    if stage:
        if stage in finished:
            return open_artifact(finished[stage], kind, verify=False)
        there = f"; finished stages are {', '.join(finished)}" if finished else "; none is finished yet"
        raise ArtifactError(
            f'roadmap "{run.name}" has no finished stage "{stage}"{did_you_mean(stage, finished) or there}'
        )
    fitting = [n for n, folder in finished.items() if folder.name.startswith(f"{kind}-")]
    if len(fitting) != 1:
        listed = ", ".join(f"{run.name}/{n}" for n in fitting) or "none is finished yet"
        raise ArtifactError(f'roadmap "{run.name}": name the stage, as in {run.name}/STAGE; {kind} stages: {listed}')
    return open_artifact(finished[fitting[0]], kind, verify=False)


def _run_folder(name: str, home: Path, missing: str) -> tuple[Path, str]:
    """(the folder of a roadmap in runs/, the stage that was named or ""). Errors: ArtifactError."""
    runs = home / RUNS
    known = walked_runs(home)
    roadmap, _, stage = name.partition("/")
    if missing != "no roadmap" and name.startswith(("/", "./", "../", "~")):
        there = "in this folder" if Path(name).expanduser().is_dir() else "and no such folder"
        raise ArtifactError(f"{name}: {missing} {there}; give a folder that holds one, or a roadmap's name")
    if roadmap not in known:
        hint = did_you_mean(roadmap, known)
        if not hint:
            hint = f"; there are {', '.join(known)}" if known else "; run a roadmap first: gradus run FILE"
            if stage and missing == "no model":
                hint += f' (a model of the Hub is taken in by a stage of kind "import" with take = "hub:{name}")'
        raise ArtifactError(f'{missing} "{name}" in {runs}{hint}')
    return runs / roadmap, stage


def _artifact_folder(name: str, home: Path) -> tuple[Path | None, str]:
    """(the artifact that holds model/, a label); None where the name is itself a model folder."""
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return None, path.name
    if (path / MODEL_FOLDER / "config.json").is_file():
        return path, path.name
    if path.exists() and not (home / RUNS / name.partition("/")[0] / RUN_RECORD).is_file():
        raise ArtifactError(f"{path}: this folder holds no model (no config.json, no {MODEL_FOLDER}/)")
    run, stage = _run_folder(name, home, "no model")
    return (_stage(run, stage), f"{run.name}/{stage}") if stage else _last_model(run)


def _stage_names(run: Path) -> list[str]:
    return [str(stage["name"]) for stage in read_run_record(run)["stages"]]


def _has_model(run: Path, stage: str) -> bool:
    return (run / stage / MODEL_FOLDER / "config.json").is_file()


def _last_model(run: Path) -> tuple[Path, str]:
    for stage in reversed(_stage_names(run)):
        if _has_model(run, stage):
            return (run / stage).resolve(), f"{run.name}/{stage}"
    raise ArtifactError(f'roadmap "{run.name}" has no finished stage with a model yet; run it: gradus run FILE')


def _stage(run: Path, stage: str) -> Path:
    names = _stage_names(run)
    finished = [name for name in names if _has_model(run, name)]
    if stage in finished:
        return (run / stage).resolve()
    there = f"; stages with a model are {', '.join(finished)}" if finished else "; none has a model yet"
    if stage in names:
        raise ArtifactError(f'stage "{stage}" of roadmap "{run.name}" holds no finished model{there}')
    raise ArtifactError(f'roadmap "{run.name}" has no stage "{stage}"{did_you_mean(stage, finished or names) or there}')


def _short(name: str) -> str:
    """5568 for step-00005568; other names as they are."""
    found = re.fullmatch(r"step-0*(\d+)", name)
    return found[1] if found else name
