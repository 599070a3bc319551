"""Writing files so that a kill or a power cut leaves either the old content or the new, never half."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from gradus.core.errors import GradusError

# What systems answer that cannot give a file of another disk, or any file, a second name.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}


def fsync_file(path: Path) -> None:
    """Push a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Push a folder's entries (names, renames) to the disk; a no-op where the system cannot."""
    if os.name == "nt":
        return
    fsync_file(path)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content`, durable when this returns; the folder must exist.

    Errors: GradusError, before anything is written, for text that holds half a character.
    """
    data = utf8(content, str(path)) if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the name that the caller knows
        raise
    fsync_folder(path.parent)


def utf8(text: str, place: str) -> bytes:
    """The bytes of a text. Errors: GradusError for a lone surrogate, as JSON escapes and odd file names bring them."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        before = " ".join(text[max(0, error.start - 40) : error.start].split())
        raise GradusError(
            f'{place}: the text to be written holds half a character (U+{ord(text[error.start]):04X}) after "{before}"'
            ", which no file can hold; mend the text, or the name of the file or folder, that it comes from"
        ) from None


def readable_name(path: Path | str | bytes) -> str:
    """A path or file name as text that can be written; older systems' names need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def inherit_files(earlier: Path, out: Path, names: Sequence[str]) -> None:
    """Files and folders of one folder as files of another: links where the disk has them, since they never change."""
    for name in names:
        top = earlier / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top] if top.exists() else []:
            there = out / path.relative_to(earlier)
            if path.is_dir() or there.exists():
                continue
            there.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, there)


def link_or_copy(path: Path, there: Path) -> None:
    """Give a file that never changes a second name, or a copy where the system has none; whole or not at all."""
    try:
        os.link(path, there)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        half = there.with_name(f".{there.name}.tmp-{secrets.token_hex(4)}")
        shutil.copyfile(path, half)
        os.replace(half, there)


def user_folder() -> Path | None:
    """This user's home folder; None where the system knows none, as of users that a container runs by number alone."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expand_path(text: str, folder: Path) -> Path:
    """A path as a person writes it: relative to `folder`, `~` is the home folder."""
    return folder / Path(text).expanduser()


# What is wrong with the place and not with us, and how it is mended.
_MENDED_BY = {
    errno.EACCES: "give this user the right to it, or choose another place",
    errno.EPERM: "give this user the right to it, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOENT: "check the name, and that its folder is there",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another place, or move it away",
    errno.EEXIST: "something else stands where a folder or file is to be made; choose another place, or move it away",
    errno.EISDIR: "a folder stands where a file is needed; choose another name, or move it away",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "the link leads to itself; delete it",
    errno.EIO: "the disk or the network behind it fails; look at the system's log",
}


def place_error(error: OSError) -> GradusError | None:
    """The message for a file or folder that cannot be used, with the fix; None where the error is about no place."""
    if error.filename is None:
        return None
    where = readable_name(error.filename) if isinstance(error.filename, str | bytes | Path) else str(error.filename)
    if is_disk_full(error):
        return disk_full_error(error, Path(where).parent)
    mended = _MENDED_BY.get(error.errno or 0)
    return None if mended is None else GradusError(f"{where}: {(error.strerror or '').lower()}; {mended}")


def is_disk_full(error: OSError) -> bool:
    """Whether an OSError says that no space or quota is left."""
    return error.errno in {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def disk_full_error(error: OSError, folder: Path) -> GradusError:
    """The message for a full disk: where, how much is left, and that nothing is lost."""
    try:
        stats = os.statvfs(folder)
        left = f"{stats.f_bavail * stats.f_frsize / 2**20:,.0f} MiB left"
    except OSError:
        left = "space left unknown"
    where = error.filename or folder
    return GradusError(
        f"{where}: the disk is full ({left} at {folder}); free some space and run the same command again: "
        "finished stages are kept and the interrupted one resumes"
    )
