"""The files that a folder or a pattern means: links are followed, every folder is walked once, and what gradus wrote
itself is passed by.

`glob` follows a link that leads back to where it stands as deep as the system lets it, and two such links for as long
as anyone waits; `Path.rglob` follows no link, so that texts on another disk are left out without a word.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from gradus.core.home import ARTIFACTS, DRY_HOME, GGUF_CACHE, LOCK, RAW, REFERENCE_FOLDER, RUNS

_MADE_HERE = (ARTIFACTS, RUNS, RAW, REFERENCE_FOLDER, GGUF_CACHE)


def files_below(folder: Path) -> list[Path]:
    """Every file in a folder and the folders in it, sorted. Errors: OSError for a folder that cannot be listed."""
    return sorted(path for place in _folders(folder) for path in _entries(place) if path.is_file())


def files_matching(pattern: Path) -> list[Path]:
    """The files of a pattern with *, ?, [...] and ** (any number of folders), sorted; names that begin with a dot only
    where the pattern's do, as in `glob`."""
    top = Path(pattern.anchor)
    return sorted(_matching(top, pattern.relative_to(top).parts))


def _matching(top: Path, parts: tuple[str, ...]) -> set[Path]:
    """The files below a folder that parts of a pattern match."""
    if "**" not in parts:
        found = [Path(path) for path in glob.glob(str(Path(*parts)), root_dir=top)]
        # Folders that wildcards chose, and nobody named.
        named = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        kept = [path for path in found if not any(_is_ours(top / p) for p in path.parents if len(p.parts) > named)]
        return {top / path for path in kept if (top / path).is_file()}
    first = parts.index("**")
    rest = parts[first + 1 :]
    matched: set[Path] = set()
    heads = [top / path for path in glob.glob(str(Path(*parts[:first])), root_dir=top)] if first else [top]
    for folder in [folder for head in heads if head.is_dir() for folder in _folders(head, hidden=False)]:
        if rest:
            matched |= _matching(folder, rest)
        else:
            matched.update(path for path in _entries(folder) if path.is_file() and not path.name.startswith("."))
    return matched


def _folders(top: Path, hidden: bool = True) -> Iterator[Path]:
    """A folder and all below it, each once: those that stand there first, then those that links lead to."""
    walked = {_identity(folder) for folder in (top.resolve(), *top.resolve().parents)}
    waiting, links = [top], list[Path]()
    while waiting or links:
        if not waiting:
            linked = links.pop(0)
            if _identity(linked) in walked:
                continue
            walked.add(_identity(linked))
            waiting.append(linked)
        folder = waiting.pop()
        yield folder
        for path in _entries(folder):
            if not path.is_dir() or _is_ours(path) or (path.name.startswith(".") and not hidden):
                continue
            if path.is_symlink():
                links.append(path)
            elif _identity(path) not in walked:
                walked.add(_identity(path))
                waiting.append(path)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder / name for name in os.listdir(folder))


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds what gradus made, in a home: what a corpus made would be read into itself."""
    named = folder.name in _MADE_HERE or folder.name.startswith(DRY_HOME)
    return named and (folder.parent / ARTIFACTS / LOCK).is_file()
