"""Datasets of the Hugging Face Hub: which shards a configuration and split mean, pinned to a commit, and their bytes.

The Hub's HTTP interface: /api/datasets/{repo}/revision/{revision}, .../tree/{commit}/{folder}, and
/datasets/{repo}/resolve/{commit}/{path}; HF_ENDPOINT chooses another server that speaks it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import field_validator, model_validator

from gradus.core.errors import ConfigError, DataError, did_you_mean
from gradus.core.files import user_folder, write_atomic
from gradus.core.fingerprint import digest
from gradus.core.secrets import exposure
from gradus.data.dataset_card import (
    MATCH_SECONDS,
    card_patterns,
    compiled_pattern,
    converted_files,
    data_files,
    is_pattern,
    named_files,
    pattern_folder,
)
from gradus.data.file_formats import SUFFIXES, is_readable_name
from gradus.data.remote_settings import RemoteSettings

if TYPE_CHECKING:
    from gradus.data.transfer import Connection

CONVERTED = "refs/convert/parquet"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_CARD_BYTES = 1 << 23
# A plan should not wait minutes to say that there is no network.
LISTING_FAILURES = 3


class HubSource(RemoteSettings):
    """A dataset of the Hugging Face Hub. A private or gated one needs HF_TOKEN, or the token of `hf auth login`.

    repo: "owner/name". config: as its card, or the folders of its files, have it; none is the default one. split: as
    its card, or the names of its files, have it. revision: branch, tag or commit; a branch is resolved to its commit
    when the roadmap is loaded, and a change of the shards makes a new corpus. path: patterns of files in the
    repository, instead of config and split.
    """

    kind: Literal["hub"] = "hub"
    repo: str
    config: str | None = None
    split: str = "train"
    revision: str = "main"
    path: str | tuple[str, ...] | None = None

    @field_validator("repo")
    @classmethod
    def _repo_is_a_name(cls, repo: str) -> str:
        if _REPO.fullmatch(repo) is None:
            raise ValueError(f'expected the dataset\'s name on the Hub, such as "owner/name", found "{repo}"')
        return repo

    @field_validator("path")
    @classmethod
    def _path_has_a_meaning(cls, path: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for pattern in (path,) if isinstance(path, str) else path or ():
            compiled_pattern(pattern)
        return path

    @model_validator(mode="after")
    def _path_stands_alone(self) -> HubSource:
        if self.path is not None and self.config is not None:
            raise ValueError("path names the files itself: give either path, or config and split")
        return self

    @property
    def label(self) -> str:
        """Of its documents."""
        return self.name or self.repo.split("/")[-1]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository. digest: "sha256:..." of its bytes, or "git:..." where the Hub has only a blob's id."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class HubListing:
    """What a source means at one commit, its shards in order of their paths."""

    repo: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]


# What was resolved in this process: the shards of a walk are those that its fingerprint was made of.
_resolved: dict[str, HubListing] = {}


def hub_listing(source: HubSource) -> HubListing:
    """The shards that a source means, resolved once a process.

    Without a network, the answer of an earlier process counts (GRADUS_CACHE, by default ~/.cache/gradus); that of a
    commit always does. Errors: DataError with the nearest name, or what to do about access.
    """
    patterns = (source.path,) if isinstance(source.path, str) else source.path
    return listed_files(source.repo, source.revision, source.config, source.split, patterns)


def listed_files(
    repo: str, revision: str, config: str | None, split: str, patterns: Sequence[str] | None
) -> HubListing:
    """As `hub_listing`, from its parts; `patterns` go before config and split."""
    key = digest([hub_endpoint(), repo, revision, config, split, patterns])
    if key in _resolved:
        return _resolved[key]
    memory = cache_folder() / "hub" / f"{key}.json"
    known = _remembered(memory)
    if known is None or not is_commit(revision):
        known = _asked(repo, revision, config, split, patterns, known)
        # A cache that cannot be written is only slower.
        with contextlib.suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(memory, json.dumps(asdict(known)))
    _resolved[key] = known
    return known


def _remembered(memory: Path) -> HubListing | None:
    try:
        data = json.loads(memory.read_text(encoding="utf-8"))
        return HubListing(**{**data, "files": tuple(HubFile(**file) for file in data["files"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _asked(
    repo: str, revision: str, config: str | None, split: str, patterns: Sequence[str] | None, known: HubListing | None
) -> HubListing:
    """The Hub's own answer; where it cannot be reached, the one that is known."""
    from gradus.data.transfer import StatusError, UnreachableError

    where = f"Hub dataset {repo}" + ("" if revision == "main" else f"@{revision}")
    if is_offline():
        if known is not None:
            return known
        raise DataError(f"{where}: HF_HUB_OFFLINE is set and its list of files is not known yet; connect once")
    try:
        with hub_connection(0 if known is not None else LISTING_FAILURES) as connection:
            return _Repository(connection, repo, revision, where).listing(config, split, patterns)
    except UnreachableError as error:
        if known is not None:
            return known
        raise DataError(f"{error}; or use files on this machine") from None
    except StatusError as error:
        raise hub_refusal(error, repo, where) from None


