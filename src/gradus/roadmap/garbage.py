"""Which artifacts of a home nothing needs any more, and deleting those. Mark and sweep, as of any garbage collector.

What is needed: the stages of the roadmaps that are given (of every run where none is), as their files say now, as they
were last walked and as the links of their runs point; what runs, serves, was deployed or waits to be pushed; what holds
a protected checkpoint; and everything that one of these was made from. A folder that gradus did not make stays.

artifacts/.deleted/    on the way out: renamed there, so that a kill leaves no half of an artifact under its name
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gradus.core.artifact import MANIFEST, VERIFIED, Manifest, open_artifact
from gradus.core.errors import ArtifactError, ConfigError, GradusError, did_you_mean
from gradus.core.home import (
    ARTIFACTS,
    CHECKPOINTS_FOLDER,
    DEPLOYED,
    DRY_HOME,
    GGUF_CACHE,
    LOCK,
    PROTECTED_FILE,
    REFERENCE_FOLDER,
    RUN_RECORD,
    RUNS,
    SOCKETS,
    WORK_SUFFIX,
)
from gradus.core.lock import exclusive_lock
from gradus.core.run_record import read_run_record
from gradus.release.parcels import PINS, checkpoint_steps
from gradus.release.push import read_status
from gradus.roadmap.schema import load_roadmap
from gradus.roadmap.status import artifact_path
from gradus.roadmap.watching import walking_process
from gradus.serve.deployments import Deployments

DELETED = ".deleted"
_ARTIFACT = re.compile(r"[a-z]+-[0-9a-f]{16}")

Needed = dict[str, str]
"""Folder name of an artifact, without ".work": why it is needed."""


@dataclass(frozen=True)
class Held:
    """A folder of artifacts/, made or in the making. stage: its name in the roadmap that made it, or "".

    started: the day, ISO 8601, or "". num_bytes: of its files. reason: why it is needed; "" if nothing needs it.
    """

    path: Path
    stage: str
    started: str
    num_bytes: int
    reason: str


@dataclass(frozen=True)
class Collection:
    """freed_bytes: what deleting the garbage gives back, less than its sizes together where files have two names.

    caches: bytes by folder of the home of what is made again where it lacks, and is never deleted here.
    """

    garbage: tuple[Held, ...]
    kept: tuple[Held, ...]
    freed_bytes: int
    caches: dict[str, int]


def collect_garbage(home: Path, roadmaps: Sequence[str], delete: bool, say: Callable[[str], None]) -> Collection:
    """Find what nothing needs, largest first, and delete it where that is asked for.

    roadmaps: files, names of runs, or ROADMAP/STAGE; none stands for every run of the home. say: told what is waited
    for. Errors: ConfigError for a roadmap that is wrong or unknown; GradusError where a server does not say what it
    serves, or a folder cannot be deleted.
    """
    folder = home / ARTIFACTS
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; --home says where artifacts/ and runs/ lie")
    waits = "waiting for process {pid}, which looks through artifacts/ too"
    with exclusive_lock(folder / LOCK, waits, say):
        found = _look(home, _needed(home, roadmaps))
        if delete:
            _put_aside(folder, [held.path for held in found.garbage])
    if delete:
        # After the lock: a large folder takes its time, and nobody looks in there.
        _remove(folder / DELETED)
    return found


# What is needed


def _needed(home: Path, roadmaps: Sequence[str]) -> Needed:
    needed: Needed = {}
    runs = _run_names(home)
    if not runs and not roadmaps:
        raise ConfigError(
            f"{home / RUNS}: no run is there, so everything would seem left over; bring runs/ back, or name the files "
            f"of the roadmaps that are needed; to delete everything, delete {home / ARTIFACTS}"
        )
    for name in roadmaps or runs:
        _add(needed, _of_roadmap(home, name), f"of {name}")
    for name in runs:
        process = walking_process(home / RUNS / name)
        if process is not None:
            _add(needed, _of_run(home, name), f"{name} is being walked (process {process})")
        waiting = (read_status(home, name) or {}).get("waiting", {})
        _add(
            needed, [Path(parcel).parts[1] for parcel in waiting if parcel.startswith(f"{ARTIFACTS}/")], "to be pushed"
        )
    # Folders of what was pushed stay there empty.
    pins = [path for path in (home / ARTIFACTS / PINS).glob(f"*{WORK_SUFFIX}") if checkpoint_steps(path)]
    _add(needed, [path.name for path in pins], "to be pushed")
    _add(needed, [path.name for path in home.glob(f"{DRY_HOME}*/{ARTIFACTS}/*")], "a dry run uses it")
    _add(needed, _within(home, _deployed(home)), "deployed")
    _add(needed, _within(home, _served(home)), "served")
    return needed


def _add(needed: Needed, names: Sequence[str], reason: str) -> None:
    for name in names:
        needed.setdefault(name.removesuffix(WORK_SUFFIX), reason)


def _run_names(home: Path) -> list[str]:
    """Of runs with a record, and of those that lost it and still point to their stages."""
    folders = [path for path in (home / RUNS).glob("*") if path.is_dir()]
    return sorted(
        folder.name
        for folder in folders
        if (folder / RUN_RECORD).is_file() or any(path.is_symlink() for path in folder.iterdir())
    )


def _of_roadmap(home: Path, text: str) -> list[str]:
    """Artifacts of a roadmap's file, of a run or of one of its stages. Errors: ConfigError."""
    file = Path(text).expanduser()
    if file.is_file():
        roadmap = load_roadmap(file, home=home)
        walked = _of_run(home, roadmap.name) if (home / RUNS / roadmap.name / RUN_RECORD).is_file() else []
        return [*(artifact_path(home / ARTIFACTS, stage).name for stage in roadmap.stages), *walked]
    name, _, stage = text.partition("/")
    known = _run_names(home)
    if name not in known:
        hint = did_you_mean(name, known) or (f"; runs are {', '.join(known)}" if known else "; none was walked yet")
        raise ConfigError(f'"{text}": expected the file of a roadmap or the name of a run, found neither{hint}')
    if not stage:
        return _of_run(home, name)
    link = home / RUNS / name / stage
    if not link.is_dir():
        raise ConfigError(f'"{text}": roadmap "{name}" has no finished stage "{stage}"')
    return _within(home, [link])


