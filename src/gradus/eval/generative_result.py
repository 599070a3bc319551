"""What a task measured whose answers are written: every answer with its verdicts, and measures that gates read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gradus.core.statistics import proportion, standard_error, wilson
from gradus.eval.generative import PASSES, Problem
from gradus.eval.task_result import task_record

PASS_AT = (1, 10, 100)
NO_ROOM = "context"
"""The finish_reason where a question does not fit into the context."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    finish_reason: as the engine has it, or NO_ROOM. faults: by judge, None where right. calls: of tools, as {"name",
    "arguments"}.
    """

    text: str
    thinking: str
    finish_reason: str
    num_tokens: int
    faults: dict[str, str | None]
    calls: Sequence[dict[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        """Verdicts as 0 or 1 by judge, and why not."""
        found: dict[str, Any] = {"answer": self.text, "thinking": self.thinking, "finish_reason": self.finish_reason}
        if self.calls:
            found["calls"] = list(self.calls)
        found |= {"tokens": self.num_tokens, "reasons": [fault for fault in self.faults.values() if fault is not None]}
        return found | {name: int(fault is None) for name, fault in self.faults.items()}


@dataclass(frozen=True, slots=True)
class Answered:
    """An item with its answers, at least one."""

    id: str
    problem: Problem
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class GenerativeResult:
    """All items of one task on one model; the fields are those of TaskResult."""

    task: str
    model: str
    items: tuple[Answered, ...]
    digest: str
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    contaminated: frozenset[str] | None = None

    def values(self) -> dict[str, dict[str, float]]:
        """Of each measure what an item scores, 0 to 1, by its id: the share of its answers that are right, or pass@k.

        pass@k: for 1, 10, 100 and the number of answers, as far as there are so many.
        """
        found: dict[str, dict[str, float]] = {}
        for item in self.items:
            n = len(item.answers)
            for name in item.answers[0].faults:
                right = sum(answer.faults[name] is None for answer in item.answers)
                if name != PASSES:
                    found.setdefault(name, {})[item.id] = right / n
                    continue
                for k in sorted({k for k in PASS_AT if k <= n} | {n}):
                    found.setdefault(f"pass@{k}", {})[item.id] = pass_at(k, n, right)
        return found

    def measures(self) -> dict[str, Any]:
        """What a gate can name, with the values by item id for paired tests."""
        found: dict[str, Any] = {}
        for name, values in self.values().items():
            measure = mean_share(list(values.values()))
            if self.contaminated is not None:
                clean = [value for key, value in values.items() if key not in self.contaminated]
                measure |= {"contaminated": len(values) - len(clean), "clean": mean_share(clean)}
            found[name] = measure | {"items": values}
        return found

    def notes(self) -> list[str]:
        """What a reader of the scores should know: questions that found no room, answers that were cut off."""
        reasons = [answer.finish_reason for item in self.items for answer in item.answers]
        told = {NO_ROOM: "questions do not fit into the model's context and count as wrong",
                "length": "answers were cut off, by max_tokens or the context"}  # fmt: skip
        counts = {reason: reasons.count(reason) for reason in told}
        return [f"{self.task}: {n:,} of {len(reasons):,} {told[reason]}" for reason, n in counts.items() if n]

    def to_json(self) -> dict[str, Any]:
        """As that of TaskResult: an item has "prompt", "reference" and "answers" in place of choices."""
        values = self.values()
        items = []
        for item in self.items:
            entry: dict[str, Any] = {"id": item.id, "prompt": item.problem.prompt, "reference": item.problem.reference}
            entry["answers"] = [answer.to_json() for answer in item.answers]
            if self.contaminated is not None:
                entry["contaminated"] = item.id in self.contaminated
            items.append(entry | {name: by_id[item.id] for name, by_id in values.items()})
        return task_record(self, items)


def pass_at(k: int, n: int, right: int) -> float:
    """Chance that one of k answers passes, estimated without bias from n >= k of which so many pass.

    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", eq. 1.
    """
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def mean_share(values: Sequence[float]) -> dict[str, Any]:
    """As `proportion`, of items that score anything from 0 to 1.

    No such scores spread more than those of 0 or 1 with their mean, so the Wilson interval is wide enough.
    """
    if all(value in (0, 1) for value in values):
        return dict(proportion(int(sum(values)), len(values)))
    lower, upper = wilson(sum(values), len(values))
    return {
        "value": sum(values) / len(values),
        "n": len(values),
        "lower": lower,
        "upper": upper,
        "standard_error": standard_error(values),
    }
