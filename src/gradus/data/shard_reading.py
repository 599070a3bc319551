"""Reading one shard: its texts in order, from any row on, however its bytes are reached."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from gradus.core.errors import DataError
from gradus.data.drops import Dropped
from gradus.data.file_formats import FoundText, LocalFile, Meta, ReadableFile
from gradus.data.hub import file_url, hub_connection, hub_refusal
from gradus.data.manifests import parse_hub_location
from gradus.data.permutation import permutation_keys, permute
from gradus.data.readers import read_file
from gradus.data.remote import RemoteShard, download
from gradus.data.shard_tasks import RawText, ShardTask
from gradus.data.transfer import Connection, StatusError, plain_address


def read_shard(task: ShardTask, start_row: int = 0, raw_dir: Path | None = None) -> Iterator[RawText | Dropped]:
    """The rows of a shard in order, each a text or why it is dropped.

    start_row: how many of these an earlier reader already gave; (task, rows given) is an exact bookmark. Parquet
    goes on at the row group, other formats pass over what stands before. raw_dir: where the shard is stored if its
    task asks for that; by default a temporary folder. Errors: DataError; OSError for a full disk.
    """
    if task.place == "synthetic":
        # Imported here, since the generators hold large tables that files do not need.
        from gradus.data.synthetic.documents import documents

        assert task.rows is not None
        for document in islice(documents(task.location, task.rows, task.seed), start_row, None):
            yield RawText(document.text, document.source or task.label, document.id, dict(document.meta))
        return
    try:
        with shard_file(task, raw_dir) as file, closing(_rows(task, file, start_row)) as rows:
            for found in rows:
                if isinstance(found, Dropped):
                    # Kept in artifacts, which should not tell where on a disk the files stood.
                    place = found.place.replace(str(file), task.name, 1)
                    yield replace(found, place=place, source=task.label)
                else:
                    yield _located(found, task)
    except StatusError as error:
        if task.place != "hub":
            raise
        repo, commit, path = parse_hub_location(task.location)
        raise hub_refusal(error, repo, f"Hub dataset {repo}@{commit[:10]}: {path}") from None


def _located(found: FoundText, task: ShardTask) -> RawText:
    place = f"{task.name}:{found.line}" if found.line else task.name
    meta: Meta = {**found.meta, "file": task.name}
    if found.line:
        meta["line"] = found.line
    return RawText(found.text, task.label, place, meta)


# Bytes


@contextmanager
def shard_file(task: ShardTask, raw_dir: Path | None) -> Iterator[ReadableFile]:
    """The task's bytes as a file. A stored shard is removed when it was read to its end or is wanted no further."""
    if task.place == "local":
        yield LocalFile(Path(task.location))
        return
    shard = remote_shard(task)
    if task.raw == "stream":
        yield shard
        return
    if raw_dir is None:
        with tempfile.TemporaryDirectory(prefix="gradus-raw-") as folder:
            stored = Path(folder) / shard.name
            download(shard, stored)
            yield LocalFile(stored)
        return
    # Content decides the name: a new commit with the same bytes finds them.
    identity = task.digest or task.location
    if task.raw == "delete":  # what one task has read is not another's to delete, though its bytes be the same
        identity = f"{task.source} {task.name} {identity}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    stored = raw_dir / task.raw / f"{key}-{shard.name}"
    if not stored.exists():
        download(shard, stored)
    is_done = False
    try:
        yield LocalFile(stored)
        is_done = True
    except GeneratorExit:
        is_done = True
        raise
    except DataError:
        # Bytes that nothing vouches for may be the fault; the next try fetches them again.
        if not task.digest:
            stored.unlink(missing_ok=True)
        raise
    finally:
        if is_done and task.raw == "delete":
            stored.unlink(missing_ok=True)


def remote_shard(task: ShardTask) -> RemoteShard:
    """The bytes of a task that stands elsewhere."""
    if task.place == "hub":
        repo, commit, path = parse_hub_location(task.location)
        place = f"Hub dataset {repo}@{commit[:10]}: {path}"
        return RemoteShard(file_url(repo, commit, path), place, hub_connection, task.size, task.digest)
    if task.place == "http":
        return RemoteShard(task.location, plain_address(task.location), Connection, task.size, task.digest)
    raise DataError(f"{task.name}: a {task.place} shard has no remote bytes")


# Order of rows


def _rows(task: ShardTask, file: ReadableFile, start_row: int) -> Generator[FoundText | Dropped]:
    size = task.shuffle_buffer
    if size <= 1:
        yield from read_file(file, task.format, task.options, start_row)
        return
    # Blocks of rows are shuffled each by itself, so that a bookmark needs nothing but the number of rows given.
    block, skip = divmod(start_row, size)
    rows = read_file(file, task.format, task.options, block * size)
    while held := list(islice(rows, size)):
        keys = permutation_keys("rows", task.seed, task.name, block)
        order = permute(np.arange(len(held), dtype=np.int64), len(held), keys)
        for position in order[skip:].tolist():
            yield held[position]
        block, skip = block + 1, 0
