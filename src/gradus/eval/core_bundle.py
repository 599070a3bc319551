"""Where CORE's bundle lies: a folder, an archive, or a dataset of the Hub, of which the tasks' files are made local.

Files of an archive or of the Hub are kept beside the user's other caches, by what they are: an archive's by its
checksum, the Hub's by its commit. Nothing but the tasks' own files is taken out of an archive.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO

from gradus.core.compression import check_expansion
from gradus.core.errors import DataError
from gradus.core.files import expand_path
from gradus.core.fingerprint import file_digest
from gradus.data.hub import cache_folder, file_url, hub_connection, listed_files
from gradus.eval.core_metric import CORE_TASKS

_HUB = "hub:"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_HUB_NAME = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+))?")
_PIECE = 1 << 20
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError, FileExistsError,
)  # fmt: skip


def bundle_folder(bundle: str | Path) -> Path:
    """The folder of a bundle: itself, or what an archive or "hub:OWNER/NAME[@REVISION][/PATH]" was made into.

    PATH: a folder or an archive in the repository. Errors: DataError for what is not there, cannot be read or holds
    none of the tasks' files.
    """
    if isinstance(bundle, str) and bundle.startswith(_HUB):
        return _from_hub(bundle)
    path = Path(bundle)
    if path.is_dir():
        return path
    if not path.is_file():
        raise DataError(f"CORE: {path} is no folder; give the folder of the evaluation bundle, or {_choices()}")
    return _unpacked(path)


def bundle_at(written: str | None, directory: Path) -> Path | str | None:
    """What an author wrote, for `bundle_folder`; a relative path starts at the directory."""
    return written if written is None or written.startswith(_HUB) else expand_path(written, directory)


@cache
def _from_hub(name: str) -> Path:
    found = _HUB_NAME.fullmatch(name)
    if found is None:
        raise DataError(f'CORE: expected "hub:OWNER/NAME", with @REVISION and /PATH if wanted, found "{name}"')
    from gradus.data.remote import RemoteShard, download

    listing = listed_files(found["repo"], found["revision"] or "main", None, "train", (found["path"] or "**",))
    folder = cache_folder() / "core" / listing.repo.replace("/", "--") / listing.commit
    wanted = [file for file in listing.files if _is_wanted(file.path) or file.path.endswith(ARCHIVES)]
    for file in wanted:
        place = f"{name}: {file.path}"
        url = file_url(listing.repo, listing.commit, file.path)
        shard = RemoteShard(url, place, hub_connection, file.size, file.digest)
        download(shard, folder / file.path)
    archives = [file for file in wanted if file.path.endswith(ARCHIVES)]
    if len(archives) == 1 and len(wanted) == 1:
        return _unpacked(folder / archives[0].path)
    if not any(_is_wanted(file.path) for file in wanted):
        raise DataError(f"CORE: {name} holds no file of a task, such as hellaswag.jsonl; give the PATH of {_choices()}")
    return folder / (found["path"] or "")


def _unpacked(archive: Path) -> Path:
    """The folder of an archive's files, unpacked once."""
    if not archive.name.endswith(ARCHIVES):
        raise DataError(f"CORE: {archive} is neither a folder nor an archive ({', '.join(ARCHIVES)})")
    folder = cache_folder() / "core" / file_digest(archive).replace(":", "-")
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _unpack(archive, work)
        try:
            work.rename(folder)
        except OSError:
            # Another process was faster; its files are the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    packed, num_bytes, written = archive.stat().st_size, 0, 0
    try:
        with _members(archive) as members:
            for name, handle in members:
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts:
                    raise DataError(f"CORE: {archive} holds a file outside of itself ({name}); it is not to be trusted")
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:
                    while piece := handle.read(_PIECE):
                        num_bytes += len(piece)
                        check_expansion(f"CORE: {archive}", packed, num_bytes)
                        out.write(piece)
                written += 1
    except _DAMAGED as error:
        raise DataError(f"CORE: {archive} cannot be unpacked ({error}); fetch it again") from error
    if not written:
        raise DataError(f"CORE: {archive} holds no file of a task, such as hellaswag.jsonl")


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """(name, bytes) of the tasks' files in an archive; links and anything else are passed over."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            wanted = [info for info in packed.infolist() if not info.is_dir() and _is_wanted(info.filename)]
            yield ((info.filename, packed.open(info)) for info in wanted)
        return
    with tarfile.open(archive) as tar:
        yield (
            (member.name, handle)
            for member in tar
            if member.isfile() and _is_wanted(member.name) and (handle := tar.extractfile(member)) is not None
        )
        # What is packed is checked by its sum, which stands behind the archive's end.
        while tar.fileobj is not None and tar.fileobj.read(_PIECE):
            pass


def _is_wanted(name: str) -> bool:
    return PurePosixPath(name).name in _file_names()


@cache
def _file_names() -> frozenset[str]:
    stems = {stem for task in CORE_TASKS.values() for stem in task.files}
    return frozenset(f"{stem}.jsonl{end}" for stem in stems for end in ("", ".gz"))


def _choices() -> str:
    return f"an archive of it ({', '.join(ARCHIVES)})"
