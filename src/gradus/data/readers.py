"""Files as streams of texts: txt, md, jsonl, json and parquet, plain or compressed by gzip or zstandard.

A reader never holds more than one record of a streamed file. A bad record is a `Dropped` with its line and
reason and the stream goes on; a file that cannot be what it claims (damaged, or without the text column) is a
DataError.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from gradus.core.errors import DataError, did_you_mean
from gradus.core.quantity import format_bytes
from gradus.data.drops import Dropped
from gradus.data.file_formats import FileFormat, FoundText, ReadOptions

# A meta field longer than this is content, not a label.
_MAX_META_CHARACTERS = 500
# A file whose first records all lack the text column has another column for it.
_RECORDS_TO_JUDGE = 100
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


def read_file(path: Path, file_kind: FileFormat, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    """Every text of one file, in order. Errors: DataError where the file is damaged or lacks the text column.

    With `options.keep_damaged` a damaged file gives what could be read and one `Dropped("damaged_file")`.
    """
    try:
        if path.stat().st_size == 0:
            yield Dropped("empty_file", str(path), "the file has no bytes")
            return
        yield from _READERS[file_kind](path, options)
    except FileNotFoundError:
        raise DataError(f"{path}: the file vanished while the corpus was being built") from None
    except PermissionError:
        raise DataError(f"{path}: this user may not read the file") from None
    except (*_DAMAGE, pa.ArrowException, OSError) as error:
        detail = f"{type(error).__name__}: {error}"
        if not options.keep_damaged:
            raise DataError(
                f"{path}: damaged or cut short ({detail}); fetch it again, or set "
                'damaged = "keep" to use what can be read before the damage'
            ) from error
        yield Dropped("damaged_file", str(path), detail)


# Text files


def _read_text(path: Path, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    if options.split == "file":
        yield from _read_whole_text(path, options)
        return
    paragraph: list[str] = []
    size, first_line, number = 0, 0, 0
    for number, line in _decoded_lines(path, options):
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
            yield _paragraph(path, paragraph, first_line, size, options)
            paragraph, size, first_line = [], 0, 0
    if paragraph:
        yield _paragraph(path, paragraph, first_line, size, options)


def _paragraph(path: Path, lines: list[str], first_line: int, size: int, options: ReadOptions) -> FoundText | Dropped:
    if size > options.max_line_bytes:
        return _too_long(path, first_line, size, options, lines[0])
    return FoundText("".join(lines).rstrip("\r\n"), first_line)


def _read_whole_text(path: Path, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    with _open_bytes(path) as stream:
        content = stream.read(options.max_line_bytes + 1)
    if len(content) > options.max_line_bytes:
        raise DataError(
            f"{path}: more than {format_bytes(options.max_line_bytes)} as one document; set "
            'split = "paragraphs" or "line", or raise max_line_bytes'
        )
    decoded = _decode(content.removeprefix(b"\xef\xbb\xbf"), str(path))
    yield decoded if isinstance(decoded, Dropped) else FoundText(decoded)


# Records


def _read_jsonl(path: Path, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    return _texts_of_records(path, _parsed_lines(path, options), options)


def _parsed_lines(path: Path, options: ReadOptions) -> Iterator[tuple[int, Any]]:
    for number, line in _decoded_lines(path, options):
        if isinstance(line, Dropped):
            yield number, line
        elif line.strip():
            yield number, _parse(line, f"{path}:{number}")


def _read_json(path: Path, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    """A list of records; or, where the file does not begin with "[", JSON lines under the name .json."""
    with _open_bytes(path) as stream:
        head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(b"["):
        lines = _parsed_lines(path, options)
        first = next(lines, None)
        if first is not None and isinstance(first[1], Dropped) and first[1].reason == "invalid_json":
            raise DataError(
                f"{first[1].place}: neither a list of records nor one record a line ({first[1].detail}); "
                'write a JSON list "[...]", or JSON lines'
            )
        return _texts_of_records(path, _parsed_lines(path, options), options)
    with _open_bytes(path) as stream:
        content = stream.read(options.max_line_bytes + 1)
    if len(content) > options.max_line_bytes:
        raise DataError(
            f"{path}: a JSON list of more than {format_bytes(options.max_line_bytes)} cannot be streamed; "
            "write it as JSON lines (.jsonl), or raise max_line_bytes"
        )
    decoded = _decode(content.removeprefix(b"\xef\xbb\xbf"), str(path))
    parsed = decoded if isinstance(decoded, Dropped) else _parse(decoded, str(path))
    if isinstance(parsed, Dropped):
        raise DataError(f"{parsed.place}: {parsed.reason.replace('_', ' ')} ({parsed.detail})")
    return _texts_of_records(path, enumerate(parsed, start=1), options)


def _read_parquet(path: Path, options: ReadOptions) -> Iterator[FoundText | Dropped]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        if options.text_key not in schema.names:
            raise _missing_column(str(path), options.text_key, schema.names)
        kind = schema.field(options.text_key).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise DataError(f'{path}: column "{options.text_key}" holds {kind}, expected text')
        columns = [f.name for f in schema if f.name == options.text_key or not pa.types.is_nested(f.type)]
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=columns):
            rows = batch.to_pylist()
            yield from _texts_of_records(path, enumerate(rows, start=number + 1), options)
            number += len(rows)


def _texts_of_records(
    path: Path, records: Iterator[tuple[int, Any]] | enumerate[Any], options: ReadOptions
) -> Iterator[FoundText | Dropped]:
    """The text column of each record; DataError where no record among the first has it."""
    key = options.text_key
    num_judged, has_key, columns = 0, False, dict[str, None]()
    for number, record in records:
        place = f"{path}:{number}"
        if isinstance(record, Dropped):
            yield record
            continue
        if isinstance(record, str):
            yield FoundText(record, number)
            has_key = True
            continue
        if not isinstance(record, dict):
            yield Dropped("not_a_record", place, f"expected an object, found {type(record).__name__}")
            continue
        if not has_key:
            has_key = key in record
            columns |= dict.fromkeys(record)
            num_judged += 1
            if not has_key and num_judged == _RECORDS_TO_JUDGE:
                raise _missing_column(place, key, list(columns))
        yield _text_of_record(record, key, place, number)
    if num_judged and not has_key:
        raise _missing_column(str(path), key, list(columns))


def _text_of_record(record: dict[str, Any], key: str, place: str, number: int) -> FoundText | Dropped:
    text = record.get(key)
    if text is None:
        return Dropped("missing_text", place, f'no "{key}"; found {", ".join(map(str, record))}')
    if not isinstance(text, str):
        return Dropped("text_is_not_text", place, f'"{key}" is {type(text).__name__}', str(text)[:200])
    meta = {name: value for name, value in record.items() if name != key and _is_label(value)}
    return FoundText(text, number, meta)


def _is_label(value: Any) -> bool:
    return isinstance(value, int | float | bool) or (isinstance(value, str) and 0 < len(value) <= _MAX_META_CHARACTERS)


def _missing_column(place: str, key: str, columns: list[str]) -> DataError:
    hint = did_you_mean(key, columns) or "; set text_key to the column that holds the text"
    return DataError(f'{place}: no column "{key}"; columns found: {", ".join(sorted(columns))}{hint}')


def _parse(text: str, place: str) -> Any:
    """The JSON value, or Dropped."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return Dropped("invalid_json", place, str(error), text[:200])


