"""Words and word n-grams of many texts at once, as 64-bit hashes: for near-duplicates and decontamination.

What counts as a word (`WORDS_VERSION` names this definition; change both together):

- The text is lower-cased by Python's rules, and a final sigma is written as any other sigma.
- A word is a longest run of characters whose Unicode category is letter, mark or number (L*, M*, N*). All else
  separates: white space, punctuation, symbols, "_", emoji, format characters, lone surrogates.
- In scripts that are written without spaces between words (Han, Kana, Bopomofo, Thai, Lao, Burmese, Khmer) each
  character is a word of its own; so is every code point of the two planes of ideographs (U+20000 to U+3FFFF).

A word's hash is h(w) = mix(sum_k c_k A^(k+1)), c_k being its UTF-8 bytes in little-endian groups of eight, padded
with zeros. The hash of the n-gram w_1 .. w_n is mix(sum_i h(w_i) B^(n-i)). All of it is modulo 2^64; A and B are odd
constants and mix(h) = xorshift29(A xorshift32(A h)) spreads every bit over the whole. These are hashes for text,
not against an adversary.

Method: texts are joined as UTF-8 and mapped byte by byte to lower case, with zero between words; words are cut where
zero meets non-zero and read eight bytes at a time. Only characters outside ASCII are decoded, to look up their class
and lower case. No Python runs per word. Texts are taken a few hundred kilobytes at a time, so
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
Bytes = NDArray[np.uint8]

_CHUNK_CHARACTERS = 1 << 18
# The hash's constants: odd, from the golden ratio (Knuth 1998, TAOCP 3, 6.4) and from splitmix64's finaliser.
_A = 0x9E3779B97F4A7C15
_B = 0xBF58476D1CE4E5B9
_MODULUS = 1 << 64

# Classes of characters. No assigned character above the third plane is a letter.
_SEPARATES, _JOINS, _ALONE = 0, 1, 2
# Added where the lower-cased form is another character of the same size in UTF-8, and where it is anything else.
_LOWERS, _RESIZES = 4, 8
_IDEOGRAPHS, _NUM_CODE_POINTS = 0x20000, 0x40000
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
    (_IDEOGRAPHS, _NUM_CODE_POINTS - 1),
)
# Bytes of ASCII: letters in lower case and digits stay, the rest is zero; bytes of longer characters stay.
_LOWER_ASCII = bytes(
    ord(chr(byte).lower()) if byte < 128 and chr(byte).isalnum() else byte if byte >= 128 else 0 for byte in range(256)
)
# Bytes of a word's last group that belong to it, by their number.
_GROUP_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)


def word_hashes(texts: Sequence[str]) -> tuple[Hashes, Offsets]:
    """The words of each text in order; (uint64 (words,), int64 (texts + 1,)), words of text i at [o[i], o[i + 1])."""
    _keep_freed_memory()
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
            total = run if total_width == 0 else _follow(run, width, total, total_width)
            total_width += width
        if 2 * width > n:
            return total
        run, width = _follow(run, width, run, width), 2 * width


def _follow(first: Hashes, first_width: int, second: Hashes, second_width: int) -> Hashes:
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
        for piece in (text,) if len(text) <= _CHUNK_CHARACTERS else _pieces(text):
            owners.append(number)
            pieces.append(piece)
            size += len(piece)
            if size >= _CHUNK_CHARACTERS:
                yield owners, pieces
                owners, pieces, size = [], [], 0
    if pieces:
        yield owners, pieces


def _pieces(text: str) -> Iterator[str]:
    """A text longer than a chunk, cut between words."""
    start = 0
    while len(text) - start > _CHUNK_CHARACTERS:
        stop = start + _CHUNK_CHARACTERS
        # Backwards for a few characters; beyond that a word of this length goes on until it ends.
        near = next((place for place in range(stop, max(start, stop - 1000), -1) if _separates(text[place])), None)
        if near is None:
            near = next((place for place in range(stop, len(text)) if _separates(text[place])), len(text))
        yield text[start:near]
        start = near
    yield text[start:]


def _separates(character: str) -> bool:
    if character.isascii():
        return not character.isalnum()
    classes, _ = _character_classes()
    return int(classes[min(ord(character), _NUM_CODE_POINTS)]) & 3 != _JOINS


def _hash_chunk(pieces: list[str]) -> tuple[Hashes, Offsets]:
    """Word hashes of the pieces end to end, and where each piece's words begin."""
    buffer, is_word, piece_starts, alone = _lower_bytes(pieces)
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])
    edges += 1
    if len(alone):
        cuts = _cuts(buffer, is_word, alone)
        # Inside a run a word ends here and the next begins.
        edges = np.insert(edges, np.repeat(np.searchsorted(edges, cuts), 2), np.repeat(cuts, 2))
    starts, ends = edges[0::2], edges[1::2]
    offsets = np.append(np.searchsorted(starts, piece_starts), len(starts)).astype(np.int64)
    return _mix(_word_polynomials(buffer, starts, ends)), offsets


def _cuts(buffer: Bytes, is_word: NDArray[np.bool_], alone: Offsets) -> Offsets:
    """Where words meet without a separator: before and after characters that stand alone."""
    after = alone + _character_bytes(buffer[alone])
    # Where the next stands alone too, it is cut off before itself.
    meets = is_word[after]
    meets[:-1] &= after[:-1] != alone[1:]
    # The stable sort takes the two for the runs that they are, in linear time.
    return np.sort(np.concatenate([alone[is_word[alone - 1]], after[meets]]), kind="stable")


