"""What a judge made of MT-bench: every answer with its rating, and mean ratings that gates read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gradus.core.statistics import Z95, standard_error
from gradus.eval.generative_result import NO_ROOM
from gradus.eval.judging import HIGHEST, LOWEST
from gradus.eval.mt_bench import TURNS, MtQuestion
from gradus.eval.task_result import task_record


@dataclass(frozen=True, slots=True)
class MtAnswer:
    """An answer to one turn. rating: from 1 to 10, None where the judge gave none; judgement: what the judge said."""

    text: str
    finish_reason: str
    rating: float | None = None
    judgement: str = ""


@dataclass(frozen=True, slots=True)
class MtItem:
    """A question with an answer to each of its turns."""

    question: MtQuestion
    answers: tuple[MtAnswer, ...]

    @property
    def id(self) -> str:
        return self.question.id

    @property
    def score(self) -> float | None:
        """The mean of the ratings there are."""
        found = [answer.rating for answer in self.answers if answer.rating is not None]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True)
class MtBenchResult:
    """All questions on one model; the fields are those of TaskResult."""

    task: str
    model: str
    items: tuple[MtItem, ...]
    digest: str
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    contaminated: frozenset[str] | None = None

    def measures(self) -> dict[str, Any]:
        """Mean ratings: "score", "turn_1", "turn_2" and by category, each with its questions' ratings by id."""
        ratings: dict[str, dict[str, float | None]] = {"score": {item.id: item.score for item in self.items}}
        for turn in range(TURNS):
            ratings[f"turn_{turn + 1}"] = {item.id: item.answers[turn].rating for item in self.items}
        for item in self.items:
            ratings.setdefault(item.question.category, {})[item.id] = item.score
        rated = {name: {k: v for k, v in found.items() if v is not None} for name, found in ratings.items()}
        return {name: self._measure(found) for name, found in rated.items() if found}

    def notes(self) -> list[str]:
        """What a reader of the scores should know."""
        answers = [answer for item in self.items for answer in item.answers]
        told = {
            "were given no rating by the judge and do not count": sum(answer.rating is None for answer in answers),
            "found no room in the model's context and count as 1": sum(a.finish_reason == NO_ROOM for a in answers),
            "were cut off, by max_tokens or the context": sum(answer.finish_reason == "length" for answer in answers),
        }
        return [f"{self.task}: {n:,} of {len(answers):,} answers {text}" for text, n in told.items() if n]

    def to_json(self) -> dict[str, Any]:
        """As that of TaskResult: an item has "category", "turns" and "score"."""
        items = []
        for item in self.items:
            turns: list[dict[str, Any]] = [
                {
                    "prompt": prompt,
                    "answer": answer.text,
                    "finish_reason": answer.finish_reason,
                    "rating": answer.rating,
                    "judgement": answer.judgement,
                }
                for prompt, answer in zip(item.question.turns, item.answers, strict=True)
            ]
            entry: dict[str, Any] = {"id": item.id, "category": item.question.category, "turns": turns}
            if self.contaminated is not None:
                entry["contaminated"] = item.id in self.contaminated
            items.append(entry | {"score": item.score})
        return task_record(self, items)

    def _measure(self, items: dict[str, float]) -> dict[str, Any]:
        values = list(items.values())
        measure = _mean(values)
        if self.contaminated is not None:
            clean = [value for key, value in items.items() if key not in self.contaminated]
            measure["contaminated"] = len(values) - len(clean)
            measure["clean"] = _mean(clean) if clean else {"value": 0.0, "n": 0}
        return measure | {"items": items}


def _mean(values: list[float]) -> dict[str, Any]:
    mean, error = sum(values) / len(values), standard_error(values)
    spread = Z95 * error if len(values) > 1 else HIGHEST  # of a single question nothing is known
    bounds = {"lower": max(LOWEST, mean - spread), "upper": min(HIGHEST, mean + spread)}
    return {"value": mean, "n": len(values), "standard_error": error, **bounds}