# Bytes


@contextmanager
def _open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed by its name."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", unzipped), 1 << 20))
        elif suffix == ".zst":
            yield cast("BinaryIO", io.BufferedReader(_ZstandardStream(file), 1 << 20))
        else:
            yield file


class _ZstandardStream(io.RawIOBase):
    """Decompressed zstandard that, unlike the package's own reader, raises EOFError on a file cut short."""

    # Small, since one byte of input may stand for tens of kilobytes of output.
    _INPUT_BYTES = 4096

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._file.read(self._INPUT_BYTES)
                if not self._input:
                    if self._frame is not None:
                        raise EOFError("the file ends inside a zstandard frame")
                    return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size


def _decoded_lines(path: Path, options: ReadOptions) -> Iterator[tuple[int, str | Dropped]]:
    """(line number, line with its end, or why it is dropped); at most `max_line_bytes` are held."""
    most = options.max_line_bytes
    with _open_bytes(path) as stream:
        number = 0
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
                yield number, _too_long(path, number, size, options, excerpt)
                continue
            yield number, _decode(line, f"{path}:{number}")


def _too_long(path: Path, line: int, size: int, options: ReadOptions, excerpt: str) -> Dropped:
    detail = f"{format_bytes(size)}, more than max_line_bytes = {options.max_line_bytes}"
    return Dropped("line_too_long", f"{path}:{line}", detail, excerpt)


def _decode(content: bytes, place: str) -> str | Dropped:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte 0x{content[error.start]:02x} at position {error.start} is not UTF-8"
        return Dropped("invalid_utf8", place, detail, content[:200].decode("utf-8", "replace"))


_READERS: dict[FileFormat, Callable[[Path, ReadOptions], Iterator[FoundText | Dropped]]] = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "parquet": _read_parquet,
}
