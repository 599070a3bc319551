"""A search index of one's own documents in one SQLite file (FTS5): the default behind the tool web_search.

Documents are divided into passages; words are stemmed (Porter) and stripped of accents, a character of Chinese,
Japanese or Korean counts as a word. Passages that have all words of a query come first, then those with some; within
each, by BM25 with the title's words counting four times. A file once written is never changed.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradus.core.databases import database_errors, is_kind
from gradus.core.errors import ToolError
from gradus.core.files import fsync_file, fsync_folder
from gradus.tools.passages import TitledText, passages

_APPLICATION = 0x67726931  # "gri1"
_TITLE_WEIGHT = 4.0
_MOST_WORDS = 32  # of a query
_PER_DOCUMENT = 2  # passages of one document among the results
_MOST_SECONDS = 5.0
_STEPS_BETWEEN_LOOKS = 20_000  # of SQLite's machine, some milliseconds
_TABLES = """
CREATE TABLE documents (id INTEGER PRIMARY KEY, title TEXT NOT NULL, url TEXT NOT NULL);
CREATE TABLE passages (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, text TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (title, text, content = '', tokenize = 'porter unicode61 remove_diacritics 2');
"""
# Scripts that are written without spaces: a word for each character.
_IDEOGRAPH = re.compile("([\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff])")
# With the accents of decomposed text, which the tokenizer takes to the letters before them.
_WORD = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u0331])*")
# Words that nearly every passage has, of no use where a query has others.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can did do does for from had has have how i in is it its me my of on or that the "
        "this to was we were what when where which who why will with you your",
    )
)


@dataclass(frozen=True)
class IndexFacts:
    """What an index was made of. empty, repeated: documents that were left out."""

    documents: int
    passages: int
    characters: int
    empty: int
    repeated: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found, and the document it is of. passage: its number in the index."""

    title: str
    url: str
    text: str
    passage: int


def build_index(path: Path, documents: Iterable[TitledText]) -> IndexFacts:
    """Write the index of some documents, whole or not at all; one that stands there is replaced.

    Nothing is written where no document has text. Errors: OSError where it cannot be written; ToolError where a file
    that is no index stands in its place.
    """
    if path.exists() and not _is_index(path):
        raise ToolError(f"{path}: not a search index; it is not written over, name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
    try:
        with _told(path), closing(sqlite3.connect(half, isolation_level=None)) as file:
            facts = _fill(file, documents)
        if not facts.passages:
            half.unlink()
            return facts
        fsync_file(half)
        os.replace(half, path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
    return facts


def _fill(file: sqlite3.Connection, documents: Iterable[TitledText]) -> IndexFacts:
    # Nobody reads the file before it is whole.
    file.execute("PRAGMA journal_mode = OFF")
    file.execute("PRAGMA synchronous = OFF")
    file.execute(f"PRAGMA application_id = {_APPLICATION}")
    file.executescript(_TABLES)
    file.execute("BEGIN")
    seen: set[int] = set()
    num_documents = num_passages = characters = empty = repeated = 0
    for document in documents:
        texts = passages(document.text)
        mark = hash(document.text)
        if not texts or mark in seen:
            empty, repeated = empty + (not texts), repeated + bool(texts)
            continue
        seen.add(mark)
        num_documents += 1
        characters += len(document.text)
        file.execute("INSERT INTO documents VALUES (?, ?, ?)", (num_documents, document.title, document.url))
        title = _spaced(document.title)
        for text in texts:
            num_passages += 1
            file.execute("INSERT INTO passages VALUES (?, ?, ?)", (num_passages, num_documents, text))
            file.execute(
                "INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", (num_passages, title, _spaced(text))
            )
    file.execute("COMMIT")
    file.execute("INSERT INTO words (words) VALUES ('optimize')")
    return IndexFacts(num_documents, num_passages, characters, empty, repeated)


def _spaced(text: str) -> str:
    return text if text.isascii() else _IDEOGRAPH.sub(r" \1 ", text)


class SearchIndex:
    """An index opened for reading; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Errors: ToolError where there is none, or the file is something else."""
        if not path.is_file():
            raise ToolError(f"{path}: no such index; make one with: gradus index FOLDER --out {path}")
        self.path = path
        if not _is_index(path):
            raise ToolError(f"{path}: not a search index; make one with: gradus index FOLDER --out {path}")
        self._file = _opened(path)
        self._lock = threading.Lock()
        # Its tables may be a stranger's; what they refer to must have no effects.
        self._file.execute("PRAGMA trusted_schema = OFF")

    def close(self) -> None:
        self._file.close()

    def num_passages(self) -> int:
        return int(self._rows("SELECT count(*) FROM passages", ())[0][0])

    def passage(self, number: int) -> Hit:
        """A passage by its number, 1 to `num_passages`. Errors: IndexError."""
        rows = self._rows(
            "SELECT title, url, text, passages.id FROM passages JOIN documents ON documents.id = document "
            "WHERE passages.id = ?", (number,),
        )  # fmt: skip
        if not rows:
            raise IndexError(number)
        return self._hit(rows[0])

    def search(self, query: str, limit: int = 5) -> list[Hit]:
        """The passages that fit a query best; any text is a query. Errors: ToolError where it takes too long."""
        terms = _terms(query)
        if not terms:
            return []
        found: dict[int, Hit] = {}
        by_document: dict[str, int] = {}
        for joint in (" AND ", " OR ") if len(terms) > 1 else (" AND ",):
            # More than are wanted: a document that fills the top leaves room for others.
            for hit in self._matching(joint.join(terms), limit * 4):
                fresh = hit.passage not in found and by_document.get(hit.url, 0) < _PER_DOCUMENT
                if fresh and len(found) < limit:
                    found[hit.passage] = hit
                    by_document[hit.url] = by_document.get(hit.url, 0) + 1
            if len(found) >= limit:
                break
        return list(found.values())

    def _matching(self, expression: str, limit: int) -> list[Hit]:
        rows = self._rows(
            "SELECT title, url, passages.text, passages.id FROM "
            "(SELECT rowid AS number, bm25(words, ?, 1.0) AS score FROM words WHERE words MATCH ? "
            "ORDER BY score, number LIMIT ?) "
            "JOIN passages ON passages.id = number JOIN documents ON documents.id = document "
            "ORDER BY score, number", (_TITLE_WEIGHT, expression, limit),
        )  # fmt: skip
        return [self._hit(row) for row in rows]

    def _rows(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """What a query gives. Errors: ToolError where it takes too long, or the file is damaged."""
        # Setting a handler while another thread is in a query stops the whole process for ever (CPython 3.11): the one
        # holds the interpreter's lock and waits for the file's, the other the other way round.
        with self._lock, _told(self.path):
            end = time.monotonic() + _MOST_SECONDS
            self._file.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_LOOKS)
            try:
                return self._file.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if is_kind(error, sqlite3.SQLITE_INTERRUPT):
                    raise ToolError(f"the search took longer than {_MOST_SECONDS:g} s") from None
                raise

    def _hit(self, row: tuple[Any, ...]) -> Hit:
        if not all(isinstance(value, str) for value in row[:3]):
            raise ToolError(f"{self.path}: damaged (a passage that is no text); make the index again")
        return Hit(*row)


def _opened(path: Path) -> sqlite3.Connection:
    """For reading alone. Errors: ToolError where the file cannot be opened."""
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with _told(path):
        return sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)


def _is_index(path: Path) -> bool:
    """Whether a file says that it is a search index."""
    with closing(_opened(path)) as file:
        try:
            return bool(file.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION)
        except sqlite3.DatabaseError:
            return False


def _told(path: Path) -> AbstractContextManager[None]:
    return database_errors(path, ToolError, "make the index again")


def _terms(query: str) -> list[str]:
    """The words of a query as FTS5 strings, each once; what has a meaning in its query language is left out."""
    words = list(dict.fromkeys(_WORD.findall(query.casefold())))
    telling = [word for word in words if word not in _COMMON]
    # A run of ideographs is looked for as it stands.
    return [f'"{" ".join(_spaced(word).split())}"' for word in (telling or words)[:_MOST_WORDS]]
