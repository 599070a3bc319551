"""Which files can be read, by their names, and how; light to import, since plans ask it too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO, Literal, Protocol

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
    """How to read a file; see FilesSource and RemoteSettings for the meaning of each.

    text_keys: the columns whose texts are joined; where: (column, the values that are taken) pairs, all of which
    a record must satisfy.
    """

    text_keys: tuple[str, ...] = ("text",)
    split: TextSplit = "file"
    max_line_bytes: int = 1 << 26
    keep_damaged: bool = False
    id_key: str | None = None
    url_key: str | None = None
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that must be there, each once."""
        named = (*self.text_keys, self.id_key, self.url_key, *(column for column, _ in self.where))
        return tuple(dict.fromkeys(column for column in named if column is not None))


class ReadableFile(Protocol):
    """Bytes to read, wherever they stand. `str()` of it is its place in messages."""

    @property
    def name(self) -> str:
        """Its file name; the end says the compression."""

    def size(self) -> int:
        """Bytes."""

    def open(self) -> BinaryIO:
        """The bytes from the start, to be read once through."""

    def random_access(self) -> str | BinaryIO:
        """What pyarrow reads parts of: a local path, or a stream that can seek."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def size(self) -> int:
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    def random_access(self) -> str:
        return str(self.path)


def is_readable_name(name: str) -> bool:
    """Whether a file of this name is read without being told its format; hidden files are not."""
    path = PurePosixPath(name)
    lower = path.name.lower()
    for compression in COMPRESSIONS:
        lower = lower.removesuffix(compression)
    return not path.name.startswith(".") and PurePosixPath(lower).suffix in SUFFIXES


def file_format(path: PurePath) -> FileFormat:
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
