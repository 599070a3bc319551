"""Words and word n-grams of many texts at once, as 64-bit hashes: for near-duplicates and decontamination.

What counts as a word (`WORDS_VERSION` names this definition; change both together):

- The text is lower-cased by Python's rules, and a final sigma is written as any other sigma.
- A word is a longest run of characters whose Unicode category is letter, mark or number (L*, M*, N*). All else
  separates: white space, punctuation, symbols, "_", emoji, format characters, lone surrogates.
- In scripts that are written without spaces between words (Han, Kana, Bopomofo, Thai, Lao, Burmese, Khmer) each
  character is a word of its own.

A word's hash is h(w) = mix(sum_k c_k A^(k+1)), c_k being its UTF-8 bytes in little-endian groups of eight, padded
with zeros. The hash of the n-gram w_1 .. w_n is mix(sum_i h(w_i) B^(n-i)). All of it is modulo 2^64; A and B are odd
constants and mix(h) = xorshift29(A xorshift32(A h)) spreads every bit over the whole. These are hashes for text,
not against an adversary.

Method: texts are joined as UTF-8, mapped byte by byte (`bytes.translate`) to lower case with separators as zero,
and cut where zero meets non-zero; words are then read eight bytes at a time. Only characters outside ASCII are
decoded, to look up their class. No Python runs per word. Texts are taken a few hundred kilobytes at a time, so
that the work stays in cache and memory beside the result does not depend on the input; a longer text is taken in
pieces cut between words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WORDS_VERSION = 1
Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

_CHUNK_CHARACTERS = 1 << 18
# The hash's constants: odd, from the golden ratio (Knuth 1998, TAOCP 3, 6.4) and from splitmix64's finaliser.
_A = 0x9E3779B97F4A7C15
_B = 0xBF58476D1CE4E5B9
_MODULUS = 1 << 64

# Classes of characters. No assigned character above the third plane is a letter.
_SEPARATES, _JOINS, _ALONE = 0, 1, 2
_LOWERS = 4  # added where the lower-cased form is another
_NUM_CODE_POINTS = 0x40000
_SCRIPTS_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # Han radicals
    (0x3005, 0x3007),
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # halfwidth Katakana
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
# Bytes of ASCII: letters in lower case and digits stay, the rest is zero; bytes of longer characters stay.
_LOWER_ASCII = bytes(
    ord(chr(byte).lower()) if byte < 128 and chr(byte).isalnum() else byte if byte >= 128 else 0 for byte in range(256)
)
# Bytes of a word's last group that belong to it, by their number.
_GROUP_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)


def word_hashes(texts: Sequence[str]) -> tuple[Hashes, Offsets]:
    """The words of each text in order; (uint64 (words,), int64 (texts + 1,)), words of text i at [o[i], o[i + 1])."""
    counts = np.zeros(len(texts), dtype=np.int64)
    found: list[Hashes] = []
    for owners, pieces in _chunks(texts):
        hashes, starts = _hash_chunk(pieces)
        np.add.at(counts, np.array(owners), np.diff(starts))
        found.append(hashes)
    words = np.concatenate(found) if found else np.empty(0, dtype=np.uint64)
    return words, _offsets(counts)


def ngram_hashes(words: Hashes, offsets: Offsets, n: int) -> tuple[Hashes, Offsets]:
    """Every run of n words within a text, in order; n >= 1. Takes and returns what `word_hashes` returns."""
    counts = np.maximum(np.diff(offsets) - (n - 1), 0)
    hashes = np.empty(int(counts.sum()), dtype=np.uint64)
    block = _CHUNK_CHARACTERS // 8
    filled = 0
    within = np.ones(max(len(words) - n + 1, 0), dtype=bool)  # whether the n-gram ends in the text it begins in
    for back in range(1, n):
        last = offsets[1:] - back
        within[last[(last >= 0) & (last < len(within))]] = False
    for start in range(0, len(within), block):
        stop = min(start + block, len(within))
        kept = _mix(_polynomial(words[start : stop + n - 1], n))[within[start:stop]]
        hashes[filled : filled + len(kept)] = kept
        filled += len(kept)
    return hashes, _offsets(counts)


def _offsets(counts: NDArray[np.int64]) -> Offsets:
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _mix(hashes: Hashes) -> Hashes:
    mixed = hashes * np.uint64(_A)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(_A)
    mixed ^= mixed >> np.uint64(29)
    return mixed


def _polynomial(words: Hashes, n: int) -> Hashes:
    """sum_i words[. + i] B^(n - 1 - i) at every place, from runs of 1, 2, 4 ... words."""
    total, total_width = words[:0], 0
    run, width = words, 1
    while True:
        if n & width:
            total = run if total_width == 0 else _join(run, width, total, total_width)
            total_width += width
        if 2 * width > n:
            return total
        run, width = _join(run, width, run, width), 2 * width


def _join(first: Hashes, first_width: int, second: Hashes, second_width: int) -> Hashes:
    """Polynomials of runs, each continued by the run that begins where it ends."""
    length = len(second) - first_width
    joined = first[:length] * np.uint64(pow(_B, second_width, _MODULUS))
    joined += second[first_width:]
    return joined


# Texts in chunks


def _chunks(texts: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
    """(the text's number, piece) for pieces of about `_CHUNK_CHARACTERS` together."""
    owners: list[int] = []
    pieces: list[str] = []
    size = 0
    for number, text in enumerate(texts):
        for piece in _pieces(text):
            owners.append(number)
            pieces.append(piece)
            size += len(piece)
            if size >= _CHUNK_CHARACTERS:
                yield owners, pieces
                owners, pieces, size = [], [], 0
    if pieces:
        yield owners, pieces


def _pieces(text: str) -> Iterator[str]:
    """The text, cut between words where it is longer than a chunk."""
    start = 0
    while len(text) - start > _CHUNK_CHARACTERS:
        stop = start + _CHUNK_CHARACTERS
        # Backwards for a few characters; beyond that a word of this length goes on until it ends.
        near = next((place for place in range(stop, max(start, stop - 1000), -1) if _separates(text[place])), None)
        if near is None:
            near = next((place for place in range(stop, len(text)) if _separates(text[place])), len(text))
        yield text[start:near]
        start = near
    yield text[start:] if start else text


def _separates(character: str) -> bool:
    code = ord(character)
    return code >= _NUM_CODE_POINTS or int(_character_classes()[code]) & 3 != _JOINS


def _hash_chunk(pieces: list[str]) -> tuple[Hashes, Offsets]:
    """Word hashes of the pieces end to end, and where each piece's words begin."""
    buffer, piece_starts, alone = _lower_bytes(pieces)
    is_word = buffer != 0
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])
    edges += 1
    starts, ends = edges[0::2], edges[1::2]
    if len(alone):
        after = alone + _character_bytes(buffer[alone])
        cuts = _merge(alone[is_word[alone - 1]], after[is_word[after]])
        cuts = cuts[np.diff(cuts, prepend=-1) != 0]
        starts, ends = _merge(starts, cuts), _merge(ends, cuts)
    offsets = np.append(np.searchsorted(starts, piece_starts), len(starts)).astype(np.int64)
    return _mix(_word_polynomials(buffer, starts, ends)), offsets


