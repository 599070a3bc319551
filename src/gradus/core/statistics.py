"""The few statistics that gates and reports state: intervals, paired tests, standard errors."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

Z95 = 1.96  # standard errors to either side of a mean that hold 95 % of a normal distribution


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
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


def proportion(successes: int, n: int) -> dict[str, float | int]:
    """`{"value", "n", "successes", "lower", "upper", "standard_error"}` of n items of which so many are right.

    lower, upper: 95 % Wilson interval. standard_error: of a proportion, sqrt(p (1 - p) / n).
    """
    value = successes / n if n else 0.0
    lower, upper = wilson(successes, n)
    return {
        "value": value,
        "n": n,
        "successes": successes,
        "lower": lower,
        "upper": upper,
        "standard_error": math.sqrt(value * (1 - value) / n) if n else 0.0,
    }


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar p-value from the discordant counts (only first right, only second right)."""
    n = b + c
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1))
    return min(1.0, float(2 * tail / 2**n))


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values (sample variance, n - 1); 0 where n < 2."""
    n = len(values)
    if n < 2:
        return 0.0
    mean = sum(values) / n
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)


def clustered_standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Standard error of the mean of values that are alike within a cluster, such as questions on one passage.

    Each value alone in its cluster gives the plain one, without its correction for small n; one cluster gives 0, since
    it tells nothing of others. Source: Miller 2024, "Adding Error Bars to Evals", eq. 4.
    """
    n = len(values)
    if len(set(clusters)) < 2:
        return 0.0
    mean = sum(values) / n
    residuals: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + value - mean
    return math.sqrt(sum(residual**2 for residual in residuals.values())) / n


def clustered_proportion(values: Sequence[float], clusters: Sequence[Hashable]) -> dict[str, float | int]:
    """`{"value", "n", "clusters", "lower", "upper", "standard_error"}` of outcomes that are alike within a cluster.

    lower, upper: the Wilson interval at the effective sample size p (1 - p) / se^2 of the clustered standard error;
    where all outcomes are the same, or all of one cluster, at the number of clusters. Source: Korn and Graubard 1998,
    with Wilson's interval.
    """
    n, distinct = len(values), len(set(clusters))
    value = sum(values) / n if n else 0.0
    error = clustered_standard_error(values, clusters)
    if 0 < value < 1 and distinct > 1:
        size = min(float(n), value * (1 - value) / error**2) if error else float(n)
    else:
        size = float(distinct)
    lower, upper = wilson(min(value * size, size), size)
    return {
        "value": value, "n": n, "clusters": distinct, "lower": lower, "upper": upper, "standard_error": error,
    }  # fmt: skip


def fault_rate(successes: int, n: int) -> dict[str, float | int]:
    """`{"value", "n", "successes", "lower", "upper"}` of a fault: its upper bound where none was seen is 3 / n."""
    lower, upper = wilson(successes, n)
    return {
        "value": successes / n if n else 0.0, "n": n, "successes": successes, "lower": lower,
        "upper": upper if successes else rule_of_three(n),
    }  # fmt: skip


def rule_of_three(n: int) -> float:
    """Upper end of the 95 % interval of a proportion of which none was seen in n independent trials, 3 / n.

    Source: Hanley and Lippman-Hand 1983.
    """
    return min(1.0, 3 / n) if n else 1.0


def normal_p(z: float) -> float:
    """Two-sided p-value of a standard normal deviate."""
    return math.erfc(abs(z) / math.sqrt(2))


def bootstrap_ratio(
    tops: Sequence[float], bottoms: Sequence[float], draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """(low, high, standard error) of sum(tops) / sum(bottoms), drawing pairs such as the nats and bytes of documents.

    low, high: the 95 % percentile interval. Source: Efron and Tibshirani 1993, chapters 6 and 13. The same seed gives
    the same answer. ValueError for none.
    """
    if not tops or len(tops) != len(bottoms):
        raise ValueError(f"{len(tops)} and {len(bottoms)} values to draw from")
    import numpy as np

    generator = np.random.default_rng(seed)
    above, below = np.asarray(tops, dtype=np.float64), np.asarray(bottoms, dtype=np.float64)
    found = np.empty(draws)
    for draw in range(draws):
        chosen = generator.integers(0, len(above), len(above))
        found[draw] = above[chosen].sum() / below[chosen].sum()
    found.sort()
    return float(found[int(0.025 * draws)]), float(found[int(0.975 * draws) - 1]), float(found.std(ddof=1))


def sign_flip_exact(differences: Sequence[int]) -> float:
    """Two-sided exact p-value of no difference: the share of all changes of sign whose sum lies as far from 0.

    Of differences of one item each it is the exact McNemar test; of sums over clusters, whose items are alike, the same
    test by clusters. Source: Fisher 1935, "The Design of Experiments", section 21.
    """
    import numpy as np

    sizes = [abs(difference) for difference in differences if difference]
    reach = sum(sizes)
    if not reach:
        return 1.0
    # The distribution of the sum, from -reach to reach, one difference after the other.
    shares = np.zeros(2 * reach + 1)
    shares[reach] = 1.0
    for size in sizes:
        moved = np.zeros_like(shares)
        moved[size:] += shares[: len(shares) - size] / 2
        moved[: len(shares) - size] += shares[size:] / 2
        shares = moved
    seen = abs(sum(differences))
    return min(1.0, float(shares[: reach - seen + 1].sum() + shares[reach + seen :].sum()))


def bootstrap_mean(values: Sequence[float], draws: int = 10_000, seed: int = 0) -> tuple[float, float, float]:
    """(low, high, p) of a mean: its 95 % percentile interval, and twice the share of draws beyond 0.

    Source: Efron and Tibshirani 1993, chapters 13 and 16. The same seed gives the same answer. ValueError for none.
    """
    if not values:
        raise ValueError("no values to draw from")
    import numpy as np

    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(values), (draws, len(values)))
    means = np.sort(np.asarray(values, dtype=np.float64)[drawn].mean(axis=1))
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    # One draw is added to each side, so that no number of draws shows a p of 0.
    p = min(1.0, 2 * (beyond + 1) / (draws + 1))
    return float(means[int(0.025 * draws)]), float(means[int(0.975 * draws) - 1]), p
