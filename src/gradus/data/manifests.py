"""Manifests: text files that list shards, one a line, wherever they stand.

A line is a path, a pattern, an http(s) address, or hf://datasets/OWNER/NAME[@REVISION]/PATTERN. What is relative is
relative to the manifest. "#" begins a comment, at the start of a line or after a space.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urljoin, urlsplit

from gradus.core.errors import DataError
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest
from gradus.data.file_formats import FileFormat, ReadOptions, TextSplit, file_format
from gradus.data.files import FilesSource, expand_files
from gradus.data.hub import cache_folder, file_url, hub_connection, listed_files
from gradus.data.remote_settings import RemoteSettings, as_tuple
from gradus.data.shard_tasks import Place

_HUB = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:convert|pr)/[\w.-]+|[^/]+))?/(?P<path>.+)"
)
_MOST_MANIFEST_BYTES = 1 << 26
_MOST_PROBLEMS = 10
_LISTING_FAILURES = 3


class ManifestSource(RemoteSettings):
    """Shards that a text file lists, one a line: paths, patterns, http(s) addresses, hf://datasets/OWNER/NAME/PATTERN.
    What is relative is relative to the manifest; "#" begins a comment. An http(s) address stands for itself: where
    its content changes, the corpus is not made again.

    path: the manifest, or several; a path, an http(s) address or an hf:// address itself. split: a text file is one
    document ("file"), one a line ("line"), one between blank lines ("paragraphs").
    """

    kind: Literal["manifest"] = "manifest"
    path: str | tuple[str, ...]
    split: TextSplit = "file"
    shuffle: bool = False

    def read_options(self) -> ReadOptions:
        """For the readers."""
        return replace(super().read_options(), split=self.split)

    @property
    def label(self) -> str:
        """Of its documents."""
        return self.name or PurePosixPath(urlsplit(as_tuple(self.path)[0]).path).stem or "manifest"


@dataclass(frozen=True, slots=True)
class ListedShard:
    """One shard of a manifest; the fields are those of ShardTask."""

    place: Place
    name: str
    location: str
    format: FileFormat
    size: int | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a manifest."""

    line: int
    text: str


def read_entries(text: str) -> list[Entry]:
    """The lines of a manifest without comments and empty ones."""
    entries = []
    for number, line in enumerate(re.split("\r\n|\r|\n", text.removeprefix("\ufeff")), start=1):
        content = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if content:
            entries.append(Entry(number, content))
    return entries


def listed_shards(source: ManifestSource, roadmap_dir: Path) -> list[ListedShard]:
    """The shards of a manifest, each once, in its order.

    Errors: DataError with the manifest's lines that mean nothing.
    """
    shards: dict[tuple[Place, str], ListedShard] = {}
    for manifest in _manifests(as_tuple(source.path), roadmap_dir):
        entries = read_entries(manifest.text)
        if not entries:
            raise DataError(f"{manifest.place}: the manifest lists nothing; write one shard a line")
        problems = []
        for entry in entries:
            try:
                found = manifest.shards(entry.text)
            except DataError as error:
                problems.append(f"{manifest.place}:{entry.line}: {error}")
                continue
            for shard in found:
                shards.setdefault((shard.place, shard.location), shard)
        if problems:
            more = len(problems) - _MOST_PROBLEMS
            raise DataError("\n".join(problems[:_MOST_PROBLEMS]) + (f"\nand {more} more" if more > 0 else ""))
    return list(shards.values())


@dataclass(frozen=True, slots=True)
class _Manifest:
    """A manifest's text and what its lines are relative to: a folder, or an http or hf address that ends in /."""

    place: str
    text: str
    base: str

    def shards(self, entry: str) -> list[ListedShard]:
        """What one line means."""
        if "://" not in entry and "://" in self.base:
            entry = self.base + entry if self.base.startswith("hf://") else urljoin(self.base, entry)
        if entry.startswith("hf://"):
            return _hub_shards(entry)
        if entry.startswith(("http://", "https://")):
            return [_web_shard(entry)]
        if "://" in entry:
            raise DataError(f'"{entry}": expected a path, or an address that begins with http://, https:// or hf://')
        return _local_shards(entry, Path(self.base))


