"""Whether one set of results is better than another: paired on shared items wherever there are any.

Right or wrong items are compared by the exact McNemar test, those that share a passage by their clusters. Items with
numbers (nats of a passage, the centred score of a task of CORE) are compared by the mean of their differences: below
BOOTSTRAP_BELOW items by a bootstrap over them, else by its standard error. Neither is surer than the signs of so few
items can make it. Without shared items two standard errors decide, and without those nothing can be said. "Not
resolved" is an answer: beside it stands the least difference that so many items would have shown.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gradus.core.statistics import (
    bootstrap_mean,
    clustered_standard_error,
    mcnemar_exact,
    normal_p,
    sign_flip_exact,
    standard_error,
)

SIGNIFICANCE = 0.05
BOOTSTRAP_BELOW = 200
# Standard errors at which a true difference is found significant four times in five: 1.96 + 0.84.
_DETECTED = 2.80

Verdict = Literal["better", "worse", "not resolved"]


@dataclass(frozen=True)
class Paired:
    """Second against first on shared items. gain: by how much its mean is better; won, lost: items of the second.

    standard_error: of the gain; p: two-sided, of no difference; is_binary: items are right or wrong.
    """

    shared: int
    won: int
    lost: int
    gain: float
    standard_error: float
    p: float
    is_binary: bool


@dataclass(frozen=True)
class Compared:
    """One measure of two results. resolvable: the least true difference that is found four times in five."""

    measure: str
    first: float
    second: float
    verdict: Verdict
    p: float | None
    resolvable: float | None
    text: str


def paired_test(
    first: Mapping[str, float],
    second: Mapping[str, float],
    lower_is_better: bool = False,
    clusters: Mapping[str, Hashable] | None = None,
) -> Paired | None:
    """The items that both have, None where there are none. clusters: what items that are alike share, by id."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    sign = -1.0 if lower_is_better else 1.0
    gains = [sign * (float(second[key]) - float(first[key])) for key in shared]
    won, lost = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    mean, error = sum(gains) / len(shared), standard_error(gains)
    is_binary = all(items[key] in (0, 1) for items in (first, second) for key in shared)
    sums = gains
    if clusters is not None:
        groups = [clusters.get(key, key) for key in shared]
        error = clustered_standard_error(gains, groups)
        sums = _sums(gains, groups)
    if is_binary:
        p = mcnemar_exact(lost, won) if clusters is None else sign_flip_exact([round(one) for one in sums])
    else:
        p = _numbers_p(gains, sums, mean, error, resample=clusters is None and len(shared) < BOOTSTRAP_BELOW)
    return Paired(len(shared), won, lost, mean, error, p, is_binary)


def _sums(gains: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    sums: dict[Hashable, float] = {}
    for group, gain in zip(groups, gains, strict=True):
        sums[group] = sums.get(group, 0.0) + gain
    return list(sums.values())


def _numbers_p(gains: Sequence[float], sums: Sequence[float], mean: float, error: float, *, resample: bool) -> float:
    """p of a mean of numbers. sums: gains of each cluster, or of each item. error: of the mean."""
    differing = sum(one != 0 for one in sums)
    if not differing:
        return 1.0
    # So few of one sign are chance this often, however alike they are: both tests take them for certain.
    least = 2.0 ** (1 - differing)
    if resample:
        return max(least, bootstrap_mean(gains)[2])
    return max(least, normal_p(mean / error) if error else 0.0)


def compare_measures(first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]) -> list[Compared]:
    """Each measure that both have, by its dotted name, in the order of the first."""
    return [_compared(name, first[name], second[name]) for name in first if name in second]


def _compared(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Compared:
    lower = bool(first.get("lower_is_better", False))
    items, others = first.get("items"), second.get("items")
    paired = None
    if isinstance(items, Mapping) and isinstance(others, Mapping):
        paired = paired_test(items, others, lower, first.get("item_clusters"))
    values = float(first["value"]), float(second["value"])
    if paired is not None:
        text = f"{paired.won} won, {paired.lost} lost of {paired.shared:,} shared items"
        if paired.shared < max(len(items or ()), len(others or ())):
            text += f" (of {len(items or ()):,} and {len(others or ()):,})"
        return Compared(name, *values, _verdict(paired.gain, paired.p), paired.p, _resolvable(paired), text)
    errors = first.get("standard_error"), second.get("standard_error")
    if not all(isinstance(error, int | float) and error > 0 for error in errors):
        return Compared(name, *values, "not resolved", None, None, "no shared items and no standard errors")
    error = math.hypot(*(float(e) for e in errors if e is not None))
    gain = values[0] - values[1] if lower else values[1] - values[0]
    p = normal_p(gain / error)
    text = "no shared items: compared by their standard errors"
    return Compared(name, *values, _verdict(gain, p), p, _DETECTED * error, text)


def _verdict(gain: float, p: float) -> Verdict:
    if p >= SIGNIFICANCE or gain == 0:
        return "not resolved"
    return "better" if gain > 0 else "worse"


def _resolvable(paired: Paired) -> float | None:
    """Where no item differs, as many may differ as the rule of three allows: 3 in n. None where nothing is known.

    That is of one item or cluster, and where all differ alike: a standard error of 0 is no certainty.
    """
    if paired.is_binary and not paired.won + paired.lost:
        return _DETECTED * math.sqrt(3) / paired.shared
    # What rounding leaves of 0 is none either.
    return _DETECTED * paired.standard_error if paired.standard_error > 1e-9 * abs(paired.gain) else None


def named_measures(results: Mapping[str, Any], *, numbers: bool = False) -> dict[str, dict[str, Any]]:
    """Every measure that holds a value, by its dotted name. numbers: bare ones too, as {"value": number}."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            if "value" in value:
                found[str(key)] = dict(value)
            else:
                inner = named_measures(value, numbers=numbers)
                found |= {f"{key}.{name}": measure for name, measure in inner.items()}
        elif numbers and isinstance(value, int | float) and not isinstance(value, bool):
            found[str(key)] = {"value": value}
    return found


def unshared(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names that only the first has, and only the second."""
    return [n for n in first if n not in set(second)], [n for n in second if n not in set(first)]
