"""From a record (a JSON object or a parquet row) to its text: the columns asked for, and the labels beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gradus.core.errors import DataError, did_you_mean
from gradus.data.drops import Dropped
from gradus.data.file_formats import FoundText, Meta, ReadOptions

# Between the texts of several columns: a paragraph break, as between the paragraphs inside one.
JOINT = "\n\n"
# A meta field longer than this is content, not a label; an address may be longer.
_MAX_META_CHARACTERS = 500
_MAX_URL_CHARACTERS = 4000
# A file whose first records all lack a column has another name for it.
_RECORDS_TO_JUDGE = 100
_ABSENT = object()


def texts_of_records(
    file: object, records: Iterable[tuple[int, Any]], options: ReadOptions
) -> Iterator[FoundText | Dropped]:
    """The text of each (row number, record), in order; a Dropped among the records goes through.

    file: its `str()` is the place in messages. Errors: DataError where no record among the first has a column.
    """
    missing, num_judged, columns = set(options.columns), 0, dict[str, None]()
    for number, record in records:
        if isinstance(record, Dropped):
            yield record
            continue
        if isinstance(record, str):
            yield FoundText(record, number)
            missing.clear()
            continue
        place = f"{file}:{number}"
        if not isinstance(record, dict):
            yield Dropped("not_a_record", place, f"expected an object, found {type(record).__name__}")
            continue
        if missing:
            missing = {key for key in missing if _value(record, key) is _ABSENT}
            columns |= dict.fromkeys(record)
            num_judged += 1
            if missing and num_judged == _RECORDS_TO_JUDGE:
                raise missing_column(place, _first(missing, options), list(columns))
        yield _text_of_record(record, options, place, number)
    if num_judged and missing:
        raise missing_column(str(file), _first(missing, options), list(columns))


def _first(missing: set[str], options: ReadOptions) -> str:
    return next(key for key in options.columns if key in missing)


def _text_of_record(record: dict[str, Any], options: ReadOptions, place: str, number: int) -> FoundText | Dropped:
    for column, taken in options.where:
        value = _value(record, column)
        if value not in taken:
            return not_selected(place, column, None if value is _ABSENT else value)
    parts: list[str] = []
    for key in options.text_keys:
        part = _value(record, key)
        if part is None or part is _ABSENT:
            continue
        if not isinstance(part, str):
            return Dropped("text_is_not_text", place, f'"{key}" is {type(part).__name__}', str(part)[:200])
        parts.append(part)
    if not parts:
        wanted = '" or "'.join(options.text_keys)
        empty = [key for key in options.text_keys if _value(record, key) is None]
        said = f'"{empty[0]}" is null' if empty else f'no "{wanted}"; found {", ".join(map(str, record))}'
        return Dropped("missing_text", place, said)
    text = parts[0] if len(options.text_keys) == 1 else JOINT.join(part for part in parts if part)
    meta: Meta = {name: value for name, value in record.items() if name not in options.text_keys and _is_label(value)}
    for name, named in (("id", options.id_key), ("url", options.url_key)):
        if named is not None:
            label = _value(record, named)
            if isinstance(label, str | int) and 0 < len(str(label)) <= _MAX_URL_CHARACTERS:
                meta[name] = label
    return FoundText(text, number, meta)


def not_selected(place: str, column: str, value: Any) -> Dropped:
    """A record that `where` does not take."""
    return Dropped("not_selected", place, f'"{column}" is {str(value)[:60]!r}')


def _value(record: dict[str, Any], key: str) -> Any:
    """The value of a column; "metadata.url" is the column of that name, or `url` inside the column `metadata`."""
    if key in record:
        return record[key]
    value: Any = record
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _is_label(value: Any) -> bool:
    return isinstance(value, int | float | bool) or (isinstance(value, str) and 0 < len(value) <= _MAX_META_CHARACTERS)


def missing_column(place: str, key: str, columns: list[str]) -> DataError:
    """The error for a column that is not there, with those found and the nearest."""
    hint = did_you_mean(key, columns) or "; set text_key to the column that holds the text"
    return DataError(f'{place}: no column "{key}"; columns found: {", ".join(sorted(columns))}{hint}')
