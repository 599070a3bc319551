"""What a task measured: a verdict on each item, measures that gates read, and one record with all of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradus.core.gate import without_items
from gradus.core.statistics import Z95, clustered_proportion, proportion, standard_error
from gradus.eval.asked import Asked, Likelihood
from gradus.eval.perplexity import exp_nats, perplexity_measures
from gradus.eval.tasks import Measure

if TYPE_CHECKING:
    from gradus.eval.results import Result


def _first_of_the_highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda place: (values[place], -place))


def _acc(item: Asked, answers: Sequence[Likelihood]) -> bool:
    return _first_of_the_highest([a.logp for a in answers]) == item.gold


def _acc_norm(item: Asked, answers: Sequence[Likelihood]) -> bool:
    # An empty choice is never taken, as numpy's division by 0 has it in lm-eval.
    scores = [a.logp / length if length else -math.inf for a, length in zip(answers, item.lengths, strict=True)]
    return _first_of_the_highest(scores) == item.gold


def _acc_mean(item: Asked, answers: Sequence[Likelihood]) -> bool:
    return _first_of_the_highest([a.logp / a.num_tokens for a in answers]) == item.gold


def _acc_greedy(_: Asked, answers: Sequence[Likelihood]) -> bool:
    return answers[0].is_greedy


# Each by the name that measures go by: of one task only one is called acc.
_RIGHT: dict[Measure, tuple[str, Callable[[Asked, Sequence[Likelihood]], bool]]] = {
    "acc": ("acc", _acc),
    "acc_norm": ("acc_norm", _acc_norm),
    "acc_mean": ("acc", _acc_mean),
    "acc_greedy": ("acc", _acc_greedy),
}


@dataclass(frozen=True)
class TaskResult:
    """All items of one task on one model. digest: of what was asked; settings: how, for the record.

    contaminated: ids of the items that stand in the training corpus; None where none was looked through.
    """

    task: str
    model: str
    wanted: tuple[Measure, ...]
    items: tuple[Asked, ...]
    answers: tuple[tuple[Likelihood, ...], ...]
    digest: str
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    contaminated: frozenset[str] | None = None

    def verdicts(self) -> dict[str, dict[str, int]]:
        """For each accuracy 1 or 0 by item id."""
        pairs = list(zip(self.items, self.answers, strict=True))
        return {
            _RIGHT[name][0]: {item.id: int(_RIGHT[name][1](item, answers)) for item, answers in pairs}
            for name in self.wanted
            if name in _RIGHT
        }

    def measures(self) -> dict[str, Any]:
        """What a gate can name: "acc", "acc_norm" with 0 or 1 by item id for paired tests, "perplexity" with nats."""
        found: dict[str, Any] = {}
        clusters = {item.id: item.cluster or item.id for item in self.items}
        for name, right in self.verdicts().items():
            measure = _share(right, clusters)
            if len(set(clusters.values())) < len(clusters):
                numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters.values()))}
                measure["item_clusters"] = {key: numbers[cluster] for key, cluster in clusters.items()}
            if self.contaminated is not None:
                clean = {key: value for key, value in right.items() if key not in self.contaminated}
                measure["contaminated"] = len(right) - len(clean)
                measure["clean"] = _share(clean, clusters)
            found[name] = measure | {"items": right}
        if "perplexity" in self.wanted:
            found["perplexity"] = self._perplexity()
        if "document_perplexity" in self.wanted:
            found |= perplexity_measures(self.items, self.answers)
        return found

    def _perplexity(self) -> dict[str, Any]:
        """exp of the mean nats of an item, as lm-eval has it; the interval is that of the mean, one item has none."""
        nats = [-answers[0].logp for answers in self.answers]
        items = {item.id: value for item, value in zip(self.items, nats, strict=True)}
        mean, error = sum(nats) / len(nats), standard_error(nats)
        value = exp_nats(mean)
        found: dict[str, Any] = {"value": value, "n": len(nats), "lower_is_better": True, "items": items}
        if len(nats) > 1:
            found |= {"lower": exp_nats(mean - Z95 * error), "upper": exp_nats(mean + Z95 * error)}
            found["standard_error"] = min(value * error, sys.float_info.max)
        return found

    def notes(self) -> list[str]:
        """What a reader of the scores should know: nothing beside them."""
        return []

    def to_json(self) -> dict[str, Any]:
        """`{"task", "model", "n", "measures", "items", ...}`."""
        verdicts = self.verdicts()
        items = []
        for item, answers in zip(self.items, self.answers, strict=True):
            entry: dict[str, Any] = {"id": item.id, "context": item.context, "choices": list(item.choices)}
            if len(item.choices) > 1:
                entry["gold"] = item.gold
            entry["logp"] = [answer.logp for answer in answers]
            entry["tokens"] = [answer.num_tokens for answer in answers]
            if self.contaminated is not None:
                entry["contaminated"] = item.id in self.contaminated
            items.append(entry | {name: right[item.id] for name, right in verdicts.items()})
        return task_record(self, items)


def _share(right: Mapping[str, int], clusters: Mapping[str, str]) -> dict[str, Any]:
    """The share of right items, by id; where some are of one cluster, with an interval that takes them together."""
    values, of = list(right.values()), [clusters[key] for key in right]
    share: dict[str, Any] = proportion(sum(values), len(values))
    return share | clustered_proportion(values, of) if len(set(of)) < len(of) else share


def task_record(result: Result, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record of a task: what was asked and how, its measures, and its items, which the measures then leave out."""
    measures = {name: without_items(measure) for name, measure in result.measures().items()}
    return {
        "task": result.task,
        "model": result.model,
        "n": len(items),
        "questions": result.digest,
        "settings": result.settings,
        "seconds": result.seconds,
        "measures": measures,
        "items": list(items),
    }
