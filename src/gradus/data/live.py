"""Rows of a corpus that is tokenised while it is trained on, without token shards.

The corpus is divided into blocks of consecutive row groups. A block is encoded, packed, and its rows come in an order
of their own; blocks come in another order each epoch. How many rows a block has is known once it was encoded, and is
noted in a small file, so that a resumed run finds its place without encoding what came before. Every rank encodes
every block: this is for one machine, and for text that is read about once. Anything more is better tokenised first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.fingerprint import digest
from gradus.data.corpus import damage_told
from gradus.data.pack import PLAN_VERSION, PackMode, pack_plan
from gradus.data.permutation import permutation_keys, permute, permuted
from gradus.data.prefetch import Prefetch
from gradus.data.spans import Int64, Pieces, Spans, read_stream
from gradus.data.token_manifest import set_facts
from gradus.data.tokenise import shard_facts
from gradus.tokenizer.encoder import Encoder, open_encoder
from gradus.tokenizer.specials import END_OF_TEXT
from gradus.tokenizer.tokenizer import Tokenizer

# Text of a block, about four million tokens: rows are shuffled inside it.
BLOCK_BYTES = 1 << 24
# A training run holds more than a tokenizing one, and waits for its encoder: copies of it live longer here.
_RENEW_BYTES = 1 << 27


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Row groups [first, end) of a parquet shard."""

    shard: Path
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A block's tokens as a stream, and the pieces of its rows: row r has [row_starts[r], row_starts[r + 1])."""

    tokens: NDArray[Any]
    row_starts: Int64
    start: Int64
    length: Int64

    @property
    def num_rows(self) -> int:
        return len(self.row_starts) - 1


