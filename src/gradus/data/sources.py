"""Where documents come from: the table of sources, the files that a pattern means, and content digests.

Adding a kind of source is a settings class here, its entry in `Source`, and a branch in `read_source`.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from gradus.core.errors import DataError, did_you_mean
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest
from gradus.core.quantity import Quantity
from gradus.core.settings import Settings
from gradus.data.drops import Dropped
from gradus.data.file_formats import (
    COMPRESSIONS,
    SUFFIXES,
    FileFormat,
    FoundText,
    Meta,
    ReadOptions,
    TextSplit,
    file_format,
)

# With more files than this, documents are labelled by the source and not by their file.
_MOST_FILE_LABELS = 32
# A file changed this recently may change again within the clock's resolution; its digest is not remembered.
_SETTLE_SECONDS = 2.0


class FilesSource(Settings):
    """Files on this machine.

    path: patterns with *, ? and **, or folders; relative to the roadmap's folder, ~ is the home folder.
    name: the label of the documents; by default each file's name.
    text_key: the column of JSON records and parquet that holds the text.
    format: what the files hold, where their names do not say.
    split: a text file is one document ("file"), one a line ("line"), one between blank lines ("paragraphs").
    limit: documents to keep at most.
    max_line_bytes: a longer line or paragraph is dropped and counted, never held in memory.
    damaged: whether a damaged file stops the work ("refuse") or gives what can be read of it ("keep").
    """

    kind: Literal["files"] = "files"
    path: str | tuple[str, ...]
    name: str | None = None
    text_key: str = "text"
    format: FileFormat | None = None
    split: TextSplit = "file"
    limit: Quantity | None = None
    max_line_bytes: int = Field(default=1 << 26, ge=1, le=1 << 30)
    damaged: Literal["refuse", "keep"] = "refuse"

    @field_validator("limit")
    @classmethod
    def _limit_counts_documents(cls, limit: Quantity | None) -> Quantity | None:
        if limit is not None and limit.unit != "documents":
            raise ValueError(
                f'a limit counts documents, such as "20_000 documents"; found {limit.unit} '
                "(tokens are known only after the tokenizer: bound the training by its horizon instead)"
            )
        return limit


class SyntheticSource(Settings):
    """Documents written by the generators of gradus itself; name: which generator; documents: how many."""

    kind: Literal["synthetic"] = "synthetic"
    name: str
    documents: int = Field(ge=1)


Source = Annotated[FilesSource | SyntheticSource, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class RawText:
    """A text before normalisation. source: its label; place: where it stood, for messages."""

    text: str
    source: str
    place: str
    meta: Meta


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source. name: its path below the pattern's fixed part, the same on every machine."""

    path: Path
    name: str
    label: str
    format: FileFormat


def read_source(source: FilesSource | SyntheticSource, roadmap_dir: Path, seed: int) -> Iterator[RawText | Dropped]:
    """Every text of a source, in a fixed order. Errors: DataError. seed: for synthetic documents only."""
    if isinstance(source, SyntheticSource):
        # Imported here, since the generators hold large tables that files do not need.
        from gradus.data.synthetic.documents import documents

        for document in documents(source.name, source.documents, seed):
            yield RawText(document.text, document.source or source.name, document.id, dict(document.meta))
        return
    # Imported here, so that plans and digests do not wait for pyarrow.
    from gradus.data.readers import read_file

    options = ReadOptions(source.text_key, source.split, source.max_line_bytes, source.damaged == "keep")
    for file in expand_files(source, roadmap_dir):
        for found in read_file(file.path, file.format, options):
            if isinstance(found, Dropped):
                # Kept in artifacts, which should not tell where on a disk the files stood.
                place = found.place.replace(str(file.path), file.name, 1)
                yield replace(found, place=place, source=file.label)
            else:
                yield _located(found, file)


def _located(found: FoundText, file: SourceFile) -> RawText:
    place = f"{file.name}:{found.line}" if found.line else file.name
    meta: Meta = {**found.meta, "file": file.name}
    if found.line:
        meta["line"] = found.line
    return RawText(found.text, file.label, place, meta)


