"""`gradus export`: a model as a folder for other programs, between the command line and the release room."""

from __future__ import annotations

import os
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from gradus.cli.walking import print_json
from gradus.core.artifact import MANIFEST, SCRATCH, commit_artifact, open_artifact
from gradus.core.errors import ConfigError, GradusError
from gradus.core.files import is_disk_full
from gradus.core.fingerprint import digest, file_digest
from gradus.core.home import LOCK
from gradus.core.lock import exclusive_lock
from gradus.core.machine import machine_facts, software_versions
from gradus.core.quantity import format_bytes
from gradus.core.settings import check_settings
from gradus.release.origin import Origin
from gradus.release.settings import ExportSettings
from gradus.roadmap.models import ModelReference, resolve_model
from gradus.tokenizer.loading import saved_chat_template


def export_to_folder(name: str, folder: Path, home: Path, options: dict[str, Any], as_json: bool) -> None:
    """Write a model into a new folder, whole and checked, or leave nothing. options: those of ExportSettings."""
    settings, problems = check_settings(ExportSettings, options)
    if settings is None:
        raise ConfigError([problem.text for problem in problems])
    folder = folder.expanduser().absolute()
    _refuse_to_write_over(folder)
    if not folder.parent.is_dir():
        raise ConfigError(f"{folder}: there is no folder {folder.parent}")
    model = resolve_model(name, home)
    origin = _origin(model, home)
    work = _own_folder(folder.with_name(f".{folder.name}.export"))
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with exclusive_lock(work / SCRATCH / LOCK, f"{folder}: process {{pid}} is exporting there"):
        try:
            _refuse_to_write_over(folder)
            (work / MANIFEST).unlink(missing_ok=True)  # what a kill left; the rest is swept by the export
            results = _export(model, settings, origin, work, as_json)
            if folder.exists():
                folder.rmdir()
            made = commit_artifact(
                work,
                kind="export",
                fingerprint=_fingerprint(model, settings, origin),
                final=folder,
                name=origin.name,
                settings=settings.model_dump(mode="json"),
                parents={"from": origin.fingerprint} if origin.fingerprint else {},
                software=software_versions(),
                machine=machine_facts(),
                started=started,
                seconds=round(time.monotonic() - began, 3),
                results=results,
            )
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise GradusError(f"{folder}: the disk is full; nothing was left there") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    files = made.manifest.files
    if as_json:
        print_json({"folder": str(folder), "files": {n: e.bytes for n, e in files.items()}, **results})
        return
    typer.echo(f"{folder}: {len(files)} files, {format_bytes(sum(entry.bytes for entry in files.values()))}")


def _refuse_to_write_over(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; name a new folder, or delete that one")


def _own_folder(work: Path) -> Path:
    """Make the folder that becomes the export, or find what a kill left of it. Errors: ConfigError.

    Its name can be guessed, so in a folder that others write to it may be a link to what is not to be touched.
    """
    with suppress(FileExistsError):
        work.mkdir()
    facts = work.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise ConfigError(f"{work} is a link, or another user's; move it away, or export to a folder of your own")
    return work


def _export(
    model: ModelReference, settings: ExportSettings, origin: Origin, work: Path, as_json: bool
) -> dict[str, Any]:
    from gradus.release.export import export_model

    def say(text: str) -> None:
        typer.echo(text, err=as_json)

    return export_model(model.folder, model.tokenizer, settings, origin, work, say)


def _origin(model: ModelReference, home: Path) -> Origin:
    """What is known of a model: by its artifact, or of a bare folder what lies in it."""
    from gradus.roadmap.provenance import origin_of

    base = model.tokenizer.parent
    if not (base / MANIFEST).is_file():
        trained = "chat" if saved_chat_template(model.tokenizer) else "base"
        return Origin(name=model.label, trained=trained)
    origin = origin_of(open_artifact(base), home, model.label)
    # Results are those of the finished model, not of its checkpoints.
    return origin if model.folder == model.tokenizer else replace(origin, results=())


def _fingerprint(model: ModelReference, settings: ExportSettings, origin: Origin) -> str:
    source = origin.fingerprint or {path.name: file_digest(path) for path in sorted(model.folder.glob("*.safetensors"))}
    return digest(
        {"kind": "export", "from": source, "model": model.label, "settings": settings.model_dump(mode="json")}
    )
