"""The index of evaluation items that documents are checked against: their n-gram hashes, sorted, and a bitmap.

An entry is one text of an item (its question with the answer, or its question alone) with the length n of its n-grams
and the number of those that count. For each n one table leads from n-gram hashes to entries. See `decontaminate` for
the rule.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest
from gradus.data.benchmarks import (
    BenchmarkItem,
    benchmark_items,
    benchmark_names,
    benchmarks_folder,
    is_mathematics,
)
from gradus.data.normalise import normalise_text
from gradus.data.shingles import WORDS_VERSION, Hashes, Offsets, ngram_hashes, word_hashes

DECONTAMINATE_VERSION = 1

# Bits of the bitmap for each w-gram, up to the next power of two. Each sets two of them (Bloom 1970).
_BITS_PER_GRAM = 32
_LEAST_BITS = 16


@dataclass(frozen=True, slots=True)
class GramTable:
    """n-grams of one length. grams: sorted; those of gram i belong to entries[starts[i]:starts[i + 1]]."""

    n: int
    grams: Hashes
    starts: Offsets
    entries: NDArray[np.uint32]


@dataclass(frozen=True)
class ItemIndex:
    """The items of several sets. anchor: w, the length of the n-grams of the bitmap.

    item_starts: where each set's items begin in item_ids, (sets + 1,). entry_items, entry_grams: of each entry its
    item, and how many distinct n-grams count.
    """

    anchor: int
    tables: tuple[GramTable, ...]
    bitmap: NDArray[np.uint8]
    entry_items: NDArray[np.int64]
    entry_grams: NDArray[np.int64]
    sets: tuple[str, ...]
    item_starts: Offsets
    item_ids: tuple[str, ...]
    num_too_short: int
    num_common: int

    def item(self, number: int) -> tuple[str, str]:
        """Set and id."""
        return self.sets[int(np.searchsorted(self.item_starts, number, side="right")) - 1], self.item_ids[number]

    def possible(self, grams: Hashes) -> NDArray[np.int64]:
        """Where the w-grams stand that may be an item's: all that are, and by chance one in some hundreds."""
        num_bits = _num_bits(self.bitmap)
        places = np.flatnonzero(self._is_set(_first_bits(grams, num_bits)))
        return places[self._is_set(_second_bits(grams[places], num_bits))]

    def _is_set(self, bits: Hashes) -> NDArray[np.bool_]:
        found = self.bitmap[(bits >> np.uint64(3)).view(np.int64)]
        found >>= bits.astype(np.uint8) & np.uint8(7)
        found &= np.uint8(1)
        return found.view(np.bool_)

    def fingerprint(self, threshold: float) -> str:
        """Digest of everything that decides the answers."""
        content = hashlib.sha256()
        for name, array in sorted(self.arrays().items()):
            content.update(f"{name} {array.dtype.str} {len(array)}\n".encode())
            content.update(np.ascontiguousarray(array).data)
        versions = {"decontaminate": DECONTAMINATE_VERSION, "words": WORDS_VERSION}
        named = [self.sets, self.item_ids, self.anchor, threshold]
        return digest({**versions, "named": named, "content": content.hexdigest()})

    def arrays(self) -> dict[str, Any]:
        """By name, as they are saved."""
        found: dict[str, Any] = {
            "bitmap": self.bitmap,
            "entry_items": self.entry_items,
            "entry_grams": self.entry_grams,
            "item_starts": self.item_starts,
        }
        for table in self.tables:
            found |= {f"grams{table.n}": table.grams, f"starts{table.n}": table.starts, f"of{table.n}": table.entries}
        return found


