"""Exact duplicates in bounded memory: which 128-bit text hashes have been seen before.

Hashes are kept in sorted runs that merge as they grow, as in a log-structured merge tree. A run that
reaches `run_size` is written to disk and read through a memory map, so resident memory stays near two runs
however many documents pass (16 bytes each on disk). At 128 bits, different texts do not meet by chance.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HASH_BYTES = 16


class SeenHashes:
    """The set of hashes met so far; `folder` holds the full runs and may be deleted afterwards."""

    def __init__(self, folder: Path, run_size: int = 1 << 22) -> None:
        self._folder = folder
        self._run_size = run_size
        self._growing: list[NDArray[np.bytes_]] = []  # in memory, each at least twice the next
        self._full: list[NDArray[np.bytes_]] = []  # on disk, memory-mapped
        self.size = 0

    def add(self, ids: list[str]) -> NDArray[np.bool_]:
        """Add documents by their 32-hex-digit ids; True for each that was met for the first time.

        Within one call the first of equal ids is the new one.
        """
        hashes = _hashes(ids)
        unique, first = np.unique(hashes, return_index=True)
        known = self._find(unique)
        is_new = np.zeros(len(hashes), dtype=bool)
        is_new[first[~known]] = True
        if not known.all():
            self._push(unique[~known])
        return is_new

    def contains(self, ids: list[str]) -> NDArray[np.bool_]:
        """True for each that was added before; nothing is added."""
        return self._find(_hashes(ids))

    def _find(self, hashes: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        known = np.zeros(len(hashes), dtype=bool)
        for run in (*self._full, *self._growing):
            place = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            known |= run[place] == hashes
        return known

    def _push(self, run: NDArray[np.bytes_]) -> None:
        self.size += len(run)
        while self._growing and len(self._growing[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._growing.pop(), run]), kind="stable")
        if len(run) < self._run_size:
            self._growing.append(run)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self._full):05d}.npy"
        np.save(path, run, allow_pickle=False)
        self._full.append(np.load(path, mmap_mode="r", allow_pickle=False))


def _hashes(ids: list[str]) -> NDArray[np.bytes_]:
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=f"V{HASH_BYTES}").view(_KEY)


# Fixed-width bytes compare as numpy strings do: padded with zero bytes, so equal widths compare exactly.
_KEY = np.dtype(f"S{HASH_BYTES}")