def _local_shards(entry: str, folder: Path) -> list[ListedShard]:
    relative = not Path(entry).expanduser().is_absolute()
    shards = []
    for file in expand_files(FilesSource(path=entry), folder):
        # Where on a disk a file stands is not told.
        name = os.path.relpath(file.path, folder) if relative else "/".join(file.path.parts[-2:])
        size = file.path.stat().st_size
        shards.append(ListedShard("local", Path(name).as_posix(), str(file.path), file.format, size))
    return shards


def _web_shard(entry: str) -> ListedShard:
    try:
        parts = urlsplit(entry)
        host, secret = parts.hostname, parts.username is not None
    except ValueError:
        raise DataError(f'"{entry[:200]}": not an address') from None
    if not host:
        raise DataError(f'"{entry[:200]}": an address without a server')
    if secret:
        raise DataError(f"{host}: an address with a user's name or password would be written down; leave them out")
    name = f"{host}{unquote(parts.path)}"
    return ListedShard("http", name, entry, file_format(PurePosixPath(name)))


def _hub_shards(entry: str) -> list[ListedShard]:
    found = _HUB.fullmatch(entry)
    if found is None:
        raise DataError(f'"{entry}": expected hf://datasets/OWNER/NAME/PATH or hf://datasets/OWNER/NAME@REVISION/PATH')
    revision = unquote(found["revision"] or "main")
    listing = listed_files(found["repo"], revision, None, "train", (found["path"],))
    return [
        ListedShard(
            "hub", f"{listing.repo}/{file.path}", hub_location(listing.repo, listing.commit, file.path),
            file_format(PurePosixPath(file.path)), file.size, file.digest,
        )
        for file in listing.files
    ]  # fmt: skip


def hub_location(repo: str, commit: str, path: str) -> str:
    """A file of the Hub at a commit, as one text."""
    return f"hf://datasets/{repo}@{commit}/{path}"


def parse_hub_location(location: str) -> tuple[str, str, str]:
    """(repo, commit, path) of what `hub_location` wrote."""
    found = _HUB.fullmatch(location)
    if found is None or found["revision"] is None:
        raise DataError(f"{location}: not a pinned file of the Hub")
    return found["repo"], found["revision"], found["path"]


# The manifests themselves


def _manifests(paths: tuple[str, ...], roadmap_dir: Path) -> list[_Manifest]:
    if not paths:
        raise DataError('a manifest source needs at least one "path"')
    found = []
    for path in paths:
        if path.startswith("hf://"):
            for shard in _hub_shards(path):
                repo, commit, inside = parse_hub_location(shard.location)
                text = _fetched(file_url(repo, commit, inside), path, shard.digest)
                found.append(_Manifest(shard.name, text, shard.location.removesuffix(PurePosixPath(inside).name)))
        elif path.startswith(("http://", "https://")):
            shard = _web_shard(path)
            found.append(_Manifest(shard.name, _fetched(path, shard.name, ""), path))
        else:
            files = expand_files(FilesSource(path=path, format="text"), roadmap_dir)
            found += [_Manifest(f.name, _decoded(f.path.read_bytes(), f.name), str(f.path.parent)) for f in files]
    return found


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: a manifest is UTF-8 text; byte {error.start} is not") from None


# Fetched once a process, so that the shards of a walk are those that its fingerprint was made of.
_fetched_texts: dict[str, str] = {}


def _fetched(url: str, where: str, pinned: str) -> str:
    """The text of a remote manifest, kept for when the server cannot be reached. pinned: its digest, where known."""
    from gradus.data.remote import ContentCheck
    from gradus.data.transfer import Connection, UnreachableError

    key = digest([url, pinned])
    if key in _fetched_texts:
        return _fetched_texts[key]
    memory = cache_folder() / "manifests" / f"{key}.txt"
    known = memory.is_file()
    if known and pinned:
        content = memory.read_bytes()
    else:
        most_failures = 0 if known else _LISTING_FAILURES
        try:
            with hub_connection(most_failures) if pinned else Connection(most_failures=most_failures) as connection:
                content, _ = connection.fetch(url, where, _MOST_MANIFEST_BYTES)
        except UnreachableError:
            if not known:
                raise
            content = memory.read_bytes()
        check = ContentCheck(pinned, len(content))
        check.update(content)
        check.finish(where)
        with contextlib.suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(memory, content)
    _fetched_texts[key] = _decoded(content, where)
    return _fetched_texts[key]
