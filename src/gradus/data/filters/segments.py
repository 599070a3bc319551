"""Words or lines of many texts at once, as places in their UTF-8 bytes, with a 64-bit hash of each.

Splitting into Python strings and looking each up costs more than all that filters ask about words. Here one
byte table says which bytes belong to a segment, and the hash reads eight bytes of every segment at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_STEP = 8  # bytes that the hash takes in at once
# Beyond so many bytes a segment is hashed by itself; few words, and no more than one line in so many bytes, are.
_MOST_STEPS = 16
_PADDING = b"\0" * _STEP
_LOW_BYTES = np.array([(1 << (8 * count)) - 1 for count in range(_STEP + 1)], dtype=np.uint64)
# Odd numbers of random bits: the golden ratio's, and MurmurHash3's finaliser (Appleby 2011).
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_OTHER_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(29)


class Encoded:
    """Texts as one run of UTF-8, a line feed after each. bounds: (D + 1,), where each text begins."""

    def __init__(self, texts: Sequence[str]) -> None:
        # Lone surrogates are kept as the bytes they would have.
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self.raw = b"\n".join([*encoded, _PADDING])
        self.bounds = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum(sizes + 1, out=self.bounds[1:])

    @cached_property
    def wide(self) -> NDArray[np.int64]:
        """Where bytes of characters outside ASCII stand."""
        return np.flatnonzero(np.frombuffer(self.raw, np.uint8) >= 0x80)

    def counts(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of increasing places in the bytes are in each text, (D,)."""
        return np.diff(np.searchsorted(places, self.bounds))

    def count_wide(self, character: str) -> NDArray[np.int64]:
        """How often each text has a character of three bytes of UTF-8, (D,)."""
        data = np.frombuffer(self.raw, np.uint8)
        places = self.wide
        for distance, byte in enumerate(character.encode()):
            places = places[data[places + distance] == byte]
        return self.counts(places)


class Segments:
    """Segments of D texts, in order and without overlap.

    raw: the texts' bytes, padded; starts, ends: (S,) places in them; offsets: (D + 1,), each text's first segment.
    """

    def __init__(
        self, raw: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> None:
        self.raw = raw
        self.starts = starts
        self.ends = ends
        self.offsets = offsets

    @property
    def counts(self) -> NDArray[np.int64]:
        """Segments of each text, (D,)."""
        return np.diff(self.offsets)

    @cached_property
    def text_of(self) -> NDArray[np.int64]:
        """The text that each segment is of, (S,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    @cached_property
    def num_bytes(self) -> NDArray[np.int64]:
        """The UTF-8 length of each segment, (S,)."""
        return self.ends - self.starts

    @cached_property
    def num_characters(self) -> NDArray[np.int64]:
        """The characters of each segment, (S,)."""
        data = np.frombuffer(self.raw, np.int8)
        if not len(self.starts) or int(data.min()) >= 0:
            return self.num_bytes
        # Every byte counts but those that continue a character: 0b10xxxxxx, as signed numbers the least 64.
        later = np.zeros(len(data) + 1, dtype=np.int32 if len(data) < 1 << 31 else np.int64)
        np.cumsum(data < -64, out=later[1:])
        inside: NDArray[np.int64] = np.subtract(later[self.ends], later[self.starts], dtype=np.int64)
        return self.num_bytes - inside

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """64 bits of each segment, (S,), a function of its bytes alone."""
        return hash_segments(self.raw, self.starts, self.ends)

    def totals(self, values: NDArray[np.bool_] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum over each text's segments, (D,). values: (S,)."""
        summed = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values, out=summed[1:])
        return np.diff(summed[self.offsets])

    def strings(self, segments: NDArray[np.int64]) -> list[str]:
        """Some segments that hold no space, as text."""
        if not len(segments):
            return []
        spans = zip(self.starts[segments].tolist(), self.ends[segments].tolist(), strict=True)
        joined = b" ".join([self.raw[start:end] for start, end in spans])
        return joined.decode("utf-8", "surrogatepass").split(" ")

    def select(self, texts: NDArray[np.int64]) -> Segments:
        """The segments of some of the texts (increasing numbers)."""
        counts = self.counts
        keep = np.zeros(len(counts), dtype=bool)
        keep[texts] = True
        kept = np.repeat(keep, counts)
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum(counts[texts], out=offsets[1:])
        chosen = Segments(self.raw, self.starts[kept], self.ends[kept], offsets)
        if "hashes" in self.__dict__:
            chosen.__dict__["hashes"] = self.hashes[kept]
        return chosen