def _merge(one: Offsets, other: Offsets) -> Offsets:
    """Two sorted arrays as one; the stable sort takes them for the runs that they are, in linear time."""
    return np.sort(np.concatenate([one, other]), kind="stable")


def _word_polynomials(buffer: NDArray[np.uint8], starts: Offsets, ends: Offsets) -> Hashes:
    """sum_k group_k A^(k + 1) of each word, the groups being its bytes by eight."""
    # Every place of the buffer seen as a little-endian number of eight bytes.
    groups = np.ndarray((len(buffer) - 7,), dtype="<u8", buffer=buffer, strides=(1,))
    lengths = ends - starts
    total: Hashes = groups[starts] & _GROUP_MASKS[np.minimum(lengths, 8)]
    total *= np.uint64(_A)
    long = np.flatnonzero(lengths > 8)
    if len(long):
        num_groups = (lengths[long] - 1) // 8  # after the first
        first = np.cumsum(num_groups) - num_groups
        order = np.arange(int(num_groups.sum())) - np.repeat(first, num_groups) + 1
        places = np.repeat(starts[long], num_groups) + 8 * order
        left = np.repeat(ends[long], num_groups) - places
        values = groups[places] & _GROUP_MASKS[np.minimum(left, 8)]
        powers = np.multiply.accumulate(np.full(int(num_groups.max()) + 1, _A, dtype=np.uint64))
        values *= powers[order]
        total[long] += np.add.reduceat(values, first)
    return total