def _of_run(home: Path, name: str) -> list[str]:
    """What a run was last walked with, and what its stages point to until those are made. Errors: GradusError."""
    run = home / RUNS / name
    try:
        stages = read_run_record(run)["stages"]
    except (OSError, ArtifactError):
        raise GradusError(
            f"{run / RUN_RECORD}: cannot be read, so what it needs is unknown; walk the roadmap again, or move {run} "
            "away if nothing of it is needed"
        ) from None
    return [*(stage["artifact"] for stage in stages), *_within(home, [run / stage["name"] for stage in stages])]


def _within(home: Path, paths: Sequence[Path]) -> list[str]:
    """The artifacts in which folders lie, links followed; those that lie elsewhere left out."""
    folder = (home / ARTIFACTS).resolve()
    found: list[str] = []
    for path in paths:
        with suppress(ValueError):
            found += path.resolve().relative_to(folder).parts[:1]
    return found


def _deployed(home: Path) -> list[Path]:
    sources = Deployments(home / DEPLOYED).sources()
    return [path for source in sources for path in (source.folder, source.tokenizer)]


def _served(home: Path) -> list[Path]:
    """The folders of the models that servers of this home hold. Errors: GradusError where one does not answer."""
    if not any((home / SOCKETS).glob("*.sock")):
        return []
    # Imported when needed: with it comes torch.
    from gradus.serve.control import ask_server, running_servers

    found: list[Path] = []
    for port, socket in running_servers(home).items():
        try:
            models = [model for row in ask_server(socket, {"do": "models"}) for model in row["done"]["models"]]
        except (OSError, ValueError, KeyError) as error:
            raise GradusError(
                f"the server at port {port} does not say what it serves ({error}); stop it first"
            ) from None
        found += [Path(model[key]) for model in models for key in ("folder", "tokenizer")]
    return found


# What is there


