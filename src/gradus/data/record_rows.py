"""Whole rows of a file wherever it stands: parquet and JSON, for readers of conversations; texts: see readers.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradus.conversation.record_values import RowError
from gradus.conversation.records import Row, json_rows
from gradus.core.compression import COMPRESSION_DAMAGE
from gradus.core.fingerprint import digest
from gradus.data.drops import Dropped
from gradus.data.file_formats import FileFormat, ReadableFile, ReadOptions
from gradus.data.readers import PARQUET_BUFFER_BYTES, bounded_batches, open_bytes, opened_parts, selected_rows
from gradus.data.records import missing_column

NOT_SELECTED = "not_selected"


def read_rows(
    file: ReadableFile,
    file_format: FileFormat,
    where: Mapping[str, Sequence[str]],
    columns: Sequence[str] | None = None,
    group_order: object = None,
) -> Iterator[Row]:
    """(row number or line, row or what is wrong there); a row that `where` leaves out is a RowError.

    columns: of parquet, the ones to read, all if None. group_order: what decides the order of parquet's row groups, so
    that the first rows of a long file are from everywhere in it; None keeps the file's. Errors: DataError where a
    column is not there.
    """
    try:
        if file_format == "parquet":
            yield from _parquet_rows(file, where, columns, group_order)
            return
        with open_bytes(file) as stream:
            for number, row in json_rows(stream, is_lines=file_format == "jsonl"):
                yield number, row if isinstance(row, str | RowError) else _selected(row, where)
    except (*COMPRESSION_DAMAGE, pa.ArrowException) as error:
        yield 0, f"damaged or cut short ({type(error).__name__}: {error})"


def _selected(row: Mapping[str, Any], where: Mapping[str, Sequence[str]]) -> Mapping[str, Any] | RowError:
    for key, taken in where.items():
        if str(row.get(key)) not in taken:
            return RowError(NOT_SELECTED, f'"{key}" is {str(row.get(key))[:60]!r}')
    return row


def _parquet_rows(
    file: ReadableFile, where: Mapping[str, Sequence[str]], columns: Sequence[str] | None, group_order: object
) -> Iterator[Row]:
    options = ReadOptions(where=tuple((key, tuple(taken)) for key, taken in where.items()))
    with (
        opened_parts(file) as parts,
        pq.ParquetFile(parts, buffer_size=PARQUET_BUFFER_BYTES, pre_buffer=False) as parquet,
    ):
        names = parquet.schema_arrow.names
        for key in (*(columns or ()), *where):
            if key not in names:
                raise missing_column(str(file), key, names)
        read = None if columns is None else [name for name in names if name in columns or name in where]
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        groups = list(range(len(sizes)))
        if group_order is not None:
            groups.sort(key=lambda group: digest(["row groups", group_order, group]))
        numbers = [sum(sizes[:group]) for group in range(len(sizes))]
        for group, batch in bounded_batches(file, parquet, groups, read):
            for line, row in selected_rows(file, batch, numbers[group], options):
                yield line, RowError(row.reason, row.detail) if isinstance(row, Dropped) else row
            numbers[group] += batch.num_rows
