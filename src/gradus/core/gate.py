"""Gates: a condition over measured results that decides whether a walk goes on.

A gate states a value or a confidence bound, and beside it may forbid regression against another stage by a
paired test on shared items (exact McNemar).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import model_validator

from gradus.core.comparison import SIGNIFICANCE, named_measures, paired_test
from gradus.core.errors import ConfigError, did_you_mean
from gradus.core.settings import Settings
from gradus.core.statistics import rule_of_three, wilson

_BY_ITEM = ("items", "item_clusters")


class Gate(Settings):
    """One condition. measure: dotted name in the results, for example "probes.fresh.total".

    bound: compare the value itself, or the lower (upper) end of its 95 % interval.
    """

    measure: str
    bound: Literal["value", "lower", "upper"] = "value"
    at_least: float | None = None
    at_most: float | None = None
    not_worse_than: str | None = None

    @model_validator(mode="after")
    def _states_a_condition(self) -> Gate:
        if self.at_least is None and self.at_most is None and self.not_worse_than is None:
            raise ValueError(f'a gate on "{self.measure}" needs a condition: at_least, at_most or not_worse_than')
        return self


@dataclass(frozen=True)
class Verdict:
    """Whether a gate passed, and the sentence that says why."""

    passed: bool
    text: str


def judge(gate: Gate, measures: Mapping[str, Any], parents: Mapping[str, Mapping[str, Any]] | None = None) -> Verdict:
    """Judge measured results; `parents` maps stage names to their results for `not_worse_than`.

    A measure is a number, or {"value", "n", "successes"?, "lower"?, "upper"?, "items"?, "item_clusters"?,
    "lower_is_better"?}; items: by id 0 or 1, or a number whose mean is compared; item_clusters: what they share.
    Errors: ConfigError where a measure or stage is not there, or lacks what the gate asks for.
    """
    measure = find_measure(measures, gate.measure)
    sentences: list[str] = []
    passed = True
    for ok, text in (_against_bound(gate, measure), _against_parent(gate, measure, parents or {})):
        if text:
            passed = passed and ok
            sentences.append(text)
    return Verdict(passed, "; ".join(sentences))


def find_measure(measures: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The measure at a dotted name; a bare number becomes {"value": number}. Errors: ConfigError."""
    at = _at(measures, name)
    if at is None:
        options = list(named_measures(measures, numbers=True))
        hint = did_you_mean(name, options)
        listing = f"; measured are {', '.join(options[:12])}" if options and not hint else ""
        raise ConfigError(f'no measure "{name}" in the results{hint}{listing}')
    if isinstance(at, bool) or not isinstance(at, int | float | Mapping):
        raise ConfigError(f'"{name}" is no number in the results')
    if isinstance(at, Mapping):
        if "value" not in at:
            inner = [f"{name}.{n}" for n in named_measures(at, numbers=True)]
            raise ConfigError(f'"{name}" holds several measures; name one of {", ".join(inner[:12])}')
        return dict(at)
    return {"value": at}


def _at(measures: Any, name: str) -> Any:
    """What stands at a dotted name, whose parts may hold dots themselves (file names); None for nothing."""
    if not isinstance(measures, Mapping):
        return None
    if name in measures:
        return measures[name]
    for key, value in measures.items():
        if name.startswith(f"{key}.") and (found := _at(value, name[len(key) + 1 :])) is not None:
            return found
    return None


def without_items(measure: Mapping[str, Any]) -> dict[str, Any]:
    """A measure without what it has for each single item, which paired tests need and records do not."""
    return {key: value for key, value in measure.items() if key not in _BY_ITEM}


def reachable_bound(n: int) -> float:
    """The highest lower bound that n items can show: all of them right."""
    return wilson(n, n)[0]


