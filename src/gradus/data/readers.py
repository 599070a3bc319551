"""Files as streams of texts: txt, md, jsonl, json and parquet, plain or compressed by gzip or zstandard.

A reader never holds more than one record of a streamed file. A bad record is a `Dropped` with its line and
reason and the stream goes on; a file that cannot be what it claims (damaged, or without the text column) is a
DataError.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradus.core.compression import COMPRESSION_DAMAGE, check_expansion, decompressed
from gradus.core.errors import DataError
from gradus.core.files import is_disk_full
from gradus.core.quantity import format_bytes
from gradus.data.drops import Dropped
from gradus.data.file_formats import FileFormat, FoundText, ReadableFile, ReadOptions
from gradus.data.records import missing_column, not_selected, texts_of_records

# A column without one value has no type.
_TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
PARQUET_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 256
_BATCH_BYTES = 1 << 30  # of a batch, where every row of it is as long as its whole row group


def read_file(
    file: ReadableFile, file_kind: FileFormat, options: ReadOptions, start_row: int = 0
) -> Iterator[FoundText | Dropped]:
    """Every text of one file, in order. Errors: DataError where the file is damaged or lacks a column.

    start_row: how many of them, texts and drops alike, are passed over: where an interrupted reader goes on.
    With `options.keep_damaged` a damaged file gives what could be read and one `Dropped("damaged_file")`.
    """
    passed = _Passed()
    try:
        if file.size() == 0:
            if start_row == 0:
                yield Dropped("empty_file", str(file), "the file has no bytes")
        elif file_kind == "parquet":
            yield from _read_parquet(file, options, start_row, passed)
        else:
            for found in _READERS[file_kind](file, options):
                passed.rows += 1
                if passed.rows > start_row:
                    yield found
    except FileNotFoundError:
        raise DataError(f"{file}: the file vanished while the corpus was being built") from None
    except PermissionError:
        raise DataError(f"{file}: this user may not read the file") from None
    except (*COMPRESSION_DAMAGE, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise
        detail = f"{type(error).__name__}: {error}"
        if not options.keep_damaged:
            raise DataError(
                f"{file}: damaged or cut short ({detail}); fetch it again, or set "
                'damaged = "keep" to use what can be read before the damage'
            ) from error
        if passed.rows >= start_row:  # else the damage itself was the last thing given
            yield Dropped("damaged_file", str(file), detail)


@dataclass(slots=True)
class _Passed:
    """How many rows lie behind a reader, those passed over included."""

    rows: int = 0


# Text files


def _read_text(file: ReadableFile, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    with open_bytes(file) as stream:
        if options.split == "file":
            yield _whole_text(file, stream, options)
            return
        paragraph: list[str] = []
        size, first_line, number = 0, 0, 0
        for number, line in _decoded_lines(file, stream, options):
            if isinstance(line, Dropped):
                yield line
            elif options.split == "line":
                if line.strip():
                    yield FoundText(line.rstrip("\r\n"), number)
            elif line.strip():
                first_line = first_line or number
                size += len(line)
                if size <= options.max_line_bytes:
                    paragraph.append(line)
            elif paragraph:
                yield _paragraph(file, paragraph, first_line, size, options)
                paragraph, size, first_line = [], 0, 0
        if paragraph:
            yield _paragraph(file, paragraph, first_line, size, options)


def _paragraph(
    file: ReadableFile, lines: list[str], first_line: int, size: int, options: ReadOptions
) -> FoundText | Dropped:
    if size > options.max_line_bytes:
        return _too_long(file, first_line, size, options, lines[0])
    return FoundText("".join(lines).rstrip("\r\n"), first_line)


def _whole_text(file: ReadableFile, stream: BinaryIO, options: ReadOptions) -> FoundText | Dropped:
    content = stream.read(options.max_line_bytes + 1)
    if len(content) > options.max_line_bytes:
        raise DataError(
            f"{file}: more than {format_bytes(options.max_line_bytes)} as one document; set "
            'split = "paragraphs" or "line", or raise max_line_bytes'
        )
    decoded = _decode(content.removeprefix(b"\xef\xbb\xbf"), str(file))
    return decoded if isinstance(decoded, Dropped) else FoundText(decoded)


# Records


def _read_jsonl(file: ReadableFile, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    with open_bytes(file) as stream:
        yield from texts_of_records(file, _parsed_lines(file, _decoded_lines(file, stream, options)), options)


def _parsed_lines(file: ReadableFile, lines: Iterator[tuple[int, str | Dropped]]) -> Iterator[tuple[int, Any]]:
    for number, line in lines:
        if isinstance(line, Dropped):
            yield number, line
        elif line.strip():
            yield number, _parse(line, f"{file}:{number}")


def _read_json(file: ReadableFile, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    """A list of records; or, where the file does not begin with "[", JSON lines under the name .json."""
    with open_bytes(file) as stream:
        head = stream.peek(4096)[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
        if not head.startswith(b"["):
            lines = _parsed_lines(file, _decoded_lines(file, stream, options))
            first = next(lines, None)
            if first is not None and isinstance(first[1], Dropped) and first[1].reason == "invalid_json":
                raise DataError(
                    f"{first[1].place}: neither a list of records nor one record a line ({first[1].detail}); "
                    'write a JSON list "[...]", or JSON lines'
                )
            yield from texts_of_records(file, lines if first is None else chain([first], lines), options)
            return
        content = stream.read(options.max_line_bytes + 1)
    if len(content) > options.max_line_bytes:
        raise DataError(
            f"{file}: a JSON list of more than {format_bytes(options.max_line_bytes)} cannot be streamed; "
            "write it as JSON lines (.jsonl), or raise max_line_bytes"
        )
    decoded = _decode(content.removeprefix(b"\xef\xbb\xbf"), str(file))
    parsed = decoded if isinstance(decoded, Dropped) else _parse(decoded, str(file))
    if isinstance(parsed, Dropped):
        raise DataError(f"{parsed.place}: {parsed.reason.replace('_', ' ')} ({parsed.detail})")
    yield from texts_of_records(file, enumerate(parsed, start=1), options)


def _read_parquet(
    file: ReadableFile, options: ReadOptions, start_row: int, passed: _Passed
) -> Iterator[FoundText | Dropped]:
    """Row groups before `start_row` are not read at all."""
    # pyarrow's own choice is to read all row groups ahead; a buffer bounds what is held, however large they are.
    with (
        opened_parts(file) as parts,
        pq.ParquetFile(parts, buffer_size=PARQUET_BUFFER_BYTES, pre_buffer=False) as parquet,
    ):
        columns = _parquet_columns(file, parquet.schema_arrow, options)
        groups = list(range(parquet.num_row_groups))
        while groups and passed.rows + parquet.metadata.row_group(groups[0]).num_rows <= start_row:
            passed.rows += parquet.metadata.row_group(groups.pop(0)).num_rows
        if not groups:
            return
        for _, batch in bounded_batches(file, parquet, groups, columns):
            first = passed.rows
            for found in texts_of_records(file, selected_rows(file, batch, first, options), options):
                passed.rows += 1
                if passed.rows > start_row:
                    yield found


def bounded_batches(
    file: ReadableFile, parquet: pq.ParquetFile, groups: list[int], columns: list[str] | None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(row group, some of its rows) of row groups in their order.

    Errors: DataError where the file becomes more than text does. Asked before, of what the row groups say, and after
    each batch, since one text may stand for many rows; of large row groups a batch is therefore fewer rows.
    """
    packed = file.size()
    wanted = list(range(parquet.metadata.num_columns))
    if columns is not None:
        wanted = [i for i in wanted if parquet.schema.column(i).path.split(".")[0] in columns]
    group_bytes = []
    for group in groups:
        facts = parquet.metadata.row_group(group)
        group_bytes.append(sum(facts.column(i).total_uncompressed_size for i in wanted))
    check_expansion(file, packed, sum(group_bytes))
    num_bytes = 0
    for group, most in zip(groups, group_bytes, strict=True):
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, most)))
        for batch in parquet.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
            num_bytes += batch.nbytes
            check_expansion(file, packed, num_bytes)
            yield group, batch


