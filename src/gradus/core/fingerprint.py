"""One byte string for one meaning: canonical JSON and SHA-256, the identity of stages and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _plain(value: Any) -> Any:
    """What json does not know by itself: settings, quantities, paths."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"a {type(value).__name__} has no canonical JSON form")


def canonical_json(obj: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; NaN and infinities are refused (ValueError)."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode("utf-8", errors="surrogatepass")


def digest(obj: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(obj)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits, in bounded memory."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def stage_fingerprint(
    kind: str,
    version: int,
    settings: Any,
    seed: int,
    sources: Mapping[str, str],
    parents: Mapping[str, str | list[str]],
) -> str:
    """Identity of a stage's result: what it does, with what, from what.

    settings: the resolved settings without input names; sources: digests of external files; parents: the
    fingerprint of each input (a list where an input takes several). Gates, machine and world size stay out.
    """
    return digest(
        {
            "kind": kind,
            "version": version,
            "settings": settings,
            "seed": seed,
            "sources": dict(sources),
            "parents": dict(parents),
        }
    )
