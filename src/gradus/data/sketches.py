"""A shard's sketch: all that near-duplicate search needs of its documents, about 360 bytes each, without the text.

Making a sketch depends on the shard alone, so any process on any machine may do it. A sketch is a folder with

    ids.bin         16 bytes a document, its `document_id`
    ranks.bin       uint32, its quality: of near-duplicates the highest stays
    signatures.bin  uint16 x places
    keys.bin        uint64, sorted runs of (upper 34 bits of a band key, document's number in the shard)
    sketch.json     written last: counts, sizes and the fingerprint of the settings

all little-endian. Documents without shingles have no keys.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradus.core.errors import DataError
from gradus.core.files import fsync_file, write_atomic
from gradus.data.minhash import MinHashSettings, Signatures, band_keys, signatures
from gradus.data.sorted_runs import RunWriter, Values

ID_BYTES = 16
# A key and a document's number share 64 bits. Keys that meet by chance cost a comparison, never a document.
NUMBER_BITS = 30
NUMBER_MASK = np.uint64((1 << NUMBER_BITS) - 1)
MOST_DOCUMENTS = 1 << NUMBER_BITS
_RUN_KEYS = 1 << 22
# Of sketches and of the indices made from them.
SKETCH_FORMAT = 1


class SketchWriter:
    """Writes one shard's sketch, batch by batch; an earlier one in `folder` is replaced."""

    def __init__(self, folder: Path, settings: MinHashSettings, run_keys: int = _RUN_KEYS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sketch.json").unlink(missing_ok=True)
        self._folder = folder
        self._settings = settings
        self._documents = 0
        for name in ("ids", "ranks", "signatures"):
            (folder / f"{name}.bin").write_bytes(b"")
        self._keys = RunWriter(folder / "keys.bin", run_keys)

    def add(self, texts: Sequence[str], ids: Sequence[str], ranks: Sequence[int]) -> None:
        """Append documents. ids: 32 hex digits each; ranks: in [0, 2^32), such as the length of the text."""
        self.add_signatures(signatures(texts, self._settings), ids, ranks)

    def add_signatures(self, signed: Signatures, ids: Sequence[str], ranks: Sequence[int]) -> None:
        """As `add`, where the signatures are at hand."""
        if not len(signed) == len(ids) == len(ranks):
            raise ValueError(f"{len(signed)} signatures, {len(ids)} ids and {len(ranks)} ranks; one of each a document")
        if self._documents + len(signed) > MOST_DOCUMENTS:
            raise DataError(f"{self._folder}: more than {MOST_DOCUMENTS:,} documents in one shard; divide it")
        packed = bytes.fromhex("".join(ids))
        if len(packed) != ID_BYTES * len(ids):
            raise ValueError(f"an id has {2 * ID_BYTES} hex digits; found {', '.join(ids[:3])}")
        self._append("ids", packed)
        self._append("ranks", np.array(ranks, dtype="<u4").tobytes())
        self._append("signatures", signed.astype("<u2", copy=False).tobytes())
        rows = np.flatnonzero(signed.any(axis=1))
        keys = band_keys(signed[rows], self._settings) & ~NUMBER_MASK
        keys |= (rows + self._documents).astype(np.uint64)[:, None]
        self._keys.add(keys.reshape(-1))
        self._documents += len(signed)

    def close(self) -> None:
        """Finish the sketch; without this the folder holds none."""
        self._keys.flush()
        sizes = {}
        for path in sorted(self._folder.glob("*.bin")):
            fsync_file(path)
            sizes[path.name] = path.stat().st_size
        content = {
            "format": SKETCH_FORMAT,
            "fingerprint": self._settings.sketch_fingerprint,
            "documents": self._documents,
            "key_runs": self._keys.counts,
            "sizes": sizes,
        }
        write_atomic(self._folder / "sketch.json", json.dumps(content, indent=1))

    def _append(self, name: str, content: bytes) -> None:
        with (self._folder / f"{name}.bin").open("ab") as file:
            file.write(content)


@dataclass(frozen=True)
class Sketch:
    """A finished sketch. key_runs: values in each sorted run of keys.bin."""

    folder: Path
    documents: int
    key_runs: tuple[int, ...]


def read_sketch(folder: Path, settings: MinHashSettings) -> Sketch:
    """Errors: DataError where there is none, it is damaged, or it was made with other settings."""
    content = read_manifest(folder, "sketch.json", settings)
    return Sketch(folder, content["documents"], tuple(content["key_runs"]))


def read_manifest(folder: Path, name: str, settings: MinHashSettings) -> dict[str, Any]:
    """The manifest of a folder of `.bin` files, whose sizes and settings are as it says."""
    path = folder / name
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no {name} here; what was being written was not finished, write it again") from None
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); write it again") from None
    if content.get("format") != SKETCH_FORMAT or content.get("fingerprint") != settings.sketch_fingerprint:
        raise DataError(
            f"{path}: made with other settings of minhash (ngram, bands, rows, seed) or another version of it; "
            "use the same settings, or make it again"
        )
    for file, size in content["sizes"].items():
        found = (folder / file).stat().st_size if (folder / file).is_file() else None
        if found != size:
            raise DataError(
                f"{folder / file}: {'missing' if found is None else f'{found} bytes'}, expected {size} bytes"
            )
    return content


def renumber(values: Values, numbers: NDArray[Any]) -> Values:
    """Keys whose documents carry other numbers."""
    return (values & ~NUMBER_MASK) | numbers.astype(np.uint64)