# Patterns


def expand_files(source: FilesSource, roadmap_dir: Path) -> list[SourceFile]:
    """The files that a source means, each once, sorted by name within a pattern.

    Errors: DataError for a pattern that matches nothing, with the nearest names that exist.
    """
    patterns = (source.path,) if isinstance(source.path, str) else source.path
    if not patterns:
        raise DataError('a files source needs at least one "path"')
    found: dict[Path, str] = {}
    for pattern in patterns:
        root, paths = _expand(pattern, roadmap_dir)
        for path in paths:
            found.setdefault(path, path.relative_to(root).as_posix() if path != root else path.name)
    labels = _labels(source, found)
    return [SourceFile(path, name, labels[path], source.format or file_format(path)) for path, name in found.items()]


def _labels(source: FilesSource, found: dict[Path, str]) -> dict[Path, str]:
    """The source's name; without one the files' names, or the folder's where there are many files."""
    if source.name is None and len(found) <= _MOST_FILE_LABELS:
        stems = {path: path.name.split(".")[0] for path in found}
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
        files = [p for p in sorted(full.rglob("*")) if p.is_file() and _is_readable_name(p)]
        if not files:
            raise DataError(
                f'"{pattern}": the folder {full} holds no file that ends in '
                f"{', '.join(SUFFIXES)} (also {', '.join(COMPRESSIONS)})"
            )
        return full, files
    # A file whose own name has brackets is meant as itself.
    if full.is_file():
        return full.parent, [full]
    files = [Path(p) for p in sorted(glob.glob(str(full), recursive=True))]
    files = [p for p in files if p.is_file()]
    if not files:
        raise DataError(f'"{pattern}" matches no file{_what_is_there(full)}')
    return _fixed_folder(full), files


def _is_readable_name(path: Path) -> bool:
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return not path.name.startswith(".") and Path(name).suffix in SUFFIXES


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


def source_files(
    source: FilesSource | SyntheticSource, roadmap_dir: Path, cache: Path | None = None
) -> list[dict[str, Any]]:
    """What a source consists of, as {"path", "bytes", "sha256"}, for a manifest; none for a synthetic source.

    cache: a JSON file that remembers digests by the file's path, size, times and inode.
    """
    if isinstance(source, SyntheticSource):
        return []
    memory = _DigestMemory(cache)
    listed = []
    for file in expand_files(source, roadmap_dir):
        size, sha256 = memory.file_digest(file.path)
        listed.append({"path": file.name, "bytes": size, "sha256": sha256})
    memory.save()
    return listed


def source_digest(source: FilesSource | SyntheticSource, roadmap_dir: Path, cache: Path | None = None) -> str:
    """SHA-256 (hex) of a source's content: its files' names, sizes and bytes, or the generators' code.

    Moving the files together with the roadmap does not change it; an edit, a new or a vanished file does.
    """
    if isinstance(source, SyntheticSource):
        return digest({"synthetic": _package_digest()})
    return digest({"files": source_files(source, roadmap_dir, cache)})


def _package_digest() -> str:
    """Of every file of the generators: their code and tables are the content of a synthetic source."""
    total = hashlib.sha256()
    for name, content in sorted(_package_files(resources.files("gradus.data.synthetic"), "")):
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def _package_files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _package_files(entry, f"{prefix}{entry.name}/")
        elif not entry.name.endswith(".pyc"):
            yield prefix + entry.name, entry.read_bytes()


class _DigestMemory:
    """File digests remembered across runs, by everything that changes when a file does.

    The change time cannot be set back by a program, so an edit that keeps size and modification time is seen.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        if path is not None and path.is_file():
            try:
                self._known = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                self._known = {}  # a torn cache is only slower

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
        if time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLE_SECONDS:
            self._known[str(path)] = [*state, sha256]
            self._changed = True
        return stat.st_size, sha256

    def save(self) -> None:
        if self._path is not None and self._changed:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps(self._known, indent=0))
