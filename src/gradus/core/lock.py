"""Locks between processes, released by the system when a process ends however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradus.core.errors import GradusError
from gradus.core.files import is_disk_full


@contextmanager
def exclusive_lock(path: Path, refusal: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file while the block runs.

    Where another process holds it: with `waiting`, call that with a sentence and wait; else GradusError
    with `refusal`. {pid} in either text becomes the holder's process number. A link is refused, since what it leads
    to would be written over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise GradusError(f"{path}: expected the file of a lock, found a link; delete it") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", errors="replace").strip() or "?"
            sentence = refusal.replace("{pid}", holder)
            if waiting is None:
                raise GradusError(sentence) from None
            waiting(sentence)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _write_number(descriptor)
        yield
    finally:
        os.close(descriptor)


def _write_number(descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
    except OSError as error:
        # The number is for messages; on a full disk there must be a way to delete what fills it.
        if not is_disk_full(error):
            raise