def _look(home: Path, needed: Needed) -> Collection:
    folders = sorted(path for path in (home / ARTIFACTS).iterdir() if _is_artifact(path))
    manifests = {path.name: _manifest(path) for path in folders}
    for path in folders:
        if _is_protected(path, manifests[path.name]):
            needed.setdefault(path.name.removesuffix(WORK_SUFFIX), "holds a protected checkpoint")
    _add_ancestors(needed, manifests)
    garbage: list[Held] = []
    kept: list[Held] = []
    for path in folders:
        manifest, reason = manifests[path.name], needed.get(path.name.removesuffix(WORK_SUFFIX), "")
        size = sum(facts.st_size for facts in _files(path))
        stage, started = (manifest.name, manifest.started[:10]) if manifest else ("", "")
        (kept if reason else garbage).append(Held(path, stage, started, size, reason))
    garbage.sort(key=lambda held: (-held.num_bytes, held.path))
    doomed = [held.path for held in garbage]
    left = home / ARTIFACTS / DELETED
    freed = _freed_bytes([*doomed, *([left] if left.is_dir() else [])])
    return Collection(tuple(garbage), tuple(kept), freed, _cache_bytes(home))


def _cache_bytes(home: Path) -> dict[str, int]:
    sizes = {name: sum(facts.st_size for facts in _files(home / name)) for name in (GGUF_CACHE, REFERENCE_FOLDER)}
    return {name: size for name, size in sizes.items() if size}


def _is_artifact(path: Path) -> bool:
    return bool(_ARTIFACT.fullmatch(path.name.removesuffix(WORK_SUFFIX))) and path.is_dir() and not path.is_symlink()


def _manifest(path: Path) -> Manifest | None:
    """None where it is not finished, or damaged."""
    try:
        return open_artifact(path, verify=False).manifest if (path / MANIFEST).is_file() else None
    except ArtifactError:
        return None


def _is_protected(path: Path, manifest: Manifest | None) -> bool:
    protects = manifest is not None and bool(manifest.settings.get("protect"))
    return protects or any((path / CHECKPOINTS_FOLDER).glob(f"*/{PROTECTED_FILE}"))


def _add_ancestors(needed: Needed, manifests: dict[str, Manifest | None]) -> None:
    """Everything that something needed was made from, back to the raw text."""
    by_fingerprint = {manifest.fingerprint: name for name, manifest in manifests.items() if manifest is not None}
    open_names = list(needed)
    while open_names:
        name = open_names.pop()
        manifest = manifests.get(name)
        for parents in manifest.parents.values() if manifest is not None else ():
            for parent in [parents] if isinstance(parents, str) else parents:
                source = by_fingerprint.get(parent.partition("@")[0])
                if source is not None and source not in needed:
                    needed[source] = "those were made from"
                    open_names.append(source)


def _files(path: Path) -> Iterator[os.stat_result]:
    """The facts of every file below; a walk that goes on may take some away meanwhile."""
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                facts = os.lstat(os.path.join(folder, name))
                if stat.S_ISREG(facts.st_mode):
                    yield facts


def _freed_bytes(folders: Sequence[Path]) -> int:
    """Of the files of which no other name stays: artifacts that go on with one another share files by hard links."""
    names: dict[tuple[int, int], int] = {}
    freed = 0
    for folder in folders:
        for facts in _files(folder):
            names[facts.st_dev, facts.st_ino] = names.get((facts.st_dev, facts.st_ino), 0) + 1
            if names[facts.st_dev, facts.st_ino] == facts.st_nlink:
                freed += facts.st_size
    return freed


# Deleting


def _put_aside(folder: Path, paths: Sequence[Path]) -> None:
    (folder / DELETED).mkdir(exist_ok=True)
    for path in paths:
        try:
            os.rename(path, folder / DELETED / f"{path.name}-{secrets.token_hex(4)}")
        except OSError as error:
            raise GradusError(f"{path}: cannot be deleted ({error.strerror})") from None
        (folder / VERIFIED / f"{path.name}.json").unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass  # another collection takes the same things out
    except OSError as error:
        raise GradusError(
            f"{error.filename or folder}: cannot be deleted ({error.strerror}); the rest is deleted or lies in {folder}"
        ) from None
