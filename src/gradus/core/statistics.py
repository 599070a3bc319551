"""The few statistics that gates and reports state: intervals, paired tests, standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a proportion, (low, high) in [0, 1]; (0, 1) where n is 0.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, eq. 4.
    """
    if not 0 <= successes <= max(n, 0):
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + spread) / scale)
    return low, high


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar p-value from the discordant counts (only first right, only second right)."""
    n = b + c
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean of second - first over shared items, and its standard error (0 where n < 2)."""
    if len(first) != len(second) or not first:
        raise ValueError(f"paired items of {len(first)} and {len(second)}")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return sum(differences) / len(differences), standard_error(differences)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values (sample variance, n - 1); 0 where n < 2."""
    n = len(values)
    if n < 2:
        return 0.0
    mean = sum(values) / n
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)


def rule_of_three(n: int) -> float:
    """Upper end of the 95 % interval of a proportion of which none was seen in n independent trials, 3 / n.

    Source: Hanley and Lippman-Hand 1983.
    """
    return min(1.0, 3 / n) if n else 1.0
