"""What a probe suite measured: items, categories and total, as JSON and as measures that gates read.

An item passes when more than half of its samples pass, so that every measure is a count of items and the
Wilson interval holds: samples of one item are not independent trials. Where probes were sampled more than once, the
share of samples that pass stands beside it as "pass_rate", its interval clustered by probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradus.conversation.probes import LOOPS, PASS_RATE, TOTAL
from gradus.core.statistics import clustered_proportion, fault_rate, proportion


@dataclass(frozen=True)
class SampleResult:
    """One answer to one probe, judged."""

    reasons: tuple[str, ...]
    """Why it failed; none: it passed."""
    answer: str
    thinking: str
    calls: tuple[dict[str, Any], ...]
    """Each call as {"name", "arguments", "result"}."""
    finish_reason: str
    num_tokens: int
    ratings: tuple[dict[str, Any], ...] = ()
    """What a judge said, by check: {"rubric", "rating", "judgement"}."""
    loop: str = ""
    """The period and repeats of what the reply says again and again, in its thinking or its answer."""

    @property
    def passed(self) -> bool:
        return not self.reasons

    @staticmethod
    def from_json(found: dict[str, Any]) -> SampleResult:
        """Of the fields, whose tuples JSON has as lists."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
        return SampleResult(**fields)


@dataclass(frozen=True)
class ItemResult:
    """One probe with its samples, at least one."""

    id: str
    category: str
    samples: tuple[SampleResult, ...]

    @property
    def num_passed(self) -> int:
        """Samples that passed."""
        return sum(sample.passed for sample in self.samples)

    @property
    def passed(self) -> bool:
        return 2 * self.num_passed > len(self.samples)

    @property
    def shown(self) -> SampleResult:
        """The sample that stands for the item: the first whose outcome is the item's."""
        return next(sample for sample in self.samples if sample.passed == self.passed)

    def to_json(self) -> dict[str, Any]:
        """The item's entry in the results file; with several samples, how many passed."""
        shown = self.shown
        entry: dict[str, Any] = {
            "id": self.id,
            "category": self.category,
            "passed": self.passed,
            "reasons": list(shown.reasons),
            "answer": shown.answer,
            "thinking": shown.thinking,
            "calls": list(shown.calls),
        }
        if shown.ratings:
            entry["ratings"] = list(shown.ratings)
        if shown.loop:
            entry["loop"] = shown.loop
        if len(self.samples) > 1:
            entry |= {"samples": len(self.samples), "samples_passed": self.num_passed}
        return entry


@dataclass(frozen=True)
class SuiteResult:
    """All items of one suite on one model, in the suite's order."""

    suite: str
    model: str
    items: tuple[ItemResult, ...]
    seconds: float = 0.0
    num_tokens: int = 0
    """Tokens that the model sampled for all of it."""
    decoding: dict[str, Any] = field(default_factory=dict)
    """The sampling settings, for the ledger."""
    variant: str = ""
    """What was taken from every probe, a key of VARIANTS."""

    def by_category(self) -> dict[str, tuple[ItemResult, ...]]:
        """Items of each category, categories in order of first appearance."""
        found: dict[str, list[ItemResult]] = {}
        for item in self.items:
            found.setdefault(item.category, []).append(item)
        return {name: tuple(items) for name, items in found.items()}

    @property
    def is_sampled(self) -> bool:
        """Whether some probe was asked more than once."""
        return any(len(item.samples) > 1 for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """`{"suite", "model", "total", "categories", "items"}`, with what `measures` has besides."""
        groups = self.by_category()
        found: dict[str, Any] = {"suite": self.suite, "model": self.model}
        if self.variant:
            found["variant"] = self.variant
        found |= {
            TOTAL: passed_measure(self.items),
            "categories": {name: passed_measure(items) for name, items in groups.items()},
        }
        if self.is_sampled:
            found[PASS_RATE] = {name: sampled_measure(items) for name, items in ({TOTAL: self.items} | groups).items()}
        looping = self._looping()
        return found | {LOOPS: fault_rate(sum(looping), len(looping)), "items": [i.to_json() for i in self.items]}

    def measures(self) -> dict[str, Any]:
        """What a gate can name: "total" and each category, with 0 or 1 by item id for paired tests; "loops.replies".

        Sampled more than once, also "pass_rate.total" and by category, with the share of samples by item id.
        """
        groups = {TOTAL: self.items} | self.by_category()
        found: dict[str, Any] = {
            name: passed_measure(items) | {"items": {item.id: int(item.passed) for item in items}}
            for name, items in groups.items()
        }
        if self.is_sampled:
            found[PASS_RATE] = {
                name: sampled_measure(items)
                | {"items": {item.id: item.num_passed / len(item.samples) for item in items}}
                for name, items in groups.items()
            }
        looping = self._looping()
        return found | {LOOPS: {"replies": fault_rate(sum(looping), len(looping)) | {"lower_is_better": True}}}

    def _looping(self) -> list[bool]:
        return [bool(sample.loop) for item in self.items for sample in item.samples]


def suite_measures(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `SuiteResult.measures` has, of a record that `to_json` wrote.

    Errors: KeyError, TypeError, ValueError or AttributeError for a record of another form.
    """
    chosen = {TOTAL: record["items"]}
    for name in record["categories"]:
        chosen[name] = [item for item in record["items"] if item["category"] == name]
    passed = {TOTAL: record[TOTAL], **record["categories"]}
    found: dict[str, Any] = {
        name: dict(measure) | {"items": {item["id"]: int(item["passed"]) for item in chosen[name]}}
        for name, measure in passed.items()
    }
    if PASS_RATE in record:
        found[PASS_RATE] = {
            name: dict(measure) | {"items": {item["id"]: _pass_rate(item) for item in chosen[name]}}
            for name, measure in record[PASS_RATE].items()
        }
    if LOOPS in record:
        found[LOOPS] = {"replies": dict(record[LOOPS]) | {"lower_is_better": True}}
    return found


def _pass_rate(item: Mapping[str, Any]) -> float:
    """The share of an item's samples that passed; of one sample nothing but its verdict is written."""
    return float(item["samples_passed"]) / int(item["samples"]) if "samples" in item else float(item["passed"])


def passed_measure(items: Sequence[ItemResult]) -> dict[str, float | int]:
    """The share of items that passed, as `core.statistics.proportion`."""
    return proportion(sum(item.passed for item in items), len(items))


def sampled_measure(items: Sequence[ItemResult]) -> dict[str, float | int]:
    """The share of samples that passed, as `core.statistics.clustered_proportion` with probes as clusters."""
    outcomes = [(float(sample.passed), item.id) for item in items for sample in item.samples]
    return clustered_proportion([passed for passed, _ in outcomes], [id for _, id in outcomes])