def _word_polynomials(buffer: Bytes, starts: Offsets, ends: Offsets) -> Hashes:
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


def _lower_bytes(pieces: list[str]) -> tuple[Bytes, NDArray[np.bool_], Offsets, Offsets]:
    """Pieces as UTF-8 in lower case; which bytes are of words; where each begins; characters that stand alone.

    Begins with one byte and ends with at least eight that are of no word, so that a look beyond a word stays inside.
    """
    encoded = [piece.encode("utf-8", "replace") for piece in pieces]
    buffer, is_word, starts = _lower_ascii(encoded)
    leads = np.flatnonzero(buffer >= 0xC0)
    if not len(leads):
        return buffer, is_word, starts, leads
    codes, sizes = _code_points(buffer, leads)
    table, lower = _character_classes()
    classes = table[codes]
    resized = leads[(classes & _RESIZES) != 0]
    if len(resized):
        for number in np.unique(np.searchsorted(starts, resized, side="right") - 1).tolist():
            encoded[number] = pieces[number].lower().replace("ς", "σ").encode("utf-8", "replace")
        buffer, is_word, starts = _lower_ascii(encoded)
        leads = np.flatnonzero(buffer >= 0xC0)
        codes, sizes = _code_points(buffer, leads)
        classes = table[codes]
    upper = np.flatnonzero(classes & _LOWERS)
    _write_characters(buffer, leads[upper], lower[codes[upper]], sizes[upper])
    separators = np.flatnonzero((classes & 3) == _SEPARATES)
    places, lengths = leads[separators], sizes[separators]
    for place in range(4):
        is_word[places[lengths > place] + place] = False
    return buffer, is_word, starts, leads[(classes & 3) == _ALONE]


def _lower_ascii(encoded: list[bytes]) -> tuple[Bytes, NDArray[np.bool_], Offsets]:
    """The joined bytes, ASCII in lower case and zero for what is no word; which are not zero; where each begins."""
    joined = bytearray(b"\0".join([b"", *encoded, b"\0" * 8])).translate(_LOWER_ASCII)
    buffer = np.frombuffer(joined, dtype=np.uint8)
    sizes = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    return buffer, buffer != 0, np.cumsum(sizes + 1) - sizes


def _character_bytes(leads: Bytes) -> Offsets:
    """The length in UTF-8 of characters by their first byte, which is above 0x7F."""
    return 2 + (leads >= 0xE0).astype(np.int64) + (leads >= 0xF0)


def _code_points(buffer: Bytes, leads: Offsets) -> tuple[Offsets, Offsets]:
    """Code point, at most the last of the table, and length of the character that begins at each place."""
    firsts = buffer[leads]
    sizes = _character_bytes(firsts)
    codes = firsts.astype(np.int64) & (0xFF >> (sizes + 1))
    for place in range(1, 4):
        more = np.flatnonzero(sizes > place) if place > 1 else slice(None)
        codes[more] = (codes[more] << 6) | (buffer[leads[more] + place] & 0x3F)
    return np.minimum(codes, _NUM_CODE_POINTS), sizes


def _write_characters(buffer: Bytes, places: Offsets, codes: NDArray[np.int64], sizes: Offsets) -> None:
    for size in (2, 3, 4):
        chosen = np.flatnonzero(sizes == size)
        first, rest = places[chosen], codes[chosen]
        for place in range(size - 1, 0, -1):
            buffer[first + place] = 0x80 | (rest & 0x3F)
            rest >>= 6
        buffer[first] = (0xF00 >> size & 0xFF) | rest


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Make glibc keep freed arrays of this size for the next chunk, instead of returning them and faulting anew.

    A block that is freed raises its threshold for doing so (mallopt(3), M_MMAP_THRESHOLD); this one is never written,
    so it costs nothing. At most 64 MiB stay with the process; it takes a quarter off the time of a sketch.
    """
    np.empty((1 << 25) - (1 << 16), dtype=np.uint8)


@lru_cache(maxsize=1)
def _character_classes() -> tuple[Bytes, NDArray[np.int64]]:
    """By code point: the class, and the lower-cased form. The last entry is for all code points beyond the table."""
    classes = np.zeros(_NUM_CODE_POINTS + 1, dtype=np.uint8)
    lowered = np.arange(_NUM_CODE_POINTS + 1)
    # The two planes of ideographs are letters throughout, whatever this Python's Unicode has assigned in them.
    classes[_IDEOGRAPHS:_NUM_CODE_POINTS] = _JOINS
    for code in range(0x80, _IDEOGRAPHS):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMN":
            classes[code] = _JOINS
            lower = "σ" if character == "ς" else character.lower()
            if lower != character:
                fits = len(lower) == 1 and len(lower.encode()) == len(character.encode())
                classes[code] |= _LOWERS if fits else _RESIZES
                lowered[code] = ord(lower[0])
    for first, last in _SCRIPTS_WITHOUT_SPACES:
        block = classes[first : last + 1]
        block[(block & 3) == _JOINS] += _ALONE - _JOINS
    return classes, lowered
