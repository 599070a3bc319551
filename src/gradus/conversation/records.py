"""Reading conversations from files in the shapes that the field uses; what cannot be read is handed back.

Files: .json (a list, or one object) and .jsonl, each also as .gz or .zst; a list is read row by row, in bounded memory.
Rows that come another way (parquet, the Hub) go through `imported_rows`. Shapes: see record_shapes.py.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from gradus.conversation.calculator_marks import RunTool
from gradus.conversation.message_trees import message_forest
from gradus.conversation.messages import Conversation, Pair, check_json_text
from gradus.conversation.record_shapes import convert_row
from gradus.conversation.record_values import RowError
from gradus.core.compression import COMPRESSION_DAMAGE, decompressed
from gradus.core.errors import DataError
from gradus.core.files import readable_name

# A row of a JSON list that is longer than this is taken for a list that is not one.
_MOST_ROW_CHARACTERS = 1 << 26
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that could not be read: where it stands, why in a sentence, and why in a word to count by.

    line counts from 1; source: the label that the row would have had.
    """

    file: str
    line: int
    reason: str
    kind: str = "unreadable"
    source: str = ""


Imported = Conversation | Pair | Quarantined
Row = tuple[int, Mapping[str, Any] | RowError | str]
"""A row's line, and the row or what is wrong there."""