# Bytes and classes of characters


def _lower_bytes(pieces: list[str]) -> tuple[NDArray[np.uint8], Offsets, Offsets]:
    """Pieces as UTF-8 in lower case, zero where words are separated; where each begins; characters that stand alone.

    Begins with one zero and ends with at least eight, so that a look beyond a word stays inside.
    """
    buffer, starts = _join_bytes(pieces)
    leads = np.flatnonzero(buffer >= 0xC0)
    if not len(leads):
        return buffer, starts, leads
    classes = _classes(buffer, leads)
    lowered = np.searchsorted(starts, leads[(classes & _LOWERS) != 0], side="right") - 1
    if len(lowered):
        for number in np.unique(lowered).tolist():
            pieces[number] = pieces[number].lower().replace("ς", "σ")
        buffer, starts = _join_bytes(pieces)
        leads = np.flatnonzero(buffer >= 0xC0)
        classes = _classes(buffer, leads)
    separators = leads[(classes & 3) == _SEPARATES]
    sizes = _character_bytes(buffer[separators])
    for place in range(4):
        separators, sizes = separators[sizes > place], sizes[sizes > place]
        buffer[separators + place] = 0
    return buffer, starts, leads[(classes & 3) == _ALONE]


def _join_bytes(pieces: list[str]) -> tuple[NDArray[np.uint8], Offsets]:
    encoded = [piece.encode("utf-8", "replace") for piece in pieces]
    joined = bytearray(b"\0".join([b"", *encoded, b"\0" * 8])).translate(_LOWER_ASCII)
    sizes = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    return np.frombuffer(joined, dtype=np.uint8), np.cumsum(sizes + 1) - sizes


def _character_bytes(leads: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The length in UTF-8 of characters by their first byte, which is above 0x7F."""
    return 2 + (leads >= 0xE0).astype(np.int64) + (leads >= 0xF0)


def _classes(buffer: NDArray[np.uint8], leads: Offsets) -> NDArray[np.uint8]:
    """The class of the character that begins at each place."""
    sizes = _character_bytes(buffer[leads])
    codes = buffer[leads].astype(np.int64) & (0xFF >> (sizes + 1))
    for place in range(1, 4):
        more = np.flatnonzero(sizes > place)
        codes[more] = (codes[more] << 6) | (buffer[leads[more] + place] & 0x3F)
    found: NDArray[np.uint8] = _character_classes()[np.minimum(codes, _NUM_CODE_POINTS)]
    return found


@lru_cache(maxsize=1)
def _character_classes() -> NDArray[np.uint8]:
    """The class by code point; the last entry is for every code point beyond the table."""
    classes = bytearray(_NUM_CODE_POINTS + 1)
    for code in range(_NUM_CODE_POINTS):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            classes[code] = _JOINS
        if character.lower() != character or character == "ς":
            classes[code] |= _LOWERS
    table = np.frombuffer(classes, dtype=np.uint8)
    for first, last in _SCRIPTS_WITHOUT_SPACES:
        block = table[first : last + 1]
        block[(block & 3) == _JOINS] += _ALONE - _JOINS
    return table