@contextmanager
def opened_parts(file: ReadableFile) -> Iterator[str | BinaryIO]:
    """What pyarrow reads parts of; a stream is closed, which pyarrow leaves to its owner."""
    parts = file.random_access()
    try:
        yield parts
    finally:
        if not isinstance(parts, str):
            parts.close()


def _parquet_columns(file: ReadableFile, schema: pa.Schema, options: ReadOptions) -> list[str]:
    """The columns to read: those asked for and the short ones beside them. Errors: DataError for a missing one."""
    roots = []
    for key in options.columns:
        root = key if key in schema.names else key.split(".")[0]
        if root not in schema.names or (root != key and not pa.types.is_nested(schema.field(root).type)):
            raise missing_column(str(file), key, schema.names)
        roots.append(root)
    for key in options.text_keys:
        if key not in schema.names:
            continue  # inside a struct: each value is looked at
        kind = schema.field(key).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(fits(kind) for fits in _TEXT_TYPES):
            raise DataError(f'{file}: column "{key}" holds {kind}, expected text')
    return [f.name for f in schema if f.name in roots or not pa.types.is_nested(f.type)]


def selected_rows(
    file: ReadableFile, batch: pa.RecordBatch, start: int, options: ReadOptions
) -> Iterator[tuple[int, dict[str, Any] | Dropped]]:
    """(row number, row); rows that `where` leaves out are never turned into Python texts."""
    plain = [(column, taken) for column, taken in options.where if column in batch.schema.names]
    if not plain:
        yield from enumerate(batch.to_pylist(), start=start + 1)
        return
    masks = [pc.is_in(batch.column(column).cast(pa.string()), pa.array(taken)) for column, taken in plain]
    mask = functools.reduce(pc.and_, masks)
    selected = iter(batch.filter(mask).to_pylist())
    for index, taken_row in enumerate(mask.to_pylist()):
        number = start + index + 1
        if taken_row:
            yield number, next(selected)
        else:
            column = plain[next(i for i, m in enumerate(masks) if not m[index].as_py())][0]
            yield number, not_selected(f"{file}:{number}", column, batch.column(column)[index].as_py())


