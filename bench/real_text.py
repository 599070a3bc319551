"""Real text for benchmarks: the "text" of JSON lines and whole text files, packed or not, under some folders."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path


def read_texts(folders: list[Path]) -> Iterator[str]:
    """Every text, files in the order of their names."""
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        opened = gzip.open if path.suffix == ".gz" else open
        if ".jsonl" in path.suffixes:
            with opened(path, "rt", encoding="utf-8") as lines:
                yield from (json.loads(line)["text"] for line in lines)
        elif ".txt" in path.suffixes:
            with opened(path, "rt", encoding="utf-8") as file:
                yield file.read()


def texts_up_to(folders: list[Path], megabytes: float) -> list[str]:
    """Texts in order until there is so much of them, in UTF-8."""
    found: list[str] = []
    size = 0
    for text in read_texts(folders):
        if size >= megabytes * 1e6:
            break
        found.append(text)
        size += len(text.encode())
    return found
