"""Reading conversations from files in the shapes that the field uses; what cannot be read is handed back.

Files: .json (a list, or one object) and .jsonl, each also as .gz or .zst. Rows: see record_shapes.py.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import zstandard

from gradus.conversation.calculator_marks import RunTool
from gradus.conversation.message_trees import message_forest
from gradus.conversation.messages import Conversation, Pair
from gradus.conversation.record_shapes import convert_row
from gradus.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that could not be read: where it stands and why. line counts from 1."""

    file: str
    line: int
    reason: str


Imported = Conversation | Pair | Quarantined


def import_records(path: Path | str, source: str = "", run_tool: RunTool | None = None) -> Iterator[Imported]:
    """Conversations, pairs, and rows that could not be read, in the order of the file.

    source: recorded in each row (default: the file's name). run_tool: recomputes the results of calculator
    marks (GSM8K) by the tool that will be in use; without it the file's own results stand. DataError where
    there is no such file; faults inside it are Quarantined.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    source = source or path.name
    rows = _rows(path)
    forest = _Forest(path, source)
    count = 0
    for line, row in rows:
        if isinstance(row, str):
            yield Quarantined(str(path), line, row)
            continue
        if forest.takes(row):
            forest.add(line, row)
            continue
        try:
            found = list(convert_row(row, run_tool))
        except DataError as error:
            yield Quarantined(str(path), line, str(error))
            continue
        for index, item in enumerate(found):
            count += 1
            suffix = f"-{index}" if len(found) > 1 else ""
            name = item.id + suffix if item.id else f"{path.name.split('.')[0]}-{line}{suffix}"
            yield replace(item, source=item.source or source, id=name)
    yield from forest.conversations()


class _Forest:
    """Messages that stand in rows of their own, linked by the ids of their parents (OASST's flat layout)."""

    def __init__(self, path: Path, source: str) -> None:
        self._path, self._source = path, source
        self._rows: list[tuple[int, Mapping[str, Any]]] = []

    def takes(self, row: Mapping[str, Any]) -> bool:
        return {"text", "role"} <= row.keys() and any(key in row for key in ("parent_message_id", "parent_id"))

    def add(self, line: int, row: Mapping[str, Any]) -> None:
        self._rows.append((line, row))

    def conversations(self) -> Iterator[Imported]:
        for line, found in message_forest(self._rows):
            if isinstance(found, str):
                yield Quarantined(str(self._path), line, found)
            else:
                name = found.id or f"{self._path.name.split('.')[0]}-{line}"
                yield replace(found, source=self._source, id=name)


_Row = tuple[int, Mapping[str, Any] | str]


def _rows(path: Path) -> Iterator[_Row]:
    """(line, row, or what is wrong there) of a file, whatever its compression."""
    names = path.name.lower().split(".")
    try:
        with _opened(path, names[-1]) as stream:
            if "jsonl" in names or "ndjson" in names:
                yield from _json_lines(stream)
            else:
                yield from _json_document(stream.read())
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        yield 0, f"compressed data is damaged or cut short ({error})"


def _opened(path: Path, ending: str) -> IO[bytes] | gzip.GzipFile:
    if ending == "gz":
        return gzip.open(path, "rb")
    if ending == "zst":
        raw = open(path, "rb")  # noqa: SIM115  (closed with the reader)
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, closefd=True))
    return open(path, "rb")


def _json_lines(stream: IO[bytes] | gzip.GzipFile) -> Iterator[_Row]:
    for number, raw in enumerate(stream, start=1):
        if not raw.strip():
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, f"not UTF-8 text ({error.reason} at byte {error.start})"
            continue
        try:
            yield number, _as_object(json.loads(text))
        except (ValueError, RecursionError) as error:
            yield number, f"not a line of JSON ({error})"


def _json_document(raw: bytes) -> Iterator[_Row]:
    """Rows of a JSON list, read one after another so that a cut file still gives its whole rows."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield raw.count(b"\n", 0, error.start) + 1, f"not UTF-8 text ({error.reason} at byte {error.start})"
        return
    decoder = json.JSONDecoder()
    at, line, counted = _skip(text, 0), 1, 0
    is_list = text[at : at + 1] == "["
    at = _skip(text, at + 1) if is_list else at
    while at < len(text):
        if is_list and text[at] == "]":
            return
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield line, f"not JSON ({error}); the rest of the file is not read"
            return
        yield line, _as_object(value)
        at = _skip(text, at)
        if is_list and text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif is_list and at < len(text) and text[at] != "]":
            yield line + text.count("\n", counted, at), "expected , or ] after this row; the rest is not read"
            return
    if is_list:
        yield line + text.count("\n", counted), "the list is not closed: the file is cut short"


def _skip(text: str, at: int) -> int:
    """The next place that is no white space."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _as_object(value: object) -> Mapping[str, Any] | str:
    return value if isinstance(value, dict) else f"expected an object, found {type(value).__name__}"
