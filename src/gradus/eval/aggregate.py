"""One figure of several tasks: a weighted sum of their accuracies, each counted from what guessing scores.

Two models are compared on it by all items together: an item's value is its share of the sum times the number of items,
so that the mean over all items is the figure. Items that are alike in a task, such as questions on one passage, are so
in the figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A task's part of a sum: weight times (accuracy - baseline)."""

    weight: float
    baseline: float = 0.0


def weighted_sum(parts: Mapping[str, Part], measures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The figure as a measure. measures: of each part {"value", "n", "standard_error", "lower", "upper", "items"}.

    The standard error is that of the questions, the tasks taken as they are; the interval is put together of the parts'
    own, so that it has a width where all are wrong (Zou and Donner 2008, "Construction of confidence limits about
    effect measures", eq. 3). Errors: KeyError where a part is missing.
    """
    n = sum(measures[name]["n"] for name in parts)
    value = sum(part.weight * (measures[name]["value"] - part.baseline) for name, part in parts.items())
    error = math.hypot(*(part.weight * measures[name]["standard_error"] for name, part in parts.items()))
    items = {
        f"{name}/{key}": n * part.weight * (found - part.baseline) / measures[name]["n"]
        for name, part in parts.items()
        for key, found in measures[name]["items"].items()
    }
    below, above = (
        math.hypot(*(p.weight * (measures[name][bound] - measures[name]["value"]) for name, p in parts.items()))
        for bound in ("lower", "upper")
    )
    bounds = {"lower": value - below, "upper": value + above}
    found = {"value": value, "n": n, "standard_error": error, **bounds, "items": items}
    clusters = {
        f"{name}/{key}": f"{name}/{cluster}"
        for name in parts
        for key, cluster in measures[name].get("item_clusters", {}).items()
    }
    return found | ({"item_clusters": clusters} if clusters else {})
