"""Byte-level vocabularies as bytes and ranks, and whether a fast encoder may stand in for the reference one.

The reference (HF tokenizers) merges the listed pairs in their order. tiktoken merges any two neighbours
that together spell a token, lowest id first, and takes a piece that is a token as a whole. The two agree on
every text if (1) each merge makes a new token and ids follow the order of merges, and (2) merging the bytes
of each token by tiktoken's rule ends in exactly the listed pair. For within a token's span, before it is
joined, a text's merges are those of the token alone, so tiktoken never joins it from another pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte, as character -> byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table


def token_from_text(text: str, alphabet: Mapping[str, int]) -> bytes | None:
    """The bytes of a vocabulary entry, or None where it is not written in the byte alphabet."""
    if not all(char in alphabet for char in text):
        return None
    return bytes(alphabet[char] for char in text)


def last_pair(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two parts that tiktoken's rule joins last when it merges `token` from single bytes.

    None where it never becomes one piece.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, where = None, -1
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1])
            if rank is not None and (best is None or rank < best):
                best, where = rank, i
        if best is None:
            return None
        parts[where : where + 2] = [parts[where] + parts[where + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None


def merges_follow_ranks(merges: Sequence[tuple[bytes, bytes]], ranks: Mapping[bytes, int]) -> bool:
    """Whether encoding by ranks (tiktoken) gives the ids of encoding by merges, on every text."""
    if len(merges) + 256 != len(ranks) or sum(len(token) == 1 for token in ranks) != 256:
        return False
    previous = -1
    for left, right in merges:
        rank = ranks.get(left + right, -1)
        if rank <= previous or last_pair(left + right, ranks) != (left, right):
            return False
        previous = rank
    return True
