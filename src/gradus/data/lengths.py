"""How long things are: a histogram and quantiles as plain numbers, for artifacts and the report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def length_statistics(lengths: ArrayLike) -> dict[str, Any]:
    """{count, total, mean, quantiles, histogram} of lengths >= 0; JSON-ready.

    histogram: {"edges": [0, 1, 2, 4, ... 2^k], "counts": [...]}, counts[i] within [edges[i], edges[i + 1]).
    """
    values, counts = np.unique(np.asarray(lengths, dtype=np.int64), return_counts=True)
    return counted_length_statistics(values, counts)


def counted_length_statistics(values: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[str, Any]:
    """`length_statistics` of lengths that are given as different values, in rising order, and how often each came."""
    if not len(values):
        return {
            "count": 0,
            "total": 0,
            "mean": 0.0,
            "quantiles": {},
            "histogram": {"edges": [], "counts": []},
        }
    top = int(values[-1]).bit_length()
    edges = [0, *(1 << k for k in range(top + 1))]
    in_bins = np.histogram(values, bins=np.array(edges), weights=counts)[0].astype(np.int64)
    quantiles = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    number, total = int(counts.sum()), int((values * counts).sum())
    last = np.cumsum(counts)
    return {
        "count": number,
        "total": total,
        "mean": total / number,
        "quantiles": {
            name: int(values[np.searchsorted(last, int(q * (number - 1)), side="right")])
            for name, q in quantiles.items()
        },
        "histogram": {"edges": edges, "counts": in_bins.tolist()},
    }


def merged_counts(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """(2, n) of different values and how often each came, from several of the same."""
    whole = np.concatenate([np.zeros((2, 0), dtype=np.int64), *parts], axis=1)
    values, place = np.unique(whole[0], return_inverse=True)
    return np.stack([values, np.bincount(place, weights=whole[1], minlength=len(values)).astype(np.int64)])
