"""Where documents come from: the kinds of source, their shards as tasks, and digests of their content.

Adding a kind of source is a settings class, its entry in `Source`, and a branch in `_tasks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from gradus.core.errors import ConfigError
from gradus.core.fingerprint import digest
from gradus.core.settings import Settings
from gradus.data.drops import Dropped
from gradus.data.file_formats import ReadOptions, file_format
from gradus.data.files import DigestMemory, FilesSource, expand_files
from gradus.data.hub import HubSource, cache_folder, hub_listing
from gradus.data.limits import TextLimit, text_limit
from gradus.data.manifests import ManifestSource, hub_location, listed_shards
from gradus.data.presets import PresetSource
from gradus.data.remote_settings import Transport, as_tuple
from gradus.data.shard_tasks import RawText, ShardTask


class SyntheticSource(Settings):
    """Documents written by the generators of gradus itself; name: which generator; documents: how many."""

    kind: Literal["synthetic"] = "synthetic"
    name: str
    documents: int = Field(ge=1)


AnySource = FilesSource | SyntheticSource | ManifestSource | HubSource | PresetSource
Source = Annotated[AnySource, Field(discriminator="kind")]


def read_source(
    source: AnySource, roadmap_dir: Path, seed: int, raw_dir: Path | None = None
) -> Iterator[RawText | Dropped]:
    """Every text of a source, in a fixed order, without its limit. Errors: DataError.

    seed: of synthetic documents and of the order of shards. raw_dir: where shards are stored while they are read, or
    kept, by a source that asks for it; by default a temporary folder.
    """
    for task in shard_tasks(source, roadmap_dir, seed):
        # Imported here, so that plans and digests do not wait for pyarrow.
        from gradus.data.shard_reading import read_shard

        yield from read_shard(task, raw_dir=raw_dir)


def source_limit(source: AnySource) -> TextLimit:
    """How much of a source is kept."""
    if isinstance(source, FilesSource):
        return text_limit(source.limit)
    return source.text_limit if isinstance(source, Transport) else TextLimit()


# Shards


def shard_tasks(source: AnySource, roadmap_dir: Path, seed: int = 0, index: int = 0) -> list[ShardTask]:
    """The source as independent pieces of work, in the order of its documents.

    seed: of synthetic documents, and of the order of shards and rows of a source that shuffles; a shard that is
    added later stands somewhere among the others and leaves their order. index: the source's position in a stage's
    list. Errors: DataError for a source that means nothing, with the nearest names.
    """
    tasks = _tasks(source, roadmap_dir, seed, index)
    if isinstance(source, Transport) and source.shuffle:
        tasks.sort(key=lambda task: digest(["shard order", seed, task.name]))
    return tasks


def _tasks(source: AnySource, roadmap_dir: Path, seed: int, index: int) -> list[ShardTask]:
    if isinstance(source, SyntheticSource):
        return [ShardTask(index, source.name, source.name, "synthetic", source.name, rows=source.documents, seed=seed)]
    if isinstance(source, FilesSource):
        options = ReadOptions(as_tuple(source.text_key), source.split, source.max_line_bytes, source.damaged == "keep")
        return [
            ShardTask(index, f.name, f.label, "local", str(f.path), f.format, options, f.path.stat().st_size, seed=seed)
            for f in expand_files(source, roadmap_dir)
        ]
    if isinstance(source, PresetSource):
        return _tasks(source.resolved(), roadmap_dir, seed, index)
    options, shuffle_buffer, raw = source.read_options(), source.shuffle_buffer, source.raw
    if isinstance(source, ManifestSource):
        return [
            ShardTask(index, s.name, source.label, s.place, s.location, s.format, options, s.size, s.digest,
                      seed=seed, shuffle_buffer=shuffle_buffer, raw=raw)
            for s in listed_shards(source, roadmap_dir)
        ]  # fmt: skip
    listing = hub_listing(source)
    return [
        ShardTask(index, file.path, source.label, "hub", hub_location(listing.repo, listing.commit, file.path),
                  file_format(PurePosixPath(file.path)), options, file.size, file.digest,
                  seed=seed, shuffle_buffer=shuffle_buffer, raw=raw)
        for file in listing.files
    ]  # fmt: skip


# Digests


def digest_memory() -> Path | None:
    """Where digests of this user's files are remembered; None where the user has no folder for it."""
    try:
        return cache_folder() / "digests.json"
    except ConfigError:
        return None


def source_files(source: AnySource, roadmap_dir: Path, cache: Path | None = None) -> list[dict[str, Any]]:
    """What a source consists of, for a manifest; none for a synthetic source.

    {"path", "bytes", "sha256"} for files of this machine; {"path", "bytes", "digest"} for shards elsewhere, whose
    digest is the Hub's, or '' for an http address, which stands for itself.
    cache: a JSON file that remembers digests by the file's path, size, times and inode; by default the user's.
    """
    if isinstance(source, SyntheticSource):
        return []
    memory = DigestMemory(cache or digest_memory())
    listed: list[dict[str, Any]] = []
    for task in _tasks(source, roadmap_dir, 0, 0):
        if task.place == "local":
            size, sha256 = memory.file_digest(Path(task.location))
            listed.append({"path": task.name, "bytes": size, "sha256": sha256})
        else:
            listed.append({"path": task.name, "bytes": task.size, "digest": task.digest})
    memory.save()
    return listed


def source_digest(source: AnySource, roadmap_dir: Path, cache: Path | None = None) -> str:
    """SHA-256 (hex) of a source's content: its files' names, sizes and bytes, or the generators' code.

    Moving the files together with the roadmap does not change it; an edit, a new or a vanished file does. Of a Hub
    dataset the shards count, and not the commit: a new card makes no new corpus.
    """
    if isinstance(source, SyntheticSource):
        return digest({"synthetic": _package_digest()})
    content: dict[str, Any] = {"files": source_files(source, roadmap_dir, cache)}
    if isinstance(source, PresetSource):
        # What a preset means may change with a version of gradus.
        content["settings"] = source.resolved()
    return digest(content)


def source_lineage(source: AnySource, roadmap_dir: Path) -> dict[str, Any]:
    """Where a source's documents come from, for an artifact's record: its settings, and the commit of a dataset."""
    lineage: dict[str, Any] = {**source.model_dump(mode="json", exclude_none=True)}
    resolved = source.resolved() if isinstance(source, PresetSource) else source
    if isinstance(source, PresetSource):
        lineage |= {"licence": source.preset.licence, "homepage": source.preset.homepage}
    if isinstance(resolved, HubSource):
        listing = hub_listing(resolved)
        lineage |= {"repo": listing.repo, "commit": listing.commit}
    if not isinstance(resolved, SyntheticSource):
        tasks = _tasks(resolved, roadmap_dir, 0, 0)
        lineage |= {"shards": len(tasks), "shard_bytes": sum(task.size or 0 for task in tasks)}
    return lineage


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