class _Repository:
    """One dataset at one revision, over one connection."""

    def __init__(self, connection: Connection, repo: str, revision: str, where: str) -> None:
        self._connection = connection
        self._repo = repo
        self._revision = revision
        self._where = where
        self._api = f"{hub_endpoint()}/api/datasets/{repo}"

    def listing(self, config: str | None, split: str, patterns: Sequence[str] | None) -> HubListing:
        commit = self._commit(self._revision)
        if patterns is None:
            patterns = card_patterns(self._where, self._card(commit), config, split)
        if patterns is not None:
            files = self._matching(commit, patterns)
        else:
            commit, files = self._by_names(commit, config, split)
        return HubListing(self._repo, self._revision, commit, tuple(sorted(files, key=lambda f: f.path)))

    def _commit(self, revision: str) -> str:
        return resolved_commit(self._connection, self._api, revision, self._where)

    def _card(self, commit: str) -> str:
        from gradus.data.transfer import StatusError

        url = file_url(self._repo, commit, "README.md")
        try:
            body, _ = self._connection.fetch(url, f"{self._where}: README.md", _MOST_CARD_BYTES)
        except StatusError as error:
            if error.code == "EntryNotFound":
                return ""
            raise
        return body.decode("utf-8", errors="replace")

    def _matching(self, commit: str, patterns: Sequence[str]) -> list[HubFile]:
        """The files of some patterns, each once; a pattern without a wildcard may be a folder."""
        found: dict[str, HubFile] = {}
        for pattern in patterns:
            if "://" in pattern:
                raise DataError(f'{self._where}: its files stand elsewhere ("{pattern}"); list them in a manifest')
            matches = self._matches(commit, pattern)
            # A wildcard does not mean the card.
            readable = [
                f
                for f in matches
                if f.path == pattern or (is_readable_name(f.path) and not f.path.endswith("README.md"))
            ]
            if not readable:
                raise self._nothing(commit, pattern, matches)
            found |= {file.path: file for file in readable}
        return list(found.values())

    def _matches(self, commit: str, pattern: str) -> list[HubFile]:
        folder = pattern_folder(pattern)
        if is_pattern(pattern):
            try:
                meant = compiled_pattern(pattern)
            except ValueError as error:
                raise DataError(f"{self._where}: {error}") from None
            files = self._files(commit, folder)
            try:
                return [file for file in files if meant.match(file.path, timeout=MATCH_SECONDS)]
            except TimeoutError:
                raise DataError(
                    f'{self._where}: the pattern "{pattern}" takes longer than {MATCH_SECONDS:g} s on the name of a '
                    "file; give path with fewer wildcards"
                ) from None
        beside = self._entries(commit, folder, recursive=False)
        if any(entry["type"] == "directory" and entry["path"] == pattern.rstrip("/") for entry in beside):
            return self._files(commit, pattern.rstrip("/"))
        return [_hub_file(entry) for entry in beside if entry["type"] == "file" and entry["path"] == pattern]

    def _nothing(self, commit: str, pattern: str, matches: list[HubFile]) -> DataError:
        if matches:
            return DataError(
                f'{self._where}: "{pattern}" matches {len(matches)} files, such as {matches[0].path}, and none that '
                f"can be read ({', '.join(SUFFIXES)}); give path with others"
            )
        root = [str(entry["path"]) for entry in self._entries(commit, "", recursive=False)]
        hint = did_you_mean(pattern.split("/")[0], root)
        listed = ", ".join(root[:12]) + (f" and {len(root) - 12} more" if len(root) > 12 else "")
        return DataError(f'{self._where}: "{pattern}" matches no file; at the top stand {listed or "none"}{hint}')

    def _by_names(self, commit: str, config: str | None, split: str) -> tuple[str, list[HubFile]]:
        """Without a card: by the files' names, else the Hub's own conversion, else all files as "train".

        The conversion is of the newest state of `main`, so that another revision never takes it.
        """
        files = {file.path: file for file in self._files(commit, "")}
        chosen = named_files(list(files), config, split)
        if not chosen and self._revision == "main":
            converted = self._converted(config, split)
            if converted is not None:
                return converted
        if not chosen and split == "train":
            chosen = data_files(list(files), config)
        if not chosen:
            folders = sorted({path.split("/")[0] for path in files if "/" in path})
            wanted = f'split "{split}"' + (f' of configuration "{config}"' if config is not None else "")
            hint = did_you_mean(config, folders) if config is not None else ""
            raise DataError(
                f"{self._where}: no file's name says {wanted}, and its card has no data files{hint}; name them with "
                f"path (folders: {', '.join(folders[:12]) or 'none'})"
            )
        return commit, [files[path] for path in chosen]

    def _converted(self, config: str | None, split: str) -> tuple[str, list[HubFile]] | None:
        from gradus.data.transfer import StatusError

        try:
            commit = self._commit(CONVERTED)
        except StatusError as error:
            if error.code == "RevisionNotFound":
                return None
            raise
        files = {file.path: file for file in self._files(commit, "")}
        chosen = converted_files(self._where, list(files), config, split)
        return (commit, [files[path] for path in chosen]) if chosen else None

    def _files(self, commit: str, folder: str) -> list[HubFile]:
        return [_hub_file(e) for e in self._entries(commit, folder, recursive=True) if e["type"] == "file"]

    def _entries(self, commit: str, folder: str, recursive: bool) -> list[dict[str, Any]]:
        from gradus.data.transfer import StatusError

        place = f"{self._api}/tree/{commit}" + (f"/{quote(folder)}" if folder else "")
        url: str | None = place + ("?recursive=true" if recursive else "")
        entries: list[dict[str, Any]] = []
        while url is not None:
            try:
                page, url = self._connection.fetch_json(url, self._where)
            except StatusError as error:
                if error.code == "EntryNotFound":  # a folder that does not exist holds no file
                    return []
                raise
            entries += page
        return entries