def build_index(
    names: Sequence[str],
    folder: str | None,
    roadmap_dir: Path,
    *,
    ngram: int,
    math_ngram: int,
    min_words: int,
    min_distinct_words: int,
    common_items: int,
) -> ItemIndex:
    """Read the sets and index their items. Errors: DataError, ConfigError of a probe suite."""
    sets = benchmark_names(tuple(names))
    place = benchmarks_folder(folder, roadmap_dir)
    found = [list(benchmark_items(name, place, roadmap_dir)) for name in sets]
    item_starts = np.cumsum([0, *map(len, found)])
    texts, items, lengths = _texts(found, [math_ngram if is_mathematics(name) else ngram for name in sets])
    words, offsets = word_hashes(texts)
    num_words = np.diff(offsets)
    # A text of fewer words than an n-gram is one n-gram of its own length.
    lengths = np.minimum(lengths, num_words)
    looked_for = (num_words >= min_words) & (_distinct_words(words, offsets) >= min_distinct_words)
    anchor = min(ngram, math_ngram, min_words)
    tables: list[GramTable] = []
    entry_grams = np.zeros(len(texts), dtype=np.int64)
    for n in np.unique(lengths[looked_for]).tolist():
        chosen = np.flatnonzero(looked_for & (lengths == n))
        table = _table(n, words, offsets, chosen, items, item_starts, common_items)
        np.add.at(entry_grams, table.entries, 1)
        tables.append(table)
    entries = np.flatnonzero(entry_grams)
    renumbered = np.zeros(len(texts), dtype=np.uint32)
    renumbered[entries] = np.arange(len(entries))
    tables = [GramTable(t.n, t.grams, t.starts, renumbered[t.entries]) for t in tables if len(t.grams)]
    num_items = int(item_starts[-1])
    long_enough = len(np.unique(items[looked_for]))
    return ItemIndex(
        anchor,
        tuple(tables),
        _bitmap(ngram_hashes(*_part(words, offsets, entries), anchor)[0]),
        items[entries],
        entry_grams[entries],
        sets,
        item_starts,
        tuple(item.id for one in found for item in one),
        num_items - long_enough,
        long_enough - len(np.unique(items[entries])),
    )


def _texts(found: list[list[BenchmarkItem]], lengths: list[int]) -> tuple[list[str], Offsets, Offsets]:
    """(text, its item's number, its set's n) of everything that is looked for, in the items' order."""
    texts: list[str] = []
    owners: list[int] = []
    wanted: list[int] = []
    number = 0
    for items, length in zip(found, lengths, strict=True):
        for item in items:
            # The question alone too, unless it is all there is.
            for text in [item.text, item.question] if item.question and item.answer else [item.text]:
                texts.append(normalise_text(text))
                owners.append(number)
                wanted.append(length)
            number += 1
    return texts, np.array(owners, dtype=np.int64), np.array(wanted, dtype=np.int64)


def _distinct_words(words: Hashes, offsets: Offsets) -> Offsets:
    """How many words of each text differ."""
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((words, owners))
    words, owners = words[order], owners[order]
    first = np.ones(len(words), dtype=bool)
    first[1:] = (words[1:] != words[:-1]) | (owners[1:] != owners[:-1])
    return np.bincount(owners[first], minlength=len(offsets) - 1)


def _table(
    n: int, words: Hashes, offsets: Offsets, chosen: Offsets, items: Offsets, item_starts: Offsets, common_items: int
) -> GramTable:
    """The n-grams of the chosen texts, each once a text, without what too many items of one set share."""
    grams, gram_offsets = ngram_hashes(*_part(words, offsets, chosen), n)
    owners = np.repeat(chosen, np.diff(gram_offsets))
    order = np.lexsort((owners, grams))
    grams, owners = grams[order], owners[order]
    first = np.ones(len(grams), dtype=bool)
    first[1:] = (grams[1:] != grams[:-1]) | (owners[1:] != owners[:-1])
    grams, owners = grams[first], owners[first]
    # Texts are in the order of items and items in that of sets, so equal (gram, set) stand together.
    owner_items = items[owners]
    owner_sets = np.searchsorted(item_starts, owner_items, side="right")
    is_gram = np.append(True, grams[1:] != grams[:-1])[: len(grams)]
    is_group = is_gram | np.append(True, owner_sets[1:] != owner_sets[:-1])[: len(grams)]
    is_item = is_group | np.append(True, owner_items[1:] != owner_items[:-1])[: len(grams)]
    group = np.cumsum(is_group) - 1
    num_items = np.bincount(group[is_item], minlength=int(is_group.sum()))
    # Boilerplate of one set is not looked for on behalf of another either.
    gram = np.cumsum(is_gram) - 1
    is_common = np.zeros(int(is_gram.sum()), dtype=bool)
    is_common[gram[is_group][num_items > common_items]] = True
    kept = ~is_common[gram]
    distinct, counts = np.unique(grams[kept], return_counts=True)
    starts = np.append(0, np.cumsum(counts)).astype(np.int64)
    return GramTable(n, distinct, starts, owners[kept].astype(np.uint32))


