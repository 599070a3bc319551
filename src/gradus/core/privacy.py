"""What a card or a report shows of settings: no folder of this machine, no address beyond its host.

Both are passed on to others. Where somebody keeps files, and by which path or port an inner service is reached, is
nobody's business; the file's name and the host say what a reader needs. Records that walks read again keep it all.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_PUBLIC = {"huggingface.co", "github.com", "arxiv.org"}  # pages to look things up at, not services
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+@")  # of an address inside a text
_FOLDER = re.compile(r"(?:folder:|files:)?(?:~[\w.-]*|\.{1,2})?/")


def shown_address(address: str) -> str:
    """The host of an address: "https://user:key@api.example.com:8443/v1" is "api.example.com"."""
    try:
        return urlsplit(address).hostname or "an address"
    except ValueError:
        return "an address"


def shown_path(path: str) -> str:
    """The last name of a path, or of a pattern: "folder:~/models/qwen" is "qwen", "/data/books/*.txt" is "*.txt"."""
    return path.rstrip("/").rpartition("/")[2] or "a folder"


def shown(value: Any) -> Any:
    """Settings, or any JSON, with every local path and every address in it cut down to what may be shown."""
    if isinstance(value, str):
        if _ADDRESS.fullmatch(value):
            return _shown_location(value)
        return shown_path(value) if _FOLDER.match(value) else _CREDENTIALS.sub("", value)
    if isinstance(value, dict):
        return _shown_entries(value)
    return [shown(entry) for entry in value] if isinstance(value, list) else value


def _shown_entries(entries: dict[Any, Any]) -> dict[Any, Any]:
    """Each entry by what may be shown of its key; where that is the same of several, they are numbered."""
    found: dict[Any, Any] = {}
    for key, entry in entries.items():
        name, number = shown(key), 1
        while name in found:
            number += 1
            name = f"{shown(key)} ({number})"
        found[name] = shown(entry)
    return found


def _shown_location(address: str) -> str:
    """A public page without what is secret about it; of another address the host, and the file where it names one."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "an address"
    name = shown_path(parts.path)
    if parts.scheme == "file":
        return name
    host = shown_address(address)
    if host in _PUBLIC:
        return f"{parts.scheme}://{host}{parts.path}"
    return f"{host}: {name}" if "." in name else host
