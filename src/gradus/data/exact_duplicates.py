"""Exact duplicates by text and by web address over a whole corpus, and against what earlier corpora hold.

The first document of a text, and of a `normalise_url` address, stays. Only documents that stay count: one that is
out for its text does not claim its address, so every duplicate has a document that is kept. Memory is that of
`SeenHashes`, whatever the number of documents. In `folder`,

    texts.bin, urls.bin   16 bytes for each document that stays (and has an address), in order
    exact.json            written last, by `close`: counts

are what a later corpus names in `against`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gradus.core.errors import DataError
from gradus.core.files import fsync_file, write_atomic
from gradus.data.dedup import HASH_BYTES, SeenHashes
from gradus.data.urls import URLS_VERSION, normalise_url

DuplicateReason = Literal["duplicate", "duplicate_url"]
_FORMAT = 1
_READ_HASHES = 1 << 16


def url_id(url: str) -> str:
    """The first 128 bits of the SHA-256 of the normalised address, as 32 hex digits."""
    return hashlib.sha256(normalise_url(url).encode("utf-8", "surrogatepass")).hexdigest()[: 2 * HASH_BYTES]


class ExactDuplicates:
    """Decides document by document, in order; `close` makes the folder usable by later corpora."""

    def __init__(self, folder: Path, *, against: Sequence[Path] = (), by_url: bool = True) -> None:
        """against: folders of earlier corpora. Errors: DataError where one is unfinished or damaged."""
        self._folder = folder
        self._by_url = by_url
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "exact.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        self._seen = {name: SeenHashes(folder / "scratch" / name) for name in ("texts", "urls")}
        self._counts = dict.fromkeys(self._seen, 0)
        for name in self._seen:
            (folder / f"{name}.bin").write_bytes(b"")
        for earlier in against:
            self._load(earlier)

    def add(self, ids: Sequence[str], urls: Sequence[str | None] | None = None) -> list[DuplicateReason | None]:
        """Why each document is out, None where it stays. ids: `document_id`; urls: None where there is none."""
        keys = [url_id(url) if url and self._by_url else None for url in urls or [None] * len(ids)]
        known_texts, known_urls = self._known("texts", ids), self._known("urls", [key for key in keys if key])
        kept_texts: list[str] = []
        kept_urls: list[str] = []
        reasons: list[DuplicateReason | None] = []
        for identity, key in zip(ids, keys, strict=True):
            if identity in known_texts:
                reasons.append("duplicate")
            elif key is not None and key in known_urls:
                reasons.append("duplicate_url")
            else:
                reasons.append(None)
                known_texts.add(identity)
                kept_texts.append(identity)
                if key is not None:
                    known_urls.add(key)
                    kept_urls.append(key)
        self._keep("texts", kept_texts)
        self._keep("urls", kept_urls)
        return reasons

    def close(self) -> None:
        """Finish the folder."""
        for name in self._seen:
            fsync_file(self._folder / f"{name}.bin")
        content = {"format": _FORMAT, "urls_version": URLS_VERSION, **self._counts}
        write_atomic(self._folder / "exact.json", json.dumps(content, indent=1))
        self._seen = {}
        shutil.rmtree(self._folder / "scratch", ignore_errors=True)

    def _known(self, name: str, hashes: Sequence[str]) -> set[str]:
        if not hashes:
            return set()
        known = self._seen[name].contains(list(hashes))
        return {value for value, is_known in zip(hashes, known.tolist(), strict=True) if is_known}

    def _keep(self, name: str, hashes: list[str]) -> None:
        if hashes:
            self._seen[name].add(hashes)
            self._counts[name] += len(hashes)
            with (self._folder / f"{name}.bin").open("ab") as file:
                file.write(bytes.fromhex("".join(hashes)))

    def _load(self, earlier: Path) -> None:
        try:
            content = json.loads((earlier / "exact.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{earlier}: no exact.json here; the corpus was not finished, build it again") from None
        if content.get("format") != _FORMAT or content.get("urls_version") != URLS_VERSION:
            raise DataError(f"{earlier / 'exact.json'}: written by another version; build that corpus again")
        for name, seen in self._seen.items():
            path = earlier / f"{name}.bin"
            found, expected = path.stat().st_size if path.is_file() else 0, content[name] * HASH_BYTES
            if found != expected:
                raise DataError(f"{path}: {found} bytes, expected {expected}; build that corpus again")
            with path.open("rb") as file:
                while block := file.read(_READ_HASHES * HASH_BYTES):
                    text = block.hex()
                    width = 2 * HASH_BYTES
                    seen.add([text[place : place + width] for place in range(0, len(text), width)])