def hash_segments(raw: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 bits of each segment of padded bytes, (S,)."""
    sizes = ends - starts
    hashes = sizes.astype(np.uint64) * _FACTOR
    if not len(sizes):
        return hashes
    windows = _windows(raw)
    hashes = _taken_in(hashes, windows[starts], sizes)
    chosen = np.flatnonzero(sizes > _STEP)
    for step in range(_STEP, _STEP * _MOST_STEPS, _STEP):
        if not len(chosen):
            break
        left = sizes[chosen] - step
        hashes[chosen] = _taken_in(hashes[chosen], windows[starts[chosen] + step], left)
        chosen = chosen[left > _STEP]
    hashes = mixed(hashes)
    for segment in chosen.tolist():
        content = raw[starts[segment] : ends[segment]]
        hashes[segment] = int.from_bytes(blake2b(content, digest_size=8).digest(), "little")
    return hashes


def _taken_in(hashes: NDArray[np.uint64], taken: NDArray[np.uint64], left: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The hashes with the next eight bytes mixed in, of which `left` count."""
    taken &= _LOW_BYTES[np.minimum(left, _STEP)]
    taken ^= hashes
    taken *= _FACTOR
    taken ^= taken >> _SHIFT
    return taken


def sampled_hashes(segments: Segments) -> NDArray[np.uint64]:
    """64 bits of each segment's length, its first, middle and last bytes, (S,): equal for equal segments."""
    sizes = segments.num_bytes
    hashes = mixed(sizes.astype(np.uint64))
    windows = _windows(segments.raw)
    low_bytes = _LOW_BYTES[np.minimum(sizes, _STEP)]
    spare = np.maximum(sizes - _STEP, 0)
    for distance in (0, spare // 2, spare):
        hashes = mixed(hashes ^ (windows[segments.starts + distance] & low_bytes))
    return hashes


def _windows(raw: bytes) -> NDArray[np.uint64]:
    """The eight bytes at every place, as numbers; on padded bytes no segment needs more."""
    return np.ndarray((len(raw) - _STEP + 1,), dtype="<u8", buffer=raw, strides=(1,))


def string_hashes(strings: Sequence[str]) -> NDArray[np.uint64]:
    """The hashes that segments of exactly these strings have."""
    texts = Encoded(strings)
    return hash_segments(texts.raw, texts.bounds[:-1], texts.bounds[1:] - 1)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers whose bits each depend on all bits of the values; different for different values."""
    values = values * _FACTOR
    values ^= values >> _SHIFT
    values *= _OTHER_FACTOR
    values ^= values >> _SHIFT
    return values


def joined(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of two hashes in this order."""
    return mixed(first * _OTHER_FACTOR + second)


def find_lines(texts: Encoded) -> Segments:
    """What stands between line feeds, where it is not empty."""
    ends = np.flatnonzero(np.frombuffer(texts.raw, np.uint8) == ord("\n"))
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    filled = np.flatnonzero(starts != ends)
    starts, ends = starts[filled], ends[filled]
    return Segments(texts.raw, starts, ends, np.searchsorted(starts, texts.bounds))


def find_segments(texts: Encoded, is_inside: NDArray[np.bool_], stands_alone: NDArray[np.bool_] | None) -> Segments:
    """The runs of bytes for which a table of 256 says True, parted at white space outside ASCII.

    A byte of `stands_alone` is a segment by itself. No line feed may be inside, since it parts the texts.
    """
    data = np.frombuffer(texts.raw, np.uint8)[: int(texts.bounds[-1])]
    inside = np.frombuffer(texts.raw.translate(is_inside.tobytes()), np.int8)[: len(data)]
    if len(texts.wide):
        inside = _without_wide_space(texts, inside)
    if stands_alone is None:
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        first = [0] if len(inside) and inside[0] else []
        edges = np.concatenate([np.array(first, dtype=np.int64), edges])
        # The last byte is a line feed, so every segment ends.
        starts, ends = edges[0::2], edges[1::2]
    else:
        alone = stands_alone[data]
        before = np.zeros(len(data), dtype=bool)
        before[1:] = inside[:-1] & ~alone[:-1]
        starts = np.flatnonzero(inside.astype(bool) & (alone | ~before))
        after = np.zeros(len(data), dtype=bool)
        after[:-1] = inside[1:] & ~alone[1:]
        ends = np.flatnonzero(inside.astype(bool) & (alone | ~after)) + 1
    return Segments(texts.raw, starts, ends, np.searchsorted(starts, texts.bounds))


def _without_wide_space(texts: Encoded, inside: NDArray[np.int8]) -> NDArray[np.int8]:
    """`inside` with False on the bytes of white space outside ASCII: what str.isspace says, of two or three bytes."""
    places = texts.wide
    data = np.frombuffer(texts.raw, np.uint8)
    first, second, third = data[places], data[places + 1], data[places + 2]
    # U+0085, U+00A0
    pair = (first == 0xC2) & ((second == 0x85) | (second == 0xA0))
    # U+2000 to U+200A, U+2028, U+2029, U+202F; U+205F; U+1680; U+3000
    general = (second == 0x80) & ((third <= 0x8A) | (third == 0xA8) | (third == 0xA9) | (third == 0xAF))
    triple = (first == 0xE2) & (general | ((second == 0x81) & (third == 0x9F)))
    triple |= (first == 0xE1) & (second == 0x9A) & (third == 0x80)
    triple |= (first == 0xE3) & (second == 0x80) & (third == 0x80)
    if not (pair.any() or triple.any()):
        return inside
    inside = inside.copy()
    inside[places[pair | triple]] = 0
    inside[places[pair | triple] + 1] = 0
    inside[places[triple] + 2] = 0
    return inside
