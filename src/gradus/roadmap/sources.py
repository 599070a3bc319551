"""External files of a roadmap: finding them from the roadmap's folder, and digesting them once."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from pathlib import Path

from gradus.conversation.probes import load_suite, suite_path
from gradus.core.errors import DataError, did_you_mean
from gradus.core.files import expand_path
from gradus.core.fingerprint import digest, file_digest
from gradus.core.patterns import files_below, files_matching
from gradus.core.settings import KeyPath, Problem
from gradus.data.hub_models import pinned_commit
from gradus.roadmap.stage import SourceError


def matching_files(text: str, roadmap_dir: Path) -> list[Path]:
    """The files that a path, glob or folder means, sorted; empty where nothing matches."""
    path = expand_path(text, roadmap_dir)
    if path.is_file():
        return [path]
    if path.is_dir():
        return [file for file in files_below(path) if not file.name.startswith(".")]
    return files_matching(path)


def file_sources(entries: Iterable[tuple[KeyPath, str]], roadmap_dir: Path) -> dict[str, str]:
    """Digest what each (key, path text) names, for a stage's `sources`.

    A group of files is one digest over names and contents, so that a file added to a folder counts.
    Errors: SourceError with every path that names nothing, and the nearest name beside it.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for key, text in entries:
        files = matching_files(text, roadmap_dir)
        if not files:
            problems.append(Problem(key, _nothing_found(text, expand_path(text, roadmap_dir))))
            continue
        found[text] = digest([[file.name, file_digest(file)] for file in files])
    if problems:
        raise SourceError(problems)
    return found


def pinned_take(take: str, before: Mapping[str, str]) -> dict[str, str]:
    """`pinned` of a stage with the setting `take`. Errors: SourceError where the Hub does not say the commit."""
    try:
        return pinned_commit(take, before)
    except DataError as error:
        raise SourceError([Problem(("take",), str(error))]) from None


def suite_digest(text: str, roadmap_dir: Path) -> str:
    """The digest of a probe suite's file, and of the documents that it brings. Errors: ConfigError of `load_suite`."""
    path = suite_path(text, roadmap_dir)
    documents = load_suite(path).documents
    files = [path] if documents is None else [path, documents]
    return digest([[file.name, file_digest(file)] for file in files])


def _nothing_found(text: str, path: Path) -> str:
    folder = path.parent
    if glob.has_magic(str(path)):
        return f'"{text}": no file matches {path}'
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    reason = f"no such file: {path}" if names else f"no such folder: {folder}"
    return f'"{text}": {reason}{did_you_mean(path.name, names)}'
