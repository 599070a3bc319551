"""Near-duplicates across a whole corpus, from the sketches of its shards, against what an earlier corpus holds.

Documents are numbered by quality: those of earlier corpora first (they are never removed again), then the new ones
by rank, highest first, and by their order where ranks are equal. Band keys of all documents are sorted on disk;
documents that share a key form a bucket, and each new one becomes a candidate pair with the bucket's best
`leaders` old and `leaders` new documents. Every pair is checked by the full signatures. Then, from the best document
to the worst: one is removed if it has a checked pair with a better document that stays. So every removed document
has a similar one that is kept (stars, no transitive chains), and the result depends on the documents, their ranks
and their order alone, not on shards, batches or processes.

Since old documents come before new ones, deduplicating in steps equals deduplicating at once with ranks that put
the earlier steps first.

Memory is about twice `memory_bytes` and one byte a new document (and 8 bytes in pages that the system may take back),
plus the largest bucket; time is that of sorting 14 keys a document. On disk, a finished index is a folder with

    ids.bin, signatures.bin   as in the sketches, which are not needed any more
    keys.bin                  one sorted run: the band keys of the documents that stay
    removed.bin               uint8 a document, in the order of the sketches: 1 removed, 2 excluded, 0 stays
    pairs.parquet             a row for each removed document: its id, the id of the most similar one that is
                              kept, and their estimated similarity
    index.json                written last

and is what a later corpus names in `against`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.files import fsync_file, write_atomic
from gradus.data.minhash import MinHashSettings, similarities
from gradus.data.row_files import Numbers, RowFiles, read_rows
from gradus.data.sketches import (
    ID_BYTES,
    MOST_DOCUMENTS,
    NUMBER_BITS,
    NUMBER_MASK,
    SKETCH_FORMAT,
    Sketch,
    read_manifest,
    read_sketch,
    renumber,
)
from gradus.data.sorted_runs import Run, RunWriter, Values, merged_blocks, runs_of

INDEX = "index.json"  # of what an index holds, written last
_COPY_ROWS = 1 << 16
_CHECKED_PAIRS = 1 << 13
_DECIDED_PAIRS = 1 << 16
_LEAST_MEMORY = 1 << 12
_REMOVED, _EXCLUDED = 1, 2


@dataclass(frozen=True)
class NearDuplicateIndex:
    """A finished index. shards: the number of documents of each sketch it was made from, in order."""

    folder: Path
    documents: int
    num_removed: int
    num_excluded: int
    num_candidates: int
    shards: tuple[int, ...]
    num_keys: int

    def removed(self, shard: int) -> NDArray[np.bool_]:
        """Which documents of a shard are removed."""
        start = sum(self.shards[:shard])
        states = read_rows(self.folder / "removed.bin", "u1", 1, start, self.shards[shard])[:, 0]
        mask: NDArray[np.bool_] = states == _REMOVED
        return mask


def read_index(folder: Path, settings: MinHashSettings) -> NearDuplicateIndex:
    """Errors: DataError where there is none, it is unfinished or damaged, or it was made with other settings."""
    content = read_manifest(folder, INDEX, settings)
    return NearDuplicateIndex(
        folder,
        content["documents"],
        content["removed"],
        content["excluded"],
        content["candidates"],
        tuple(content["shards"]),
        content["keys"],
    )


def find_near_duplicates(
    sketches: Sequence[Path],
    out: Path,
    settings: MinHashSettings,
    *,
    against: Sequence[Path] = (),
    excluded: Sequence[NDArray[np.bool_]] | None = None,
    memory_bytes: int = 1 << 28,
) -> NearDuplicateIndex:
    """Decide which documents of the shards are removed, and write the index into `out`, replacing what is there.

    against: indices of earlier corpora, in a fixed order; none of their documents is removed. excluded: by sketch,
    documents that are out already (as exact duplicates): they are not removed and no other is removed for them.
    Errors: DataError where a sketch or an index is unfinished, damaged or made with other settings.
    """
    return _Search(sketches, out, settings, against, excluded, max(memory_bytes, _LEAST_MEMORY)).run()


class _Search:
    """One call of `find_near_duplicates`.

    A document has a row (its place in the sketches end to end) and a number (its place by quality, old ones first).
    """

    def __init__(
        self,
        sketches: Sequence[Path],
        out: Path,
        settings: MinHashSettings,
        against: Sequence[Path],
        excluded: Sequence[NDArray[np.bool_]] | None,
        memory_bytes: int,
    ) -> None:
        self._settings = settings
        self._sketches = [read_sketch(path, settings) for path in sketches]
        self._earlier = [read_index(path, settings) for path in against]
        self._row_starts = np.cumsum([0, *(sketch.documents for sketch in self._sketches)]).tolist()
        self._old_starts = np.cumsum([0, *(index.documents for index in self._earlier)])
        self._num_new, self._num_old = int(self._row_starts[-1]), int(self._old_starts[-1])
        if self._num_old + self._num_new > MOST_DOCUMENTS:
            raise DataError(f"{out}: more than {MOST_DOCUMENTS:,} documents in one search; divide the corpus")
        self._block_bytes = memory_bytes // 8  # a block is taken apart into several arrays
        self._out, self._scratch = out, out / "scratch"
        self._excluded = _excluded_rows(self._sketches, excluded)

    def run(self) -> NearDuplicateIndex:
        self._out.mkdir(parents=True, exist_ok=True)
        (self._out / INDEX).unlink(missing_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        self._gather()
        self._number()
        candidates = self._candidates()
        with (
            closing(self._table("signatures", "<u2", self._settings.places)) as signed,
            closing(self._table("ids", "u1", ID_BYTES)) as ids,
            closing(_PairLog(self._out / "pairs.parquet", ids)) as log,
        ):
            num_candidates = self._decide(candidates, signed, log)
        self._write_removed()
        self._write_keys()
        shutil.rmtree(self._scratch)
        return self._finish(num_candidates, log.num_pairs)

    # Preparation

    def _gather(self) -> None:
        """The sketches' ids and signatures end to end."""
        for name in ("ids", "signatures"):
            with (self._out / f"{name}.bin").open("wb") as whole:
                for sketch in self._sketches:
                    with (sketch.folder / f"{name}.bin").open("rb") as part:
                        shutil.copyfileobj(part, whole, 1 << 20)

    def _number(self) -> None:
        """Number the new documents, and where excluded ones stand among them."""
        writer = RunWriter(self._scratch / "ranks.bin", self._block_bytes // 8)
        for sketch, start in zip(self._sketches, self._row_starts, strict=False):
            for first in range(0, sketch.documents, _COPY_ROWS):
                count = min(_COPY_ROWS, sketch.documents - first)
                ranks = read_rows(sketch.folder / "ranks.bin", "<u4", 1, first, count)[:, 0].astype(np.uint64)
                rows = np.arange(start + first, start + first + count, dtype=np.uint64)
                writer.add(((np.uint64(0xFFFFFFFF) - ranks) << np.uint64(32)) | rows)
        size = max(1, self._num_new)
        self._rows = np.memmap(self._scratch / "rows.bin", dtype="<u4", mode="w+", shape=size)  # by number
        self._numbers = np.memmap(self._scratch / "numbers.bin", dtype="<u4", mode="w+", shape=size)  # by row
        filled = 0
        for block in merged_blocks(writer.runs(), self._block_bytes):
            rows = block & np.uint64(0xFFFFFFFF)
            self._rows[filled : filled + len(rows)] = rows
            self._numbers[rows.astype(np.int64)] = np.arange(filled, filled + len(rows))
            filled += len(rows)
        self._is_out = np.zeros(self._num_new, dtype=bool)  # by number
        self._is_out[self._numbers[self._excluded]] = True

    # Candidates

    def _candidates(self) -> list[Run]:
        """Runs of (later number << 30 | earlier number)."""
        runs = []
        for index, first in zip(self._earlier, self._old_starts.tolist(), strict=False):
            runs.append(Run(index.folder / "keys.bin", 0, index.num_keys, partial(_add_to_number, first)))
        for sketch, start in zip(self._sketches, self._row_starts, strict=False):
            runs += runs_of(sketch.folder / "keys.bin", sketch.key_runs, partial(self._number_of_row, start))
        writer = RunWriter(self._scratch / "candidates.bin", self._block_bytes // 8)
        num_old, leaders = self._num_old, self._settings.leaders
        for block in merged_blocks(runs, self._block_bytes, shift=NUMBER_BITS):
            if len(self._excluded):
                numbers = (block & NUMBER_MASK).astype(np.int64)
                new = np.flatnonzero(numbers >= num_old)
                block = np.delete(block, new[self._is_out[numbers[new] - num_old]])
            for pairs in bucket_pairs(block, num_old, leaders):
                writer.add(pairs)
        return writer.runs()

    def _number_of_row(self, start: int, keys: Values) -> Values:
        rows = (keys & NUMBER_MASK).astype(np.int64) + start
        return renumber(keys, self._numbers[rows].astype(np.int64) + self._num_old)

    # Decision

    def _decide(self, candidates: list[Run], signed: RowFiles, log: _PairLog) -> int:
        """Mark who is out, from the best number on; returns the number of distinct candidate pairs."""
        num_candidates = 0
        for block in merged_blocks(candidates, self._block_bytes, shift=NUMBER_BITS):
            pairs = block[np.append(True, block[1:] != block[:-1])]
            num_candidates += len(pairs)
            later = (pairs >> np.uint64(NUMBER_BITS)).astype(np.int64) - self._num_old
            earlier = (pairs & NUMBER_MASK).astype(np.int64) - self._num_old
            # Those before this block are decided; a comparison with one that is out would be in vain.
            useful = (earlier < 0) | ~self._is_out[np.maximum(earlier, 0)]
            later, earlier = later[useful], earlier[useful]
            similar = self._similarities(later, earlier, signed)
            checked = np.flatnonzero(similar >= self._settings.threshold)
            for part in _whole_groups(checked, later[checked], _DECIDED_PAIRS):
                self._decide_pairs(later[part], earlier[part], similar[part], log)
        return num_candidates

    def _similarities(self, one: Numbers, other: Numbers, signed: RowFiles) -> NDArray[np.float32]:
        found = np.empty(len(one), dtype=np.float32)
        for start in range(0, len(one), _CHECKED_PAIRS):
            part = slice(start, start + _CHECKED_PAIRS)
            found[part] = similarities(signed.take(one[part]), signed.take(other[part]))
        return found

    def _decide_pairs(self, later: Numbers, earlier: Numbers, similar: NDArray[np.float32], log: _PairLog) -> None:
        """Checked pairs in order of `later`, all of a document at once."""
        is_out = self._is_out
        mates: dict[int, tuple[float, int]] = {}
        for one, other, similarity in zip(later.tolist(), earlier.tolist(), similar.tolist(), strict=True):
            if other < 0 or not is_out[other]:
                is_out[one] = True
                # The most similar one that stays; of equals, the best.
                if one not in mates or similarity > mates[one][0]:
                    mates[one] = (similarity, other)
        log.add(list(mates), [mate for _, mate in mates.values()], [similarity for similarity, _ in mates.values()])

    # Results

    def _write_removed(self) -> None:
        with (self._out / "removed.bin").open("wb") as file:
            for start in range(0, self._num_new, _COPY_ROWS):
                stop = min(start + _COPY_ROWS, self._num_new)
                state = self._is_out[self._numbers[start:stop]].astype(np.uint8)
                begin, end = np.searchsorted(self._excluded, [start, stop])
                state[self._excluded[begin:end] - start] = _EXCLUDED
                file.write(state.tobytes())

    def _write_keys(self) -> None:
        runs = []
        for sketch, start in zip(self._sketches, self._row_starts, strict=False):
            runs += runs_of(sketch.folder / "keys.bin", sketch.key_runs, partial(_add_to_number, start))
        self._num_keys = 0
        with (self._out / "keys.bin").open("wb") as file:
            for block in merged_blocks(runs, self._block_bytes, shift=NUMBER_BITS):
                kept = block[~self._is_out[self._numbers[(block & NUMBER_MASK).astype(np.int64)]]]
                file.write(kept.astype("<u8", copy=False).tobytes())
                self._num_keys += len(kept)

    def _finish(self, num_candidates: int, num_removed: int) -> NearDuplicateIndex:
        sizes = {}
        for path in sorted([*self._out.glob("*.bin"), self._out / "pairs.parquet"]):
            fsync_file(path)
            sizes[path.name] = path.stat().st_size
        content: dict[str, Any] = {
            "format": SKETCH_FORMAT,
            "fingerprint": self._settings.sketch_fingerprint,
            "threshold": self._settings.threshold,
            "leaders": self._settings.leaders,
            "documents": self._num_new,
            "removed": num_removed,
            "excluded": len(self._excluded),
            "candidates": num_candidates,
            "shards": [sketch.documents for sketch in self._sketches],
            "keys": self._num_keys,
            "sizes": sizes,
        }
        write_atomic(self._out / INDEX, json.dumps(content, indent=1))
        return read_index(self._out, self._settings)

    def _table(self, name: str, dtype: str, width: int) -> RowFiles:
        """A file of the earlier indices and of this one, by number from the first new document on."""
        folders = [index.folder for index in self._earlier]
        paths = [folder / f"{name}.bin" for folder in [*folders, self._out]]
        return RowFiles(paths, dtype, width, self._old_starts, self._rows)


def bucket_pairs(block: Values, num_old: int, leaders: int) -> Iterator[Values]:
    """The candidate pairs of whole buckets, as (later number << 30 | earlier number), in parts as long as the block.

    block: sorted (key, number). Every document numbered `num_old` or above is paired with the first `leaders`
    documents below `num_old` of its bucket and with the first `leaders` of the others before it.
    """
    keys = block >> np.uint64(NUMBER_BITS)
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, dtype=np.int64)
    sizes = np.diff(np.append(starts, len(keys)))
    numbers = (block & NUMBER_MASK).astype(np.int64)
    # The last of a bucket is new if any is.
    useful = (sizes > 1) & (numbers[starts + sizes - 1] >= num_old)
    numbers, sizes = numbers[np.repeat(useful, sizes)], sizes[useful]
    if not len(sizes):
        return
    starts = np.cumsum(sizes) - sizes
    is_old = numbers < num_old
    old = np.repeat(np.add.reduceat(is_old.astype(np.int64), starts), sizes)  # in the document's bucket
    first = np.repeat(starts, sizes)
    place = np.arange(len(numbers)) - first
    for turn in range(leaders):
        to_old = np.flatnonzero(~is_old & (turn < old))
        to_new = np.flatnonzero(place > old + turn)
        if not len(to_old) and not len(to_new):
            return
        later = np.concatenate([numbers[to_old], numbers[to_new]])
        earlier = np.concatenate([numbers[first[to_old] + turn], numbers[(first + old)[to_new] + turn]])
        distinct = later != earlier  # a document whose own keys met by chance
        yield ((later[distinct] << NUMBER_BITS) | earlier[distinct]).astype(np.uint64)


def _whole_groups(places: Numbers, groups: Numbers, size: int) -> Iterator[Numbers]:
    """The places in parts of about `size`, cut only where the (sorted) group changes."""
    if not len(places):
        return
    changes = np.append(np.flatnonzero(groups[1:] != groups[:-1]) + 1, len(groups))
    cuts = changes[np.searchsorted(changes, np.arange(size, len(groups), size))]
    yield from np.split(places, np.unique(cuts[cuts < len(groups)]))


def _add_to_number(first: int, keys: Values) -> Values:
    return keys + np.uint64(first)


def _excluded_rows(sketches: Sequence[Sketch], excluded: Sequence[NDArray[np.bool_]] | None) -> Numbers:
    if excluded is None:
        return np.empty(0, dtype=np.int64)
    if [len(mask) for mask in excluded] != [sketch.documents for sketch in sketches]:
        raise ValueError("excluded: one mask a sketch, one entry a document")
    return np.flatnonzero(np.concatenate([np.empty(0, dtype=bool), *excluded]))


class _PairLog:
    """pairs.parquet, written as the pairs are found."""

    def __init__(self, path: Path, ids: RowFiles) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._ids = ids
        self._schema = pa.schema([("removed", pa.string()), ("kept", pa.string()), ("similarity", pa.float32())])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self.num_pairs = 0

    def add(self, removed: list[int], kept: list[int], similarity: list[float]) -> None:
        import pyarrow as pa

        for start in range(0, len(removed), _COPY_ROWS):
            part = slice(start, start + _COPY_ROWS)
            columns = [self._hex(removed[part]), self._hex(kept[part]), similarity[part]]
            self._writer.write_table(pa.table(dict(zip(self._schema.names, columns, strict=True)), schema=self._schema))
        self.num_pairs += len(removed)

    def _hex(self, numbers: list[int]) -> list[str]:
        return [row.tobytes().hex() for row in self._ids.take(np.array(numbers, dtype=np.int64))]

    def close(self) -> None:
        self._writer.close()