def resolved_commit(connection: Connection, api: str, revision: str, where: str) -> str:
    """The commit of a revision; api: of the repository. Errors: DataError, StatusError, UnreachableError."""
    if is_commit(revision):
        return revision
    answer, _ = connection.fetch_json(f"{api}/revision/{quote(revision, safe='')}?expand=sha", where)
    commit = str(answer.get("sha", "")) if isinstance(answer, dict) else ""
    if not is_commit(commit):
        raise DataError(f"{where}: {hub_endpoint()} names no commit for it; is it a Hub?")
    return commit


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit's whole number, which always means the same."""
    return _COMMIT.fullmatch(revision) is not None


def _hub_file(entry: dict[str, Any]) -> HubFile:
    lfs = entry.get("lfs")
    known = f"sha256:{lfs['oid']}" if lfs else f"git:{entry['oid']}"
    return HubFile(str(entry["path"]), int(entry["size"]), known)


# The server


def hub_endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, else https://huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def file_url(repo: str, commit: str, path: str) -> str:
    """Where a file's bytes are fetched."""
    return f"{hub_endpoint()}/datasets/{repo}/resolve/{quote(commit, safe='')}/{quote(path)}"


def hub_connection(most_failures: int | None = None) -> Connection:
    """A connection that sends the user's token to the Hub."""
    from gradus.data.transfer import MOST_FAILURES, Connection, origin

    most = MOST_FAILURES if most_failures is None else most_failures
    return Connection(hub_token(), origin(hub_endpoint()), most)


def hub_token() -> str | None:
    """HF_TOKEN, else what `hf auth login` keeps. Errors: DataError where it is no token or others can read its file."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if token:
        if not (token.isascii() and token.isprintable()):
            raise DataError("HF_TOKEN holds characters that no token has; copy it again from the Hub's settings")
        return token
    from huggingface_hub import constants, get_token

    problem = exposure(Path(os.environ.get("HF_TOKEN_PATH", "") or constants.HF_TOKEN_PATH).expanduser())
    if problem:
        raise DataError(problem)
    return get_token()


def hub_refusal(error: Any, repo: str, where: str, kind: Literal["dataset", "model"] = "dataset") -> DataError:
    """A StatusError of the Hub in words that say what to do."""
    page = f"{hub_endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    has_token = hub_token() is not None
    if error.code == "GatedRepo":
        action = "ask for access there" if has_token else "accept its terms there, then set HF_TOKEN"
        return DataError(f"{where}: access is restricted ({page}); {action}")
    if error.code == "RevisionNotFound":
        return DataError(f"{where}: no such revision; see {page}/tree/main")
    if error.code == "EntryNotFound":
        return DataError(f"{where}: the file is not there any more; see {page}")
    if error.code == "RepoNotFound" or error.status in {401, 404}:
        private = "or the token may not see it" if has_token else "or it is private: set HF_TOKEN"
        return DataError(f"{where}: no such {kind}, {private} ({page})")
    if error.status == 403:
        return DataError(f"{where}: access is refused ({page})")
    return DataError(f"{where}: {error}")


def is_offline() -> bool:
    """Whether the user has said that the Hub is not to be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def cache_folder() -> Path:
    """Where this user's caches stand: GRADUS_CACHE, else gradus/ in the system's place for caches.

    Errors: ConfigError where the user has no home folder that it could stand in.
    """
    chosen = os.environ.get("GRADUS_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "gradus"
    home = user_folder()
    if home is None:
        raise ConfigError("this user has no home folder to keep caches in; set HOME or GRADUS_CACHE to a folder")
    return home / ".cache" / "gradus"