def unreachable_bound(gate: Gate, n: int) -> str | None:
    """Why no result with n right or wrong items can pass a gate, None where one can."""
    # A fault of which none was seen has the rule of three for its bound, which is the lower one from four items on.
    lowest_upper = min(wilson(0, n)[1], rule_of_three(n))
    if gate.bound == "lower" and gate.at_least is not None and reachable_bound(n) < gate.at_least:
        most, asked = reachable_bound(n), f"at_least = {gate.at_least:g}"
    elif gate.bound == "upper" and gate.at_most is not None and lowest_upper > gate.at_most:
        most, asked = lowest_upper, f"at_most = {gate.at_most:g}"
    else:
        return None
    return (
        f'gate on "{gate.measure}": the {gate.bound} bound of {n:,} items comes to {most:.4g} at best, and {asked} is '
        'asked: no result can pass; ask more items, set another bar, or write bound = "value"'
    )


def _against_bound(gate: Gate, measure: Mapping[str, Any]) -> tuple[bool, str]:
    if gate.at_least is None and gate.at_most is None:
        return True, ""
    value = _bound_value(gate, measure)
    count = f" (n = {measure['n']:,})" if "n" in measure else ""
    what = {"value": "", "lower": "lower bound of ", "upper": "upper bound of "}[gate.bound]
    parts, passed = [], True
    if gate.at_least is not None:
        ok = value >= gate.at_least
        passed = passed and ok
        note = ""
        # Ratings and bits are no shares.
        counted = gate.bound == "lower" and "n" in measure and gate.at_least <= 1
        if not ok and counted and reachable_bound(measure["n"]) < gate.at_least:
            note = f" (no result can reach it with {measure['n']} items: use more items or a lower bound)"
        parts.append(f"is {'at least' if ok else 'below'} {gate.at_least:g}{note}")
    if gate.at_most is not None:
        ok = value <= gate.at_most
        passed = passed and ok
        parts.append(f"is {'at most' if ok else 'above'} {gate.at_most:g}")
    return passed, f"{what}{gate.measure} = {value:.4g}{count} {' and '.join(parts)}"


def _bound_value(gate: Gate, measure: Mapping[str, Any]) -> float:
    if gate.bound == "value":
        return float(measure["value"])
    if gate.bound in measure:
        return float(measure[gate.bound])
    if "n" not in measure:
        raise ConfigError(
            f'the gate asks for the {gate.bound} bound of "{gate.measure}", which was measured without a '
            'count; use bound = "value"'
        )
    n = int(measure["n"])
    if "successes" not in measure and (measure.get("lower_is_better") or not 0 <= measure["value"] <= 1):
        raise ConfigError(
            f'the gate asks for the {gate.bound} bound of "{gate.measure}", which has no interval: of a single '
            'document or item none is known; measure more of them, or use bound = "value"'
        )
    successes = float(measure.get("successes", round(float(measure["value"]) * n)))
    low, high = wilson(successes, n)
    return low if gate.bound == "lower" else high


def _against_parent(
    gate: Gate, measure: Mapping[str, Any], parents: Mapping[str, Mapping[str, Any]]
) -> tuple[bool, str]:
    if gate.not_worse_than is None:
        return True, ""
    other_name = gate.not_worse_than
    if other_name not in parents:
        raise ConfigError(f'no results of stage "{other_name}" to compare with{did_you_mean(other_name, parents)}')
    other = find_measure(parents[other_name], gate.measure)
    items, other_items = measure.get("items"), other.get("items")
    here, there = float(measure["value"]), float(other["value"])
    if isinstance(items, Mapping) and isinstance(other_items, Mapping):
        lower = bool(measure.get("lower_is_better", False))
        paired = paired_test(other_items, items, lower, measure.get("item_clusters"))
        shared, won, lost, p = (paired.shared, paired.won, paired.lost, paired.p) if paired else (0, 0, 0, 1.0)
        worse = paired is not None and paired.gain < 0 and p < SIGNIFICANCE
        return not worse, (
            f"{gate.measure} {'is worse than' if worse else 'is not worse than'} {other_name}: "
            f"{won} won, {lost} lost of {shared} shared items, p = {p:.3g}"
        )
    # Without items to pair, the plain values decide; which way is better follows the gate's own condition.
    lower_is_better = measure.get("lower_is_better", gate.at_most is not None and gate.at_least is None)
    worse = here > there if lower_is_better else here < there
    return not worse, (
        f"{gate.measure} = {here:.4g} {'is worse than' if worse else 'is not worse than'} {there:.4g} "
        f"of {other_name} (unpaired)"
    )
