"""The validation side: decided by the text alone.

A hash of the key, read as a number in [0, 1), is compared with the validation fraction. So the same text is
on the same side in every corpus, whatever the order, the seed and the other sources, and a larger fraction
only adds to what a smaller one held out.
"""

from __future__ import annotations

import hashlib

from gradus.core.errors import DataError


def holdout_position(key: str) -> float:
    """A number in [0, 1) that depends on `key` only and is uniform over keys."""
    # Hashed again, with a label, so that the position says nothing about ids that are themselves hashes.
    digest = hashlib.sha256(b"gradus validation\0" + key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def check_sides(
    train: int, validation: int, unit: str, validation_fraction: float, least_position: float, advice: str = ""
) -> None:
    """DataError where a side is empty that must not be.

    train, validation: how much they hold, in `unit`. least_position: of what is in train. advice: how else the
    validation side gets something.
    """
    if validation_fraction > 0 and not validation:
        raise DataError(
            f"validation_fraction = {validation_fraction:g} holds out none of {train} {unit}; "
            f"set it above {least_position:.4f} for at least one, or to 0 for none{advice}"
        )
    if not train:
        raise DataError(
            f"validation_fraction = {validation_fraction:g} holds out all {validation} {unit} and leaves none to train "
            "on; set it lower"
        )