def _part(words: Hashes, offsets: Offsets, chosen: Offsets) -> tuple[Hashes, Offsets]:
    """The words of the chosen texts, in the form of `word_hashes`."""
    counts = np.diff(offsets)[chosen]
    starts = np.append(0, np.cumsum(counts)).astype(np.int64)
    within = np.arange(int(starts[-1])) - np.repeat(starts[:-1], counts)
    return words[np.repeat(offsets[chosen], counts) + within], starts


def _bitmap(grams: Hashes) -> NDArray[np.uint8]:
    distinct = np.unique(grams)
    num_bits = max(_LEAST_BITS, (len(distinct) * _BITS_PER_GRAM).bit_length())
    bitmap = np.zeros(1 << (num_bits - 3), dtype=np.uint8)
    bits = np.unique(np.concatenate([_first_bits(distinct, num_bits), _second_bits(distinct, num_bits)]))
    places = (bits >> np.uint64(3)).astype(np.int64)
    starts = np.flatnonzero(np.append(True, places[1:] != places[:-1])[: len(places)])
    if len(starts):
        values = np.uint8(1) << (bits & np.uint64(7)).astype(np.uint8)
        bitmap[places[starts]] = np.bitwise_or.reduceat(values, starts)
    return bitmap


def _first_bits(grams: Hashes, num_bits: int) -> Hashes:
    return grams >> np.uint64(64 - num_bits)


def _second_bits(grams: Hashes, num_bits: int) -> Hashes:
    return grams & np.uint64((1 << num_bits) - 1)


def _num_bits(bitmap: NDArray[np.uint8]) -> int:
    return (len(bitmap) * 8).bit_length() - 1


# On disk


def save_index(path: Path, index: ItemIndex, settings: str) -> None:
    """Write the index, and settings as JSON text with it, as one .npz file."""
    header = {
        "version": [DECONTAMINATE_VERSION, WORDS_VERSION],
        "settings": settings,
        "anchor": index.anchor,
        "lengths": [table.n for table in index.tables],
        "sets": index.sets,
        "items": index.item_ids,
        "counts": [index.num_too_short, index.num_common],
        "digest": digest([index.fingerprint(0.0), settings]),
    }
    encoded = np.frombuffer(json.dumps(header).encode("utf-8"), dtype=np.uint8)
    content = io.BytesIO()
    np.savez(content, header=encoded, **index.arrays())
    write_atomic(path, content.getvalue())


def load_index(path: Path) -> tuple[ItemIndex, str]:
    """What `save_index` wrote: the index and the settings' text. Errors: DataError."""
    try:
        # numpy leaves a file open that it was given by name and cannot read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["version"] != [DECONTAMINATE_VERSION, WORDS_VERSION]:
                raise DataError(f"{path}: an index of another version of gradus; build it again")
            tables = [GramTable(n, file[f"grams{n}"], file[f"starts{n}"], file[f"of{n}"]) for n in header["lengths"]]
            index = ItemIndex(
                header["anchor"],
                tuple(tables),
                file["bitmap"],
                file["entry_items"],
                file["entry_grams"],
                tuple(header["sets"]),
                file["item_starts"],
                tuple(header["items"]),
                *header["counts"],
            )
            settings, written = header["settings"], header["digest"]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such index of evaluation items; build it first") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an index of evaluation items ({error}); build it again") from error
    if digest([index.fingerprint(0.0), settings]) != written:
        raise DataError(f"{path}: the index is damaged (its content and its digest differ); build it again")
    return index, settings
