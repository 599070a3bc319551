"""The rows of a token shard set: a pack plan for each shard, made once and kept; rows count on from shard to shard.

A plan depends on its shard's documents, the row length and the packing alone, so it is kept under a name made of
these, and shards that are appended leave the plans of the others as they are. The file of a plan is

    16 int64      format, row length, rows, pieces, tokens, positions attended, sources, CRC-32 of the rest, 0 ...
    int64         rows of each source, where rows hold one source each
    uint32        where each row's pieces begin, and the number of pieces; then each piece's start and length

and is mapped when one of its rows is asked for.
"""

from __future__ import annotations

import secrets
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.fingerprint import digest
from gradus.data.pack import PLAN_VERSION, PackMode, pack_plan
from gradus.data.shards import TokenShard, TokenStore
from gradus.data.spans import Int64, Spans

PLAN_FORMAT = 1
_HEADER = 16


@dataclass(frozen=True, slots=True)
class Packing:
    """How documents become rows. by_source: no row holds documents of two sources."""

    row_length: int
    mode: PackMode = "fragments"
    by_source: bool = False

    @property
    def identity(self) -> list[Any]:
        """What a plan depends on besides its documents."""
        return [PLAN_FORMAT, PLAN_VERSION, self.row_length, self.mode, self.by_source]


class ShardPlan:
    """The rows of one shard. source_rows: (sources,) rows of each in turn, where rows hold one source each.

    num_attended: positions attended to, summed over tokens; for FLOPs.
    """

    def __init__(self, header: Int64, source_rows: Int64, body: NDArray[np.uint32] | Path) -> None:
        self._header, self.source_rows, self._stored = header, source_rows, body
        self.num_rows, self.num_pieces = int(header[2]), int(header[3])
        self.num_tokens, self.num_attended = int(header[4]), int(header[5])

    @cached_property
    def _body(self) -> NDArray[np.uint32]:
        if not isinstance(self._stored, Path):
            return self._stored
        offset = (_HEADER + len(self.source_rows)) * 8
        body = np.memmap(self._stored, dtype="<u4", mode="r", offset=offset).view(np.ndarray)
        if zlib.crc32(body.data) != self._header[7]:
            raise DataError(f"{self._stored}: damaged pack plan; delete it, and it is made again")
        return body

    @property
    def row_starts(self) -> NDArray[np.uint32]:
        """(rows + 1,) the first piece of each row, and the number of pieces."""
        return self._body[: self.num_rows + 1]

    @property
    def start(self) -> NDArray[np.uint32]:
        """(pieces,) the token of the shard at which each begins."""
        return self._body[self.num_rows + 1 : self.num_rows + 1 + self.num_pieces]

    @property
    def length(self) -> NDArray[np.uint32]:
        """(pieces,) tokens of each."""
        return self._body[self.num_rows + 1 + self.num_pieces :]

    def write(self, path: Path) -> None:
        """Keep the plan at `path`. It can be made again, so nothing waits for the disk; its sum tells what got lost."""
        temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
        with temporary.open("wb") as file:
            for part in (self._header.astype("<i8"), self.source_rows.astype("<i8"), self._body.astype("<u4")):
                file.write(part.data)
        temporary.replace(path)


