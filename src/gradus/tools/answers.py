"""Answers of remote models and what was paid for them, in one SQLite file: the same request is never paid for twice.

An answer is known by the digest of its whole request. What a request can cost at most is written down before it is
sent and put right when its answer is here; so after a kill at any moment no more has been spent than stands here.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gradus.core.databases import database_errors
from gradus.core.errors import EndpointError

_APPLICATION = 0x67726131  # "gra1"
_BUSY_SECONDS = 60.0
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, body TEXT NOT NULL, time REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS payments (
    id INTEGER PRIMARY KEY, payer TEXT NOT NULL, key TEXT NOT NULL, settled INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, money REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS money_of ON payments (payer, money);
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one payer's requests came to. unsettled: of the money, the most that requests without an answer can cost."""

    requests: int
    input_tokens: int
    output_tokens: int
    money: float
    unsettled: float


class Answers:
    """The file, opened for reading and writing; several processes may have it open."""

    def __init__(self, path: Path) -> None:
        """Errors: EndpointError for a file that is not ours or damaged; OSError where it cannot be written."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._told():
            # In autocommit mode every statement below is on its own, and there after a kill.
            self._file = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._file.close()
            raise

    def _prepare(self) -> None:
        with self._told():
            (application,) = self._file.execute("PRAGMA application_id").fetchone()
            (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if application != _APPLICATION and tables:
                raise EndpointError(f"{self.path}: not a file of answers; move it away")
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._file.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def find(self, key: str) -> dict[str, Any] | None:
        """The answer to a request that was asked before."""
        with self._told():
            row = self._file.execute("SELECT body FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def open_payment(self, payer: str, key: str, most_money: float, budget: float | None = None) -> int | None:
        """Write down what a request can cost, before it is sent; returns the payment's number.

        None, and nothing is written, where it could pass the budget: with all that the payer's requests of any process
        cost or still can.
        """
        with self._told(), self._whole():
            if budget is not None:
                query = "SELECT total(money) FROM payments WHERE payer = ?"
                if self._file.execute(query, (payer,)).fetchone()[0] + most_money > budget:
                    return None
            row = self._file.execute(
                "INSERT INTO payments (payer, key, settled, input_tokens, output_tokens, money) "
                "VALUES (?, ?, 0, 0, 0, ?) RETURNING id", (payer, key, most_money),
            ).fetchone()  # fmt: skip
        return int(row[0])

    def settle(self, payment: int, body: dict[str, Any], tokens: tuple[int, int], money: float) -> None:
        """Keep an answer, and what it cost in place of what it could have. tokens: (input, output)."""
        with self._told(), self._whole():
            self._file.execute(
                "INSERT OR IGNORE INTO answers SELECT key, ?, ? FROM payments WHERE id = ?",
                (json.dumps(body, ensure_ascii=True), time.time(), payment),
            )
            self._file.execute(
                "UPDATE payments SET settled = 1, input_tokens = ?, output_tokens = ?, money = ? WHERE id = ?",
                (*tokens, money, payment),
            )

    def cancel(self, payment: int) -> None:
        """A request that was refused costs nothing."""
        with self._told():
            self._file.execute("DELETE FROM payments WHERE id = ?", (payment,))

    def spent(self, payer: str) -> Spent:
        """All payments of one payer, those of earlier processes among them."""
        with self._told():
            row = self._file.execute(
                "SELECT count(*), total(input_tokens), total(output_tokens), total(money), "
                "total(CASE settled WHEN 0 THEN money ELSE 0 END) FROM payments WHERE payer = ?", (payer,),
            ).fetchone()  # fmt: skip
        return Spent(int(row[0]), int(row[1]), int(row[2]), float(row[3]), float(row[4]))

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What is done inside is done wholly or not at all, and no other process writes meanwhile."""
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise

    def _told(self) -> AbstractContextManager[None]:
        return database_errors(self.path, EndpointError, "move it away; its answers are lost")
