"""Stage `synthesize`: conversations from templates, answered with the real tools, as a pool. Needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from gradus.core.artifact import Artifact
from gradus.core.settings import Settings as Table
from gradus.core.settings import check_settings
from gradus.data.sources import SyntheticSource, source_digest
from gradus.data.synthetic.config import ConversationSettings
from gradus.roadmap.place import Place
from gradus.roadmap.progress import counted
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings

VERSION = 2
MAKES = "pool"
INPUTS: tuple[Input, ...] = ()

SMOKE_CONVERSATIONS = 600
# Rendered, with a vocabulary of some hundred, for plans; and how many of them, its tools, others begin with as well.
_TOKENS_EACH, _SHARED_TOKENS = 163.0, 38.0


class Persona(Table):
    """Who the assistant says it is."""

    name: str = Field(default="Gradus", min_length=1)
    maker: str = Field(default="the gradus team", min_length=1)


class Settings(StageSettings):
    """conversations: how many. weights: relative rows of a category, 0 leaves it out; others keep their own.

    tools_fraction: share of the rows without a need for tools that declare them all the same. sessions_fraction:
    share of the rows that go on with one or two unrelated questions.
    """

    conversations: int = Field(default=50_000, ge=1)
    persona: Persona = Persona()
    weights: dict[str, float] = Field(default_factory=dict)
    tools_fraction: float = Field(default=0.9, ge=0.0, le=1.0)
    sessions_fraction: float = Field(default=0.3, ge=0.0, le=1.0)
    validation_fraction: float = Field(default=0.01, ge=0.0, le=0.5)

    @field_validator("weights")
    @classmethod
    def _weights_fit_the_generator(cls, weights: dict[str, float]) -> dict[str, float]:
        _, problems = check_settings(ConversationSettings, {"weights": weights})
        if problems:
            raise ValueError(problems[0].text.removeprefix('"weights": '))
        return weights

    def smoke(self) -> Self:
        """Some hundred conversations, enough of them held back."""
        return self.model_copy(
            update={
                "conversations": min(self.conversations, SMOKE_CONVERSATIONS),
                "validation_fraction": max(self.validation_fraction, 0.05),
            }
        )

    def generator_settings(self) -> ConversationSettings:
        """The generator's own settings."""
        return ConversationSettings(
            rows=self.conversations,
            name=self.persona.name,
            maker=self.persona.maker,
            weights=self.weights,
            tools_fraction=self.tools_fraction,
            sessions_fraction=self.sessions_fraction,
        )


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """The generators' code and tables: what they write changes with them."""
    return {"generators": source_digest(SyntheticSource(name="conversations", documents=1), roadmap_dir)}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Time and size by the number of conversations."""
    kept = settings.conversations * (1 - settings.validation_fraction)
    facts: dict[str, Any] = {
        "conversations": round(kept),
        "tokens_per_conversation": _TOKENS_EACH,
        "shared_tokens": _SHARED_TOKENS,
    }
    return Estimate(
        seconds=device.overhead_seconds("synthesize") + device.seconds("synthesize", settings.conversations),
        memory_bytes=1.5e8 + settings.conversations * 100,
        facts=facts,
    )


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Generate, validate, drop repeats, divide, write; results tell how many were different."""
    from gradus.data.pool import write_pool
    from gradus.data.synthetic.conversations import conversations

    settings: Settings = stage.settings
    rows = conversations(settings.generator_settings(), stage.seed)
    with place.progress.task("conversations", settings.conversations) as task:
        counts = write_pool(place.work, counted(rows, task), settings.validation_fraction)
    return place.commit(pool_results(counts))


def pool_results(counts: dict[str, Any]) -> dict[str, Any]:
    """The results of a pool from what `write_pool` counted."""
    return {
        "conversations": counts["train"]["rows"],
        "validation_conversations": counts["validation"]["rows"],
        "different_questions": counts["train"]["different_questions"],
        "dropped": sum(counts["dropped"].values()),
        "counts": counts,
    }