def make_plan(shard: TokenShard, packing: Packing) -> ShardPlan:
    """Pack the documents of one shard."""
    assert shard.entry.tokens < 1 << 32, "a shard ends at 2^27 tokens, or with the document that passes it"
    lengths, bounds = shard.lengths, shard.bounds
    if packing.by_source:
        numbers = shard.source_numbers
        parts = [np.flatnonzero(numbers == number) for number in range(len(shard.entry.by_source))]
        plans = [pack_plan(lengths, packing.row_length, packing.mode, documents=part) for part in parts]
    else:
        plans = [pack_plan(lengths, packing.row_length, packing.mode)]
    pieces_before = np.cumsum([0, *(plan.num_pieces for plan in plans)])
    row_starts = [plan.row_starts[:-1] + before for plan, before in zip(plans, pieces_before, strict=False)]
    starts = [bounds[plan.document] + plan.offset for plan in plans]
    body = np.concatenate([*row_starts, pieces_before[-1:], *starts, *(plan.length for plan in plans)])
    source_rows = np.array([plan.num_rows for plan in plans] if packing.by_source else [], dtype=np.int64)
    body = body.astype("<u4")
    header = np.zeros(_HEADER, dtype=np.int64)
    header[:8] = (
        PLAN_FORMAT,
        packing.row_length,
        sum(plan.num_rows for plan in plans),
        pieces_before[-1],
        sum(plan.num_tokens for plan in plans),
        sum(int((plan.length * (plan.length + 1) // 2).sum()) for plan in plans),
        len(source_rows),
        zlib.crc32(body.data),
    )
    return ShardPlan(header, source_rows, body)


def _kept_plan(path: Path) -> ShardPlan | None:
    """The plan that is kept at `path`; None where there is none, or not all of it."""
    try:
        head = np.fromfile(path, dtype="<i8", count=_HEADER)
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    if len(head) < _HEADER or head[0] != PLAN_FORMAT:
        return None
    if size != (_HEADER + int(head[6])) * 8 + (int(head[2]) + 1 + 2 * int(head[3])) * 4:
        return None
    source_rows = np.fromfile(path, dtype="<i8", count=int(head[6]), offset=_HEADER * 8)
    return ShardPlan(head.astype(np.int64), source_rows.astype(np.int64), path)


def kept_path(folder: Path, shard: TokenShard, packing: Packing) -> Path:
    """Where the plan of a shard is kept in `folder`."""
    return folder / f"{digest([shard.checksum, *packing.identity])[:32]}.plan"


class ShardPlans:
    """The rows of all shards of a store, one after the other.

    folder: where plans are kept; only in memory if None. Making what is not kept yet takes about half a second for
    each billion tokens on one core.
    """

    def __init__(self, store: TokenStore, packing: Packing, folder: Path | None = None) -> None:
        if store.layout != "stream":
            raise DataError(f"{store.folder}: a set of rendered conversations is packed as a whole, not shard by shard")
        self.store, self.packing, self.folder = store, packing, folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self.plans = [self._plan(shard) for shard in store.shards]
        self.first_row = np.cumsum([0, *(plan.num_rows for plan in self.plans)])

    def _plan(self, shard: TokenShard) -> ShardPlan:
        if self.folder is None:
            return make_plan(shard, self.packing)
        path = kept_path(self.folder, shard, self.packing)
        kept = _kept_plan(path)
        if kept is None:
            make_plan(shard, self.packing).write(path)
            kept = _kept_plan(path)
            assert kept is not None, "a plan that was just written is whole"
        return kept

    @property
    def row_length(self) -> int:
        return self.packing.row_length

    @property
    def num_rows(self) -> int:
        return int(self.first_row[-1])

    @property
    def num_tokens(self) -> int:
        """Tokens over all rows."""
        return sum(plan.num_tokens for plan in self.plans)

    @property
    def fill_fraction(self) -> float:
        """Tokens over row space; 0 without rows."""
        return self.num_tokens / (self.num_rows * self.row_length) if self.num_rows else 0.0

    @property
    def mean_context(self) -> float:
        """Positions that a token attends to on average, itself included; for FLOPs. 0 without rows."""
        return sum(plan.num_attended for plan in self.plans) / self.num_tokens if self.num_rows else 0.0

    def statistics(self) -> dict[str, int | float]:
        """Counts for an artifact's results. used_fraction: tokens in rows over tokens of the set."""
        return {
            "rows": self.num_rows,
            "row_length": self.row_length,
            "pieces": sum(plan.num_pieces for plan in self.plans),
            "documents": self.store.num_documents,
            "tokens": self.num_tokens,
            "used_fraction": self.num_tokens / self.store.num_tokens if self.num_rows else 0.0,
            "fill_fraction": self.fill_fraction,
            "mean_context": self.mean_context,
        }

    def spans(self, rows: Int64) -> Spans:
        """The pieces of these rows, in their order."""
        shard = np.searchsorted(self.first_row, rows, side="right") - 1
        first, count = np.empty_like(rows), np.empty_like(rows)
        used = np.unique(shard).tolist()
        for number in used:
            here = shard == number
            local = rows[here] - self.first_row[number]
            starts = self.plans[number].row_starts
            first[here] = starts[local]
            count[here] = starts[local + 1] - starts[local]
        before = np.cumsum(count) - count
        piece = np.repeat(first - before, count)
        piece += np.arange(len(piece))
        shard_of_piece = np.repeat(shard, count)
        start, length = np.empty_like(piece), np.empty_like(piece)
        for number in used:
            here = shard_of_piece == number
            start[here] = self.plans[number].start[piece[here]]
            length[here] = self.plans[number].length[piece[here]]
        return Spans(shard_of_piece, start, length)

    def rows_of_document(self, document: int) -> Int64:
        """The rows that hold pieces of a document of the store, in the order of the pieces."""
        number = int(np.searchsorted(self.store.first_document, document, side="right")) - 1
        shard, plan = self.store.shards[number], self.plans[number]
        begin, end = shard.bounds[document - shard.first_document : document - shard.first_document + 2].tolist()
        pieces = np.flatnonzero((plan.start >= begin) & (plan.start < end))
        pieces = pieces[np.argsort(plan.start[pieces])]
        rows: Int64 = np.searchsorted(plan.row_starts, pieces, side="right") - 1 + int(self.first_row[number])
        return rows

    def rows_of_source(self, name: str) -> Spans:
        """Where the rows of one source stand, as spans of rows: one a shard that has any. Packing must be by source."""
        found = []
        for number, (shard, plan) in enumerate(zip(self.store.shards, self.plans, strict=True)):
            before = int(self.first_row[number])
            for source, count in zip(shard.entry.by_source, plan.source_rows.tolist(), strict=True):
                if source.name == name and count:
                    found.append((number, before, count))
                before += count
        return Spans(*np.array(found, dtype=np.int64).reshape(-1, 3).T)
