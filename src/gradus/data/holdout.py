"""The validation side: decided by the text alone.

A hash of the key, read as a number in [0, 1), is compared with the validation fraction. So the same text is
on the same side in every corpus, whatever the order, the seed and the other sources, and a larger fraction
only adds to what a smaller one held out.
"""

from __future__ import annotations

import hashlib


def holdout_position(key: str) -> float:
    """A number in [0, 1) that depends on `key` only and is uniform over keys."""
    # Hashed again, with a label, so that the position says nothing about ids that are themselves hashes.
    digest = hashlib.sha256(b"gradus validation\0" + key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_held_out(key: str, validation_fraction: float) -> bool:
    """Whether the text with this key belongs to the validation side."""
    return holdout_position(key) < validation_fraction
