"""A stateless shuffle: the i-th element of a permutation of n rows, in constant memory.

Method: a balanced Feistel network over the smallest even number of bits that holds n, with cycle walking (a
result outside [0, n) is encrypted again until it is inside). Source: Black and Rogaway 2002, "Ciphers with
arbitrary finite domains", method 2. The round function is the 64-bit finaliser of splitmix64 (Vigna).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
# Neighbours that `permuted` works out together: one by one, most of the time goes into starting array operations.
_TOGETHER = 4096
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def permutation_keys(*parts: int | str) -> NDArray[np.uint64]:
    """Round keys for one permutation, from anything that names it such as (seed, epoch)."""
    label = "\0".join(str(part) for part in parts)
    digest = hashlib.sha512(b"gradus permutation\0" + label.encode()).digest()
    return np.frombuffer(digest, dtype="<u8")[:_ROUNDS].copy()


def permute(index: NDArray[np.int64], size: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each index of [0, size) goes in the permutation that `keys` names.

    index: any shape, values in [0, size). Returns the same shape. A bijection for fixed size and keys.
    """
    return _walk(index, size, keys, _feistel)


def unpermute(index: NDArray[np.int64], size: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each index came from: `permute(unpermute(i)) == i`. Arguments and errors as there."""
    return _walk(index, size, keys, _inverse_feistel)


def permuted(index: NDArray[np.int64], size: int, *names: int | str) -> NDArray[np.int64]:
    """`permute` with the keys of `names`, for indices that follow one another from call to call.

    Results are kept for the stretches of indices that were asked for last.
    """
    found = np.empty_like(index)
    stretches = index // _TOGETHER
    for number in np.unique(stretches).tolist():
        here = stretches == number
        found[here] = _stretch(number, size, names)[index[here] - number * _TOGETHER]
    return found


@lru_cache(maxsize=64)
def _stretch(number: int, size: int, names: tuple[int | str, ...]) -> NDArray[np.int64]:
    first = number * _TOGETHER
    return permute(np.arange(first, min(first + _TOGETHER, size)), size, permutation_keys(*names))


_Rounds = Callable[[NDArray[np.uint64], int, NDArray[np.uint64]], NDArray[np.uint64]]


def _walk(index: NDArray[np.int64], size: int, keys: NDArray[np.uint64], rounds: _Rounds) -> NDArray[np.int64]:
    """Apply the rounds until every value is inside; inside values keep to their cycle, so this can be undone."""
    if size < 1:
        raise ValueError(f"a permutation needs at least one element, found {size}")
    index = np.asarray(index, dtype=np.int64)
    if index.size and (index.min() < 0 or index.max() >= size):
        raise ValueError(f"an index lies outside 0..{size - 1}")
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    value = index.astype(np.uint64).ravel()
    outside = np.ones(value.shape, dtype=bool)
    while outside.any():
        value[outside] = rounds(value[outside], half_bits, keys)
        outside = value >= np.uint64(size)
    return value.astype(np.int64).reshape(index.shape)


def _feistel(value: NDArray[np.uint64], half_bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _inverse_feistel(value: NDArray[np.uint64], half_bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for key in keys[::-1]:
        left, right = right ^ (_mix(left ^ key) & mask), left
    return (left << shift) | right


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLIERS[0]
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLIERS[1]
    return value ^ (value >> np.uint64(31))