class LiveRows:
    """The endless sequence of rows over a corpus's shards; ends with its `with` block.

    Holds four blocks and the texts of two. notes: file for the blocks' numbers of rows. Errors: DataError for a
    corpus without documents or with a damaged shard.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        tokenizer: Tokenizer,
        row_length: int,
        *,
        seed: int,
        mode: PackMode = "fragments",
        encoder: Encoder | None = None,
        block_bytes: int = BLOCK_BYTES,
        notes: Path | None = None,
    ) -> None:
        self.row_length, self.seed = row_length, seed
        self._mode = mode
        self._encoder = encoder or open_encoder(tokenizer, renew_bytes=_RENEW_BYTES)
        self._dtype = set_facts(tokenizer, "stream").dtype
        self._separator = np.array([tokenizer.special(END_OF_TEXT)], dtype=self._dtype)
        self.blocks, identity = _blocks(shards, block_bytes)
        self.data: dict[str, Any] = {
            "text": identity,
            "tokenizer": tokenizer.digest,
            "row_length": row_length,
            "packing": [PLAN_VERSION, mode],
            "seed": seed,
        }
        self._notes = _Notes(notes, digest(self.data))
        self._starts = [0]  # the first place of each block of the sequence, as far as it is known
        self._packed: dict[int, PackedBlock] = {}
        # Reading, encoding and the rows of a step go on at the same time.
        self._texts = Prefetch(self._read_texts, ahead=1)
        self._ahead = Prefetch(self._pack, ahead=1)

    def __enter__(self) -> LiveRows:
        return self

    def __exit__(self, *reason: object) -> None:
        self._ahead.__exit__(*reason)
        self._texts.__exit__(*reason)

    def read(self, places: Int64) -> tuple[Pieces, Int64]:
        """The rows at these places of the sequence, rising, end to end; and the length of each piece."""
        parts: list[tuple[Pieces, Int64]] = []
        done = 0
        while done < len(places):
            turn = self._turn_of(int(places[done]))
            # The block after this one begins where it is known to end.
            end = int(np.searchsorted(places, self._starts[turn + 1]))
            block = self._block(turn)
            rows = self._order(turn, places[done:end] - self._starts[turn], block.num_rows)
            spans = _spans(block, rows)
            parts.append((read_stream({0: block.tokens}, spans), spans.length))
            done = end
        if len(parts) == 1:
            return parts[0]
        tokens, targets = (np.concatenate([getattr(part, name) for part, _ in parts]) for name in ("tokens", "targets"))
        return Pieces(tokens, targets, None), np.concatenate([lengths for _, lengths in parts])

    def _turn_of(self, place: int) -> int:
        """Which block of the sequence holds a place; encodes those before it whose rows are not known."""
        while self._starts[-1] <= place:
            turn = len(self._starts) - 1
            number = self._number(turn)
            rows = self._notes.rows.get(number)
            if rows is None:
                rows = self._block(turn).num_rows
                self._notes.add(number, rows)
            self._starts.append(self._starts[-1] + rows)
        return bisect_right(self._starts, place) - 1

    def _number(self, turn: int) -> int:
        """The block that comes at a turn of the sequence."""
        epoch, position = divmod(turn, len(self.blocks))
        keys = permutation_keys("blocks", self.seed, epoch)
        return int(permute(np.array([position]), len(self.blocks), keys)[0])

    def _order(self, turn: int, positions: Int64, num_rows: int) -> Int64:
        return permuted(positions, num_rows, "live rows", self.seed, turn)

    def _block(self, turn: int) -> PackedBlock:
        if turn not in self._packed:
            # A step stands in one block or at the border of two.
            self._packed = {old: block for old, block in self._packed.items() if old == turn - 1}
            self._packed[turn] = self._ahead(turn)
        return self._packed[turn]

    def _read_texts(self, turn: int) -> list[str]:
        block = self.blocks[self._number(turn)]
        with damage_told(block.shard), pq.ParquetFile(block.shard) as file:
            table = file.read_row_groups(range(block.first, block.end), columns=["text"])
        texts: list[str] = table["text"].to_pylist()
        return texts

    def _pack(self, turn: int) -> PackedBlock:
        ids = self._encoder.encode(self._texts(turn))
        lengths = np.array([1 + len(document) for document in ids], dtype=np.int64)
        parts = [part for document in ids for part in (self._separator, document)]
        tokens = np.concatenate([*parts, self._separator], dtype=self._dtype, casting="unsafe")
        plan = pack_plan(lengths, self.row_length, self._mode)
        starts = np.cumsum(lengths) - lengths
        return PackedBlock(tokens, plan.row_starts, starts[plan.document] + plan.offset, plan.length)


def _spans(block: PackedBlock, rows: Int64) -> Spans:
    """The pieces of these rows, in their order."""
    first = block.row_starts[rows]
    count = block.row_starts[rows + 1] - first
    piece = np.repeat(first - (np.cumsum(count) - count), count)
    piece += np.arange(len(piece))
    return Spans(np.zeros_like(piece), block.start[piece], block.length[piece])


def _blocks(shards: Sequence[Path], block_bytes: int) -> tuple[list[TextBlock], str]:
    """The blocks, and a digest of what the shards say of themselves."""
    blocks: list[TextBlock] = []
    facts = [shard_facts(shard) for shard in shards]
    for shard, (_, _, _, sizes) in zip(shards, facts, strict=True):
        first = size = 0
        for index, one in enumerate(sizes, 1):
            size += one
            if size >= block_bytes or index == len(sizes):
                blocks.append(TextBlock(shard, first, index))
                first, size = index, 0
    if not any(sum(documents) for _, _, documents, _ in facts):
        raise DataError(f"{len(shards)} corpus shards hold no documents; there is nothing to train on")
    return blocks, digest([facts, block_bytes])


class _Notes:
    """How many rows each block has, as far as it was learned: lines of "block rows" in a file for one sequence."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path = path
        self.rows: dict[int, int] = {}
        if path is None:
            return
        # A last line without its end is of a killed run and says nothing.
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        if not lines or lines[0] != identity:
            path.write_text(identity + "\n", encoding="utf-8")
            return
        self.rows = {int(block): int(rows) for block, rows in (line.split() for line in lines[1:])}
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def add(self, block: int, rows: int) -> None:
        self.rows[block] = rows
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{block} {rows}\n")
