"""Files on this machine as a source: the files that a pattern means, their labels, and digests of their content."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, field_validator

from gradus.core.errors import DataError, did_you_mean
from gradus.core.files import readable_name, write_atomic
from gradus.core.patterns import files_below, files_matching
from gradus.core.quantity import Quantity
from gradus.core.settings import Settings
from gradus.data.file_formats import COMPRESSIONS, SUFFIXES, FileFormat, TextSplit, file_format, is_readable_name
from gradus.data.limits import checked_limit

# With more files than this, documents are labelled by the source and not by their file.
_MOST_FILE_LABELS = 32
# A file changed this recently may change again within the clock's resolution; its digest is not remembered.
_SETTLE_SECONDS = 2.0


class FilesSource(Settings):
    """Files on this machine.

    path: patterns with *, ? and **, or folders; relative to the roadmap's folder, ~ is the home folder.
    name: the label of the documents; by default each file's name.
    text_key: the column of JSON records and parquet that holds the text; of several, their texts are joined by a
    blank line.
    format: what the files hold, where their names do not say.
    split: a text file is one document ("file"), one a line ("line"), one between blank lines ("paragraphs").
    limit: text to keep at most, in documents, bytes or tokens; a token counts as 4 bytes.
    max_line_bytes: a longer line or paragraph is dropped and counted, never held in memory.
    damaged: whether a damaged file stops the work ("refuse") or gives what can be read of it ("keep").
    """

    kind: Literal["files"] = "files"
    path: str | tuple[str, ...]
    name: str | None = None
    text_key: str | tuple[str, ...] = "text"
    format: FileFormat | None = None
    split: TextSplit = "file"
    limit: Quantity | None = None
    max_line_bytes: int = Field(default=1 << 26, ge=1, le=1 << 30)
    damaged: Literal["refuse", "keep"] = "refuse"

    @field_validator("limit")
    @classmethod
    def _limit_counts_text(cls, limit: Quantity | None) -> Quantity | None:
        return checked_limit(limit)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source. name: its path below the pattern's fixed part, the same on every machine."""

    path: Path
    name: str
    label: str
    format: FileFormat


# Patterns


def expand_files(source: FilesSource, roadmap_dir: Path) -> list[SourceFile]:
    """The files that a source means, each once, sorted by name within a pattern.

    Errors: DataError for a pattern that matches nothing, with the nearest names that exist.
    """
    patterns = (source.path,) if isinstance(source.path, str) else source.path
    if not patterns:
        raise DataError('a files source needs at least one "path"')
    if not all(pattern.strip() for pattern in patterns):
        raise DataError('an empty "path" names no file; write "." for the roadmap\'s folder')
    found: dict[Path, str] = {}
    for pattern in patterns:
        root, paths = _expand(pattern, roadmap_dir)
        for path in paths:
            name = path.relative_to(root).as_posix() if path != root else path.name
            found.setdefault(path, readable_name(name))
    labels = _labels(source, found)
    return [SourceFile(path, name, labels[path], source.format or file_format(path)) for path, name in found.items()]


def _labels(source: FilesSource, found: dict[Path, str]) -> dict[Path, str]:
    """The source's name; without one the files' names, or the folder's where there are many files."""
    if source.name is None and len(found) <= _MOST_FILE_LABELS:
        stems = {path: PurePosixPath(name).name.split(".")[0] for path, name in found.items()}
        if len(set(stems.values())) == len(stems):
            return stems
        # Files of one name in different folders.
        return {path: (Path(name).parent / stems[path]).as_posix() for path, name in found.items()}
    folder = os.path.commonpath([path.parent for path in found])
    return dict.fromkeys(found, source.name or Path(folder).name or "files")


def _expand(pattern: str, roadmap_dir: Path) -> tuple[Path, list[Path]]:
    """(the pattern's fixed folder, the files it matches)."""
    full = Path(os.path.abspath(roadmap_dir / Path(pattern).expanduser()))
    if full.is_dir():
        files = [p for p in files_below(full) if is_readable_name(p.name)]
        if not files:
            raise DataError(
                f'"{pattern}": the folder {full} holds no file that ends in '
                f"{', '.join(SUFFIXES)} (also {', '.join(COMPRESSIONS)})"
            )
        return full, files
    # A file whose own name has brackets is meant as itself.
    if full.is_file():
        return full.parent, [full]
    if full.is_symlink():
        raise DataError(f'"{pattern}" is a link to {os.readlink(full)}, and no file is there; mend the link')
    files = files_matching(full)
    if not files:
        raise DataError(f'"{pattern}" matches no file{_what_is_there(full)}')
    return _fixed_folder(full), files


def _fixed_folder(full: Path) -> Path:
    """The deepest folder of a pattern above its first wildcard."""
    folder = full.parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return folder


def _what_is_there(full: Path) -> str:
    """For a pattern that matches nothing: the first part that does not exist, and what stands beside it."""
    missing, folder = full, full.parent
    while glob.has_magic(str(folder)) or not folder.is_dir():
        missing, folder = folder, folder.parent
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    hint = did_you_mean(missing.name, names)
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f" (looked in {folder}, which holds {listed or 'nothing'}){hint}"


# Digests


_MOST_REMEMBERED = 100_000
# Smaller files are read again, which is as quick.
_LEAST_BYTES = 1 << 20


class DigestMemory:
    """File digests remembered across runs, by everything that changes when a file does.

    The change time cannot be set back by a program, so an edit that keeps size and modification time is seen.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        if path is not None:
            try:
                self._known = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                self._known = {}  # none yet; or torn, or another user's, which is only slower

    def file_digest(self, path: Path) -> tuple[int, str]:
        """(bytes, sha256 hex). Errors: DataError where the file vanished."""
        try:
            stat = path.stat()
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            known = self._known.get(str(path))
            if known is not None and known[:-1] == state:
                return stat.st_size, str(known[-1])
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        settled = time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLE_SECONDS
        if settled and stat.st_size >= _LEAST_BYTES:
            self._known[str(path)] = [*state, sha256]
            self._changed = True
        return stat.st_size, sha256

    def save(self) -> None:
        if self._path is not None and self._changed:
            known = self._known
            if len(known) > _MOST_REMEMBERED:
                known = {path: state for path, state in known.items() if Path(path).exists()}
            # Nothing depends on it: where this user may not write, files are read again.
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self._path, json.dumps(known, indent=0))
