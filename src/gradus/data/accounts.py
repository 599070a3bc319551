"""Looking into a corpus: samples of what is kept and dropped, what two corpora share, where one document went."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gradus.core.errors import DataError, did_you_mean
from gradus.data.corpus import DROPS, NEAR, NEAR_DUPLICATE, SPLITS, Split, corpus_counts, corpus_shards
from gradus.data.dedup import HASH_BYTES
from gradus.data.document import Document

# Ids of so many documents of each corpus are in memory while two are compared, 16 bytes each.
_COMPARED_AT_A_TIME = 1 << 24


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A text that was left out. id: of its text where it had one; place: the file and line or row it stood in."""

    reason: str
    source: str
    place: str
    detail: str
    id: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a document is. shard: relative to the corpus; row: in it; number: among the documents of its side."""

    side: Split
    shard: str
    row: int
    number: int
    document: Document


def sample_documents(
    folder: Path, split: Split, count: int, seed: int = 0, source: str | None = None
) -> Iterator[Document]:
    """`count` documents of one side drawn by the seed, in the corpus's order; only one source where named.

    Errors: DataError for a folder without a corpus and a source without documents.
    """
    shards = corpus_shards(folder, split)
    _known_source(corpus_counts(folder), split, source)
    for shard, rows in _drawn(shards, "source", source, count, seed):
        for row in _rows(shard, rows):
            yield Document(row["text"], row["id"], row["source"], json.loads(row["meta"]))


def sample_drops(folder: Path, count: int, seed: int = 0, reason: str | None = None) -> Iterator[DroppedRow]:
    """`count` of the texts that were left out, drawn by the seed; only one reason where named."""
    known = corpus_counts(folder)["dropped"]
    if reason is not None and reason not in known:
        there = ", ".join(known) or "none"
        raise DataError(f'{folder}: nothing was dropped as "{reason}"{did_you_mean(reason, known)}; reasons: {there}')
    for shard, rows in _drawn(_drop_shards(folder), "reason", reason, count, seed):
        for row in _rows(shard, rows):
            yield _dropped(folder, row)


def find_document(folder: Path, key: str) -> Iterator[Whereabouts | DroppedRow]:
    """Every kept or dropped text with this id (or the first digits of one), or that stood at this place.

    A place is a file's name as the corpus knows it, alone or with ":line".
    """
    before = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        for shard in corpus_shards(folder, split):
            with pq.ParquetFile(shard) as file:
                table = file.read(columns=["id", "meta"])
            for row in _matching(table["id"].to_pylist(), map(_meta_place, table["meta"].to_pylist()), key):
                [content] = _rows(shard, [row])
                document = Document(content["text"], content["id"], content["source"], json.loads(content["meta"]))
                yield Whereabouts(split, str(shard.relative_to(folder)), row, before[split] + row, document)
            before[split] += table.num_rows
    for shard in _drop_shards(folder):
        table = pq.read_table(shard, columns=["id", "place"])
        for row in _matching(table["id"].to_pylist(), table["place"].to_pylist(), key):
            yield _dropped(folder, _rows(shard, [row])[0])


def compare_corpora(one: Path, two: Path) -> dict[str, dict[str, int]]:
    """By source: documents that are in both, only in the first, only in the second; sides are not told apart."""
    found: dict[str, Counter[str]] = {}
    totals = [sum(corpus_counts(folder)[split]["documents"] for split in SPLITS) for folder in (one, two)]
    passes = max(1, -(-max(totals) // _COMPARED_AT_A_TIME))
    for part in range(passes):
        first, second = (_ids(folder, part, passes) for folder in (one, two))
        in_two = np.isin(first[0], second[0])
        in_one = np.isin(second[0], first[0])
        for name, sources in (
            ("both", first[1][in_two]),
            ("only in the first", first[1][~in_two]),
            ("only in the second", second[1][~in_one]),
        ):
            for source, number in zip(*np.unique(sources, return_counts=True), strict=True):
                found.setdefault(str(source), Counter())[name] += int(number)
    return {source: dict(counts) for source, counts in sorted(found.items())}


def _known_source(counts: dict[str, Any], split: Split, source: str | None) -> None:
    known = counts[split]["by_source"]
    if source is not None and source not in known:
        hint = did_you_mean(source, known)
        raise DataError(f'no document of source "{source}" in {split}{hint}; sources: {", ".join(known) or "none"}')


def _drop_shards(folder: Path) -> list[Path]:
    return sorted((folder / DROPS).glob("*.parquet"))


def _drawn(
    shards: Sequence[Path], column: str, wanted: str | None, count: int, seed: int
) -> Iterator[tuple[Path, list[int]]]:
    """For each shard the rows drawn from all rows whose column is the wanted one."""
    rows_of: list[NDArray[np.int64]] = []
    for shard in shards:
        if wanted is None:
            rows_of.append(np.arange(pq.read_metadata(shard).num_rows))
        else:
            values = pq.read_table(shard, columns=[column])[column]
            rows_of.append(np.flatnonzero(pc.equal(values, wanted).to_numpy()))
    ends = np.cumsum([0, *map(len, rows_of)])
    drawn = sorted(random.Random(seed).sample(range(int(ends[-1])), min(count, int(ends[-1]))))
    for shard, rows, low, high in zip(shards, rows_of, ends, ends[1:], strict=False):
        here = [int(rows[index - low]) for index in drawn if low <= index < high]
        if here:
            yield shard, here


def _rows(shard: Path, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Some rows, in rising order; only their row groups are read."""
    found: list[dict[str, Any]] = []
    with pq.ParquetFile(shard) as file:
        first = 0
        for group in range(file.num_row_groups):
            number = file.metadata.row_group(group).num_rows
            here = [row - first for row in rows if first <= row < first + number]
            if here:
                found += file.read_row_group(group).take(here).to_pylist()
            first += number
    return found