def _parse(text: str, place: str) -> Any:
    """The JSON value, or Dropped."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Dropped("invalid_json", place, str(error), text[:200])


# Bytes


@contextmanager
def open_bytes(file: ReadableFile) -> Iterator[io.BufferedReader]:
    """The file's bytes, decompressed by its name."""
    with file.open() as raw, decompressed(raw, file.name) as stream:
        yield stream


def _decoded_lines(file: ReadableFile, stream: BinaryIO, options: ReadOptions) -> Iterator[tuple[int, str | Dropped]]:
    """(line number, line with its end, or why it is dropped); at most `max_line_bytes` are held."""
    most, number = options.max_line_bytes, 0
    while line := stream.readline(most + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > most and not line.endswith(b"\n"):
            size, excerpt = len(line), line[:200].decode("utf-8", "replace")
            while rest := stream.readline(1 << 20):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield number, _too_long(file, number, size, options, excerpt)
            continue
        yield number, _decode(line, f"{file}:{number}")


def _too_long(file: ReadableFile, line: int, size: int, options: ReadOptions, excerpt: str) -> Dropped:
    detail = f"{format_bytes(size)}, more than max_line_bytes = {options.max_line_bytes}"
    return Dropped("line_too_long", f"{file}:{line}", detail, excerpt)


def _decode(content: bytes, place: str) -> str | Dropped:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte 0x{content[error.start]:02x} at position {error.start} is not UTF-8"
        return Dropped("invalid_utf8", place, detail, content[:200].decode("utf-8", "replace"))


_READERS: dict[FileFormat, Callable[[ReadableFile, ReadOptions], Iterator[FoundText | Dropped]]] = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "json": _read_json,
}
