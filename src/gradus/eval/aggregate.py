"""One figure of several tasks: a weighted sum of their accuracies, each counted from what guessing scores.

Two models are compared on it by all items together: an item's value is its share of the sum times the number of items,
so that the mean over all items is the figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradus.core.statistics import Z95


@dataclass(frozen=True, slots=True)
class Part:
    """A task's part of a sum: weight times (accuracy - baseline)."""

    weight: float
    baseline: float = 0.0


def weighted_sum(parts: Mapping[str, Part], measures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The figure as a measure. measures: of each part {"value", "n", "standard_error", "items"}.

    The standard error is that of the questions, the tasks taken as they are. Errors: KeyError where a part is missing.
    """
    n = sum(measures[name]["n"] for name in parts)
    value = sum(part.weight * (measures[name]["value"] - part.baseline) for name, part in parts.items())
    error = math.hypot(*(part.weight * measures[name]["standard_error"] for name, part in parts.items()))
    items = {
        f"{name}/{key}": n * part.weight * (found - part.baseline) / measures[name]["n"]
        for name, part in parts.items()
        for key, found in measures[name]["items"].items()
    }
    spread = Z95 * error
    bounds = {"lower": value - spread, "upper": value + spread}
    return {"value": value, "n": n, "standard_error": error, **bounds, "items": items}
