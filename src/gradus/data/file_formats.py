"""Which files can be read, by their names, and how; light to import, since plans ask it too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gradus.core.errors import DataError

TextSplit = Literal["file", "line", "paragraphs"]
FileFormat = Literal["text", "jsonl", "json", "parquet"]
Meta = dict[str, str | int | float | bool]

SUFFIXES: dict[str, FileFormat] = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class FoundText:
    """A text as it stood in the file. line: 1-based line or row, 0 for a whole file."""

    text: str
    line: int = 0
    meta: Meta = field(default_factory=dict)


@dataclass(frozen=True)
class ReadOptions:
    """How to read a file; see FilesSource for the meaning of each."""

    text_key: str = "text"
    split: TextSplit = "file"
    max_line_bytes: int = 1 << 26
    keep_damaged: bool = False


def file_format(path: Path) -> FileFormat:
    """The format by the file's name. Errors: DataError with the names that are read."""
    suffixes = [s.lower() for s in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else None
    found = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if found is None or (found == "parquet" and compression):
        raise DataError(
            f"{path}: cannot tell what this file holds; names that end in {', '.join(SUFFIXES)} are read, "
            f"text and JSON also with {' or '.join(COMPRESSIONS)}; rename it, narrow the pattern, or set "
            'format = "text" (or jsonl, json, parquet)'
        )
    return found
