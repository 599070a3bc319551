"""SQLite's errors as ours: a full disk as an OSError like any file's, the rest with the file and what to do."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradus.core.errors import GradusError


@contextmanager
def database_errors(path: Path, kind: type[GradusError], fix: str) -> Iterator[None]:
    """Whatever SQLite raises inside becomes an OSError for a full disk, else `kind`. fix: what helps a damaged file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if is_kind(error, sqlite3.SQLITE_FULL):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise kind(f"{path}: cannot be used ({error})") from error
    except sqlite3.DatabaseError as error:
        raise kind(f"{path}: damaged ({error}); {fix}") from error


def is_kind(error: sqlite3.Error, code: int) -> bool:
    """Whether an error has SQLite's code; those of Python's own module, such as for text that is none, have no code."""
    return getattr(error, "sqlite_errorcode", None) == code
