"""A place that is a model repository of the Hugging Face Hub (hub:owner/name): one commit for each parcel.

Made private where it does not exist. A commit is all or nothing, large files go ahead of it and are known there by
their SHA-256, so that what the Hub has is not sent again. After a commit the repository's list of files is read and
compared. Downloads resume and are checked as those of datasets are (data/remote.py).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from gradus.core.artifact import FileEntry
from gradus.core.errors import DataError
from gradus.core.fingerprint import file_digest
from gradus.core.secrets import redacted
from gradus.data.hub import hub_connection, hub_endpoint, hub_token
from gradus.release.place import Outgoing, PlaceError, PlaceUnreachableError, refuse_other

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

_MOST_SMALL_BYTES = 1 << 26
_PATHS_A_REQUEST = 200


class HubPlace:
    """A model repository at its branch `main`."""

    def __init__(self, address: str) -> None:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        self.address = address
        self._repo = address.removeprefix("hub:")
        self._made = False
        try:
            self._token = hub_token()
        except DataError as error:
            raise PlaceError(str(error)) from None
        disable_progress_bars()

    @property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        # Without a token of ours, none: not one that the library finds elsewhere.
        return HfApi(endpoint=hub_endpoint(), token=self._token or False)

    def listing(self, folder: str) -> dict[str, int]:
        """Sizes by path."""
        return {path: file.size for path, file in self._tree(folder).items()}

    def _tree(self, folder: str) -> dict[str, RepoFile]:
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        with self._told():
            try:
                entries = list(self._api.list_repo_tree(self._repo, path_in_repo=folder or None, recursive=True))
            except (EntryNotFoundError, RepositoryNotFoundError):
                return {}
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def read(self, path: str) -> bytes:
        """A small file."""
        try:
            with hub_connection() as connection:
                body, _ = connection.fetch(self._url(path), f"{self.address}/{path}", _MOST_SMALL_BYTES)
                return body
        except DataError as error:
            raise self._unread(error, path) from None

    def send(self, files: Sequence[Outgoing], report: Callable[[int], None]) -> None:
        """One commit of what is not there or other."""
        from huggingface_hub import CommitOperationAdd

        self._make()
        there = self._facts(files)
        missing = [outgoing for outgoing in files if not _equals(there.get(outgoing.path), outgoing)]
        for outgoing in missing:
            size = outgoing.file.stat().st_size
            refuse_other(FileEntry(bytes=size, sha256=file_digest(outgoing.file)), outgoing)
        if not missing:
            return
        with self._told():
            operations = [CommitOperationAdd(path_in_repo=f.path, path_or_fileobj=f.file) for f in missing]
            message = f"gradus push: {files[-1].path.removeprefix('pushed/').removesuffix('.json')}"
            self._api.create_commit(self._repo, operations, commit_message=message)
        there = self._facts(missing)
        for outgoing in missing:
            if not _equals(there.get(outgoing.path), outgoing):
                raise PlaceUnreachableError(f"{self.address}: {outgoing.path} did not arrive as it was sent")
            report(outgoing.entry.bytes)

    def _facts(self, files: Sequence[Outgoing]) -> dict[str, RepoFile]:
        """What the Hub has under the paths of these files."""
        from huggingface_hub.hf_api import RepoFile

        found: dict[str, RepoFile] = {}
        for start in range(0, len(files), _PATHS_A_REQUEST):
            paths = [outgoing.path for outgoing in files[start : start + _PATHS_A_REQUEST]]
            with self._told():
                entries = self._api.get_paths_info(self._repo, paths)
            found |= {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
        return found

    def _make(self) -> None:
        """Make the repository, private, where there is none; asked once."""
        if self._made:
            return
        if self._token is None:
            raise PlaceError(f"{self.address}: pushing needs a token: set HF_TOKEN, or run: hf auth login")
        with self._told():
            if not self._api.repo_exists(self._repo):
                self._api.create_repo(self._repo, private=True, exist_ok=True)
        self._made = True

    def fetch(self, path: str, entry: FileEntry, part: Path) -> None:
        """Download, resumed at the byte; the digest is checked on the way."""
        from gradus.data.remote import RemoteShard, download

        shard = RemoteShard(
            self._url(path), f"{self.address}/{path}", hub_connection, entry.bytes, f"sha256:{entry.sha256}"
        )
        part.unlink(missing_ok=True)
        try:
            download(shard, part)
        except DataError as error:
            raise self._unread(error, path) from None

    def _url(self, path: str) -> str:
        return f"{hub_endpoint()}/{self._repo}/resolve/main/{quote(path)}"

    def _unread(self, error: DataError, path: str) -> PlaceError | PlaceUnreachableError:
        from gradus.data.transfer import StatusError, UnreachableError

        if isinstance(error, UnreachableError):
            return PlaceUnreachableError(str(error))
        if isinstance(error, StatusError) and error.code == "EntryNotFound":
            return PlaceError(f"{self.address}: there is no {path}")
        if isinstance(error, StatusError) and error.status in {401, 403, 404}:
            return PlaceError(f"{self.address}: no such repository, or it is private: {self._advice()}")
        return PlaceError(redacted(str(error)))

    def _advice(self) -> str:
        return "set HF_TOKEN" if self._token is None else "the token of HF_TOKEN may not use it"

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The Hub's refusals in our words."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            text = redacted(str(error).splitlines()[0])
            if status in {400, 401, 403, 404, 409, 413, 422}:
                raise PlaceError(f"{self.address}: the Hub answered {status}: {self._advice()} ({text})") from error
            raise PlaceUnreachableError(f"{self.address}: the Hub answered {status} ({text})") from error
        except _failures() as error:
            reason = error.__cause__ or error  # the library's threads say only which file it was
            raise PlaceUnreachableError(
                f"{self.address}: {redacted(str(reason)).split(chr(10))[0] or type(reason).__name__}"
            ) from error


def _equals(there: RepoFile | None, outgoing: Outgoing) -> bool:
    """Whether the Hub's file is this one: by its SHA-256, or by git's name for a file that is not large."""
    if there is None or there.size != outgoing.entry.bytes:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == outgoing.entry.sha256)
    data = outgoing.file.read_bytes()
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest())


def _failures() -> tuple[type[BaseException], ...]:
    """What huggingface_hub raises on the way: of its threads, of answers that make no sense, of its HTTP client."""
    clients = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return (OSError, RuntimeError, ValueError, *(client.HTTPError for client in clients))