def import_records(
    path: Path | str, source: str = "", run_tool: RunTool | None = None, shape: str | None = None
) -> Iterator[Imported]:
    """Conversations, pairs, and rows that could not be read, in the order of the file.

    source: recorded in each row (default: the file's name). run_tool: recomputes the results of calculator
    marks (GSM8K) by the tool that will be in use; without it the file's own results stand. shape: the name of the rows'
    layout, where their keys do not tell. DataError where there is no such file; faults inside it are Quarantined.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    golden = _GoldenAnswers(path)
    rows = ((line, row if isinstance(row, str | RowError) else golden.joined(row)) for line, row in _rows(path))
    return imported_rows(rows, readable_name(path), source or readable_name(path.name), run_tool, shape)


def imported_rows(
    rows: Iterable[Row], file: str, source: str, run_tool: RunTool | None = None, shape: str | None = None
) -> Iterator[Imported]:
    """As `import_records`, of rows that were read already. file: their place, for messages and ids."""
    forest = _Forest(file, source)
    stem = Path(file).name.split(".")[0]
    for line, row in rows:
        if isinstance(row, str | RowError):
            yield _quarantined(file, line, row, source)
            continue
        if shape is None and forest.takes(row):
            forest.add(line, row)
            continue
        try:
            found = list(convert_row(row, run_tool, shape))
        except DataError as error:
            yield _quarantined(file, line, error, source)
            continue
        except RecursionError:
            yield _quarantined(file, line, "nested too deep", source)
            continue
        for index, item in enumerate(found):
            if isinstance(item, RowError):
                yield _quarantined(file, line, item, source)
                continue
            suffix = f"-{index}" if len(found) > 1 else ""
            name = item.id + suffix if item.id else f"{stem}-{line}{suffix}"
            yield _written(replace(item, source=item.source or source, id=name), file, line, source)
    yield from forest.conversations()


def _written(item: Conversation | Pair, file: str, line: int, source: str) -> Imported:
    """The row, where it can be written: a lone surrogate (half of an emoji that was cut) stands in no file of text."""
    try:
        check_json_text(item.to_json(), "row")
    except DataError as error:
        return _quarantined(file, line, error, source)
    return item


def _quarantined(file: str, line: int, error: DataError | str, source: str) -> Quarantined:
    kind = error.reason if isinstance(error, RowError) else "unreadable"
    # A reason may quote a row that is no Unicode.
    reason = str(error).encode(errors="backslashreplace").decode()
    return Quarantined(file, line, reason, kind, source)


# --- golden answers that stand in a file of their own (BFCL)

_GOLDEN_FOLDER = "possible_answer"


def golden_answer_file(path: Path) -> Path | None:
    """The file with the answers to the questions of this one, by the layout of BFCL; None where there is none."""
    plain = path.name.removesuffix(".gz")
    found = (path.parent / _GOLDEN_FOLDER / name for name in (plain, f"{plain}.gz"))
    return next((file for file in found if file.is_file()), None)


class _GoldenAnswers:
    """Answers by the ids of their questions, read when the first question asks for one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[str, object] | None = None

    def joined(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if not {"id", "question", "function"} <= row.keys() or "ground_truth" in row:
            return row
        if self._answers is None:
            file = golden_answer_file(self._path)
            read = _rows(file) if file is not None else ()
            self._answers = {str(r.get("id")): r.get("ground_truth") for _, r in read if isinstance(r, Mapping)}
        return {**row, "ground_truth": self._answers.get(str(row["id"]))}


class _Forest:
    """Messages that stand in rows of their own, linked by the ids of their parents (OASST's flat layout)."""

    def __init__(self, file: str, source: str) -> None:
        self._file, self._source = file, source
        self._rows: list[tuple[int, Mapping[str, Any]]] = []

    def takes(self, row: Mapping[str, Any]) -> bool:
        return {"text", "role"} <= row.keys() and any(key in row for key in ("parent_message_id", "parent_id"))

    def add(self, line: int, row: Mapping[str, Any]) -> None:
        self._rows.append((line, row))

    def conversations(self) -> Iterator[Imported]:
        for line, found in message_forest(self._rows):
            if isinstance(found, DataError):
                yield _quarantined(self._file, line, found, self._source)
            else:
                name = found.id or f"{Path(self._file).name.split('.')[0]}-{line}"
                yield _written(replace(found, source=self._source, id=name), self._file, line, self._source)


def _rows(path: Path) -> Iterator[Row]:
    """(line, row, or what is wrong there) of a file, whatever its compression."""
    names = path.name.lower().split(".")
    try:
        with path.open("rb") as raw, decompressed(raw, path.name) as stream:
            yield from json_rows(stream, is_lines="jsonl" in names or "ndjson" in names)
    except COMPRESSION_DAMAGE as error:
        yield 0, f"compressed data is damaged or cut short ({error})"


def json_rows(stream: IO[bytes], is_lines: bool) -> Iterator[Row]:
    """The rows of plain JSON lines, or of a JSON list (or one object after another)."""
    return _json_lines(stream) if is_lines else _json_document(stream)


def _json_lines(stream: IO[bytes]) -> Iterator[Row]:
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


class _Text:
    """The text of a stream as far as it was read, its beginning given up as it is passed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.is_whole = "", 0, False
        self._line, self._counted = 1, 0  # the line at which `_counted` stands

    def more(self) -> bool:
        """Read on; False at the end. Errors: UnicodeDecodeError."""
        if self.is_whole:
            return False
        # A row longer than a piece takes more and more of them, so that it is not begun again for each.
        piece = self._stream.read(max(_PIECE_BYTES, len(self.text) - self.at))
        self.is_whole = not piece
        self._line, self._counted = self.line(), 0
        self.text = self.text[self.at :] + self._decoder.decode(piece, final=self.is_whole)
        self.at = 0
        return True

    def skip_space(self) -> str:
        """Go to the next character that is no white space; that character, '' at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def line(self) -> int:
        """Of the place that is reached, counted from 1."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line


def _json_document(stream: IO[bytes]) -> Iterator[Row]:
    """Rows of a JSON list, read one after another so that a cut file still gives its whole rows."""
    read = _Text(stream)
    try:
        is_list = read.skip_space() == "["
        read.at += is_list
        while (first := read.skip_space()) and not (is_list and first == "]"):
            line = read.line()
            value, problem = _json_value(read)
            if problem:
                yield line, problem
                return
            yield line, _as_object(value)
            behind = read.skip_space()
            if is_list and behind == ",":
                read.at += 1
            elif is_list and behind and behind != "]":
                yield read.line(), "expected , or ] after this row; the rest is not read"
                return
        if is_list and not first:
            yield read.line(), "the list is not closed: the file is cut short"
    except UnicodeDecodeError as error:
        yield read.line(), f"not UTF-8 text ({error.reason}); the rest of the file is not read"


def _json_value(read: _Text) -> tuple[object, str]:
    """The value that begins here, or what is wrong with it; more is read while it may only be cut short."""
    decoder = json.JSONDecoder()
    while True:
        try:
            value, end = decoder.raw_decode(read.text, read.at)
        except (ValueError, RecursionError) as error:
            if isinstance(error, ValueError) and len(read.text) - read.at < _MOST_ROW_CHARACTERS and read.more():
                continue
            return None, f"not JSON ({error}); the rest of the file is not read"
        # A number may go on in what is not read yet.
        if end == len(read.text) and not read.is_whole and read.more():
            continue
        read.at = end
        return value, ""


def _as_object(value: object) -> Mapping[str, Any] | str:
    return value if isinstance(value, dict) else f"expected an object, found {type(value).__name__}"
