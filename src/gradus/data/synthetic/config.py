"""Settings of the offline conversation source: who the assistant is, and how much of each category."""

from __future__ import annotations

from pydantic import Field, field_validator

from gradus.core.errors import did_you_mean
from gradus.core.settings import Settings

DEFAULT_WEIGHTS: dict[str, float] = {
    "arithmetic": 1.0,
    "percent": 1.0,
    "word_problem": 3.0,
    "weekday": 1.0,
    "date": 1.0,
    "age": 1.1,
    "spelling": 1.5,
    "letter_count": 1.4,
    "identity": 0.8,
    "direct": 1.8,
    "follow_up": 2.0,
}
CATEGORIES: tuple[str, ...] = tuple(DEFAULT_WEIGHTS)


class ConversationSettings(Settings):
    """rows: how many conversations. weights: relative number of rows of a category; 0 leaves it out, categories
    that are not named keep their default. name, maker: the assistant's. tools_fraction: share of the rows that need no
    tool and declare the calculator all the same. sessions_fraction: share of the rows that go on with one or two
    unrelated questions, as people do in one chat."""

    rows: int = Field(default=50_000, ge=1)
    name: str = Field(default="Gradus", min_length=1)
    maker: str = Field(default="the gradus team", min_length=1)
    weights: dict[str, float] = Field(default_factory=dict)
    tools_fraction: float = Field(default=0.9, ge=0.0, le=1.0)
    sessions_fraction: float = Field(default=0.3, ge=0.0, le=1.0)

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: dict[str, float]) -> dict[str, float]:
        for category, weight in weights.items():
            if category not in DEFAULT_WEIGHTS:
                raise ValueError(f'unknown category "{category}"{did_you_mean(category, DEFAULT_WEIGHTS)}')
            if weight < 0:
                raise ValueError(f"{category} must not be negative, found {weight}")
        if not any({**DEFAULT_WEIGHTS, **weights}.values()):
            raise ValueError("at least one category must have a weight above 0")
        return weights

    def category_weights(self) -> dict[str, float]:
        """Every category with its weight, in the order of CATEGORIES."""
        return {**DEFAULT_WEIGHTS, **self.weights}
