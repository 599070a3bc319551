"""Artifacts: immutable folders with a manifest written last, so that a manifest means complete.

artifacts/<kind>-<first 16 of the fingerprint>.work/   being made; survives a kill; scratch/ inside it is
                                                       for what resuming needs and the result does not
artifacts/<kind>-<first 16 of the fingerprint>/        committed; files checksummed in manifest.json
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from gradus.core.errors import ArtifactError, ConfigError
from gradus.core.files import fsync_file, fsync_folder, utf8, write_atomic
from gradus.core.fingerprint import digest, file_digest
from gradus.core.home import WORK_SUFFIX
from gradus.core.settings import Settings, load_settings

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SCRATCH = "scratch"
VERIFIED = ".verified"
# Files from this size on are read for their checksum once, and then only when they have changed.
LARGE_BYTES = 1 << 26


class FileEntry(Settings):
    """Size and SHA-256 of one file of an artifact."""

    bytes: int
    sha256: str


class Manifest(Settings):
    """What an artifact is, what it came from, and what was measured while it was made."""

    # A number that is not finite must be seen and refused, not silently written as null.
    model_config = ConfigDict(ser_json_inf_nan="constants")

    format_version: int = FORMAT_VERSION
    kind: str
    stage_version: int = 1
    name: str = ""
    fingerprint: str
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    parents: dict[str, str | list[str]] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    software: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0
    files: dict[str, FileEntry] = Field(default_factory=dict)
    results: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: where it lies and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def results(self) -> dict[str, Any]:
        return self.manifest.results

    def parent(self, key: str) -> str | None:
        """The fingerprint of the input of a key, the first of several; None where it has none."""
        parents = self.manifest.parents.get(key)
        one = next(iter(parents), None) if isinstance(parents, list) else parents
        return one.partition("@")[0] if one else None

    def file(self, name: str) -> Path:
        """A file or folder inside the artifact; ArtifactError where it holds none of that name."""
        if name in self.manifest.files or any(known.startswith(name + "/") for known in self.manifest.files):
            return self.path / name
        raise ArtifactError(
            f'{self.path}: this {self.kind} artifact holds no "{name}"; '
            f"it holds {', '.join(sorted({k.split('/')[0] for k in self.manifest.files})) or 'no files'}"
        )


def folder_name(kind: str, fingerprint: str) -> str:
    """The folder name of an artifact: kind and the first 16 digits of its fingerprint."""
    return f"{kind}-{fingerprint[:16]}"


def begin_work(artifacts_dir: Path, kind: str, fingerprint: str) -> Path:
    """The work folder of an artifact, made or, after an interruption, found with what it held."""
    work = artifacts_dir / f"{folder_name(kind, fingerprint)}{WORK_SUFFIX}"
    work.mkdir(parents=True, exist_ok=True)
    # A kill between manifest and rename leaves a manifest; the stage finishes again and writes its own.
    (work / MANIFEST).unlink(missing_ok=True)
    return work


def commit_artifact(work: Path, *, kind: str, fingerprint: str, final: Path | None = None, **fields: Any) -> Artifact:
    """Make a work folder an artifact: checksums, fsync, manifest last, rename, scratch removed.

    final: what it is called, None by its kind and fingerprint, beside `work` in any case. fields: the other fields of
    Manifest (stage_version, name, settings, seed, parents, sources, software, machine, started, seconds, results).
    Where the same fingerprint was committed meanwhile, that one stays.
    """
    for key, value in fields.items():
        # Through ASCII, since the other way fails without saying where.
        utf8(json.dumps(value, ensure_ascii=False, default=str), f"{work}: {key}")
    _sweep_halves(work)
    files: dict[str, FileEntry] = {}
    for path in sorted(_content(work)):
        fsync_file(path)
        files[path.relative_to(work).as_posix()] = FileEntry(bytes=path.stat().st_size, sha256=file_digest(path))
    for folder in sorted({path.parent for path in _content(work)}):
        fsync_folder(folder)
    # Through JSON once, so that what is returned equals what a later reader finds.
    body = json.loads(Manifest(kind=kind, fingerprint=fingerprint, files=files, **fields).model_dump_json())
    try:
        body["checksum"] = digest(body)
    except ValueError:
        raise ArtifactError(f"{work}: the results hold a number that is not finite") from None
    write_atomic(work / MANIFEST, json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    final = final or work.with_name(folder_name(kind, fingerprint))
    if final.exists():
        artifact = open_artifact(final, kind)
        shutil.rmtree(work)
        return artifact
    os.rename(work, final)
    fsync_folder(final.parent)
    sweep_scratch(final)
    artifact = open_artifact(final, kind, verify=False)
    _remember(artifact.path, artifact.manifest)
    return artifact


def sweep_scratch(path: Path) -> None:
    """Delete what only resuming needed; a kill right after the rename can leave it behind."""
    shutil.rmtree(path / SCRATCH, ignore_errors=True)


def open_artifact(path: Path, kind: str | None = None, verify: bool = True) -> Artifact:
    """Read a committed artifact; verify checks every file's size and checksum.

    A large file is not read again while its size, time and inode are those it was last found whole with, so that a
    shard set of any size opens at once.
    Errors: ArtifactError for a folder that is missing, incomplete, foreign, damaged or of another kind.
    """
    manifest = _read_manifest(path)
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{path}: expected an artifact of kind {kind}, found one of kind {manifest.kind}")
    remembered = _remembered(path) if verify else {}
    for name, entry in manifest.files.items():
        known = entry.bytes >= LARGE_BYTES and remembered.get(name) == _mark(path / name)
        _check_file(path, name, entry, verify and not known)
    if verify:
        _remember(path, manifest)
    return Artifact(path, manifest)


def _mark(file: Path) -> list[int]:
    """What changes when a file is written."""
    try:
        facts = file.stat()
    except FileNotFoundError:
        return []
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def _memory(path: Path) -> Path:
    """Where it is kept which large files of an artifact were found whole; beside it, since it is of this machine."""
    return path.parent / VERIFIED / f"{path.name}.json"


def _remembered(path: Path) -> dict[str, list[int]]:
    try:
        known: dict[str, list[int]] = json.loads(_memory(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    return known


def _remember(path: Path, manifest: Manifest) -> None:
    large = {name: _mark(path / name) for name, entry in manifest.files.items() if entry.bytes >= LARGE_BYTES}
    if large and large != _remembered(path):
        _memory(path).parent.mkdir(exist_ok=True)
        write_atomic(_memory(path), json.dumps(large))


def _read_manifest(path: Path) -> Manifest:
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such artifact folder")
    file = path / MANIFEST
    if not file.is_file():
        unfinished = path.name.endswith(WORK_SUFFIX)
        reason = "its stage has not finished; run the roadmap again" if unfinished else "not a gradus artifact"
        raise ArtifactError(f"{path}: no {MANIFEST} inside: {reason}")
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file}: damaged, not readable as JSON ({error}); {remedy(path)}") from None
    if not isinstance(body, dict) or "fingerprint" not in body or "format_version" not in body:
        raise ArtifactError(f"{file}: not the manifest of a gradus artifact")
    if body["format_version"] != FORMAT_VERSION:
        raise ArtifactError(
            f"{file}: written in artifact format {body['format_version']}, this gradus reads {FORMAT_VERSION}"
        )
    checksum = body.pop("checksum", None)
    actual = digest(body)
    if checksum != actual:
        raise ArtifactError(
            f"{file}: damaged or edited: expected checksum {str(checksum)[:16]}, found {actual[:16]}; " + remedy(path)
        )
    try:
        return load_settings(Manifest, body, str(file))
    except ConfigError as error:
        raise ArtifactError(str(error)) from None


def _check_file(path: Path, name: str, entry: FileEntry, verify: bool) -> None:
    file = path / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ArtifactError(f"{path}: the manifest names a file outside the artifact: {name}")
    if not file.is_file():
        raise ArtifactError(f"{file}: missing from the artifact; {remedy(path)}")
    size = file.stat().st_size
    if size != entry.bytes:
        raise ArtifactError(f"{file}: damaged: expected {entry.bytes:,} bytes, found {size:,}; {remedy(path)}")
    if verify and (found := file_digest(file)) != entry.sha256:
        raise ArtifactError(
            f"{file}: damaged: expected checksum {entry.sha256[:16]}, found {found[:16]}; {remedy(path)}"
        )


def remedy(path: Path) -> str:
    """What mends an artifact that is damaged."""
    return f"delete the folder {path} and run the roadmap again to make it anew"


def _content(work: Path) -> list[Path]:
    """Every file of the result: scratch and the manifest left out."""
    found = []
    for path in work.rglob("*"):
        relative = path.relative_to(work)
        if path.is_file() and relative.parts[0] != SCRATCH and str(relative) != MANIFEST:
            found.append(path)
    return found


def _sweep_halves(work: Path) -> None:
    """Delete what a kill left half-written: files of `write_atomic` and folders named `*.tmp-<nonce>`."""
    for path in list(work.rglob("*.tmp-*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
