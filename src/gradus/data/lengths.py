"""How long things are: a histogram and quantiles as plain numbers, for artifacts and the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def length_statistics(lengths: ArrayLike) -> dict[str, Any]:
    """{count, total, mean, quantiles, histogram} of lengths >= 0; JSON-ready.

    histogram: {"edges": [0, 1, 2, 4, ... 2^k], "counts": [...]}, counts[i] within [edges[i], edges[i + 1]).
    """
    values = np.asarray(lengths, dtype=np.int64)
    if not len(values):
        return {
            "count": 0,
            "total": 0,
            "mean": 0.0,
            "quantiles": {},
            "histogram": {"edges": [], "counts": []},
        }
    top = int(values.max()).bit_length()
    edges = [0, *(1 << k for k in range(top + 1))]
    counts = np.histogram(values, bins=np.array(edges))[0]
    quantiles = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        "count": len(values),
        "total": int(values.sum()),
        "mean": float(values.mean()),
        "quantiles": {k: int(np.quantile(values, q, method="lower")) for k, q in quantiles.items()},
        "histogram": {"edges": edges, "counts": counts.tolist()},
    }