def _dropped(folder: Path, row: dict[str, Any]) -> DroppedRow:
    detail = row["detail"]
    if row["reason"] == NEAR_DUPLICATE:
        mates = [
            f"{mate['kept']} (similarity {mate['similarity']:.2f})"
            for pairs in sorted((folder / NEAR).glob("*/pairs.parquet"))
            for mate in pq.read_table(pairs, filters=[("removed", "=", row["id"])]).to_pylist()
        ]
        detail = f"{detail}: {', '.join(mates)}"
    return DroppedRow(row["reason"], row["source"], row["place"], detail, row["id"], row["excerpt"])


def _meta_place(meta: str) -> str:
    known = json.loads(meta)
    file = str(known.get("file", ""))
    return f"{file}:{known['line']}" if "line" in known else file


def _matching(ids: Sequence[str], places: Any, key: str) -> Iterator[int]:
    for row, (identity, place) in enumerate(zip(ids, places, strict=True)):
        if (identity and identity.startswith(key)) or place == key or place.startswith(f"{key}:"):
            yield row


def _ids(folder: Path, part: int, parts: int) -> tuple[NDArray[np.bytes_], NDArray[np.str_]]:
    """(ids, sources) of the documents whose id falls into one of `parts` equal ranges."""
    ids, sources = [np.zeros(0, f"S{2 * HASH_BYTES}")], [np.zeros(0, "U1")]
    for split in SPLITS:
        for shard in corpus_shards(folder, split):
            table = pq.read_table(shard, columns=["id", "source"])
            here = np.array(table["id"].to_pylist(), dtype=f"S{2 * HASH_BYTES}")
            names = np.array(table["source"].to_pylist(), dtype=np.str_)
            if parts > 1:
                range_of = np.array([int(identity[:8], 16) * parts >> 32 for identity in here], dtype=np.int64)
                here, names = here[range_of == part], names[range_of == part]
            ids.append(here)
            sources.append(names)
    return np.concatenate(ids), np.concatenate(sources)
