"""Stage `pairs`: preference pairs from a model's own answers, judged by the validator and against references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.errors import DataError
from gradus.core.temperature import DrawingTemperature
from gradus.model.config import ModelConfig
from gradus.roadmap.decoding import ANSWER_TOKENS, decoding_estimate
from gradus.roadmap.models import input_model
from gradus.roadmap.place import Place
from gradus.roadmap.session import decoding_device
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage, StageSettings

if TYPE_CHECKING:
    from gradus.conversation.messages import Conversation
    from gradus.posttrain.prompts import PairPrompt

VERSION = 2
MAKES = "pairs"
INPUTS = (
    Input("from", ("sft", "dpo", "grpo", "import")),
    Input("prompts", ("pool",)),
)
PAIRED_FRACTION = 0.2  # of the prompts, those with a right and a wrong answer among their samples, for plans


class Settings(StageSettings):
    """num_prompts: conversations of the pool whose last question is asked. samples: answers to each of them.

    reject_artifacts: an answer with an artifact (HTML tags, stock labels, hedges, loops, ...) fails.
    """

    num_prompts: int = Field(default=500, ge=1)
    samples: int = Field(default=4, ge=2)
    temperature: DrawingTemperature = 0.9
    max_tokens: int = Field(default=256, ge=1)
    reject_artifacts: bool = False

    def smoke(self) -> Self:
        """A few prompts with short answers."""
        return self.model_copy(update={"num_prompts": min(self.num_prompts, 40), "max_tokens": 64})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Time for the tokens that are sampled; some of the prompts give a pair."""
    parent = inputs.one("from").get("model")
    tokens = settings.num_prompts * settings.samples * ANSWER_TOKENS
    facts = {"pairs": round(settings.num_prompts * PAIRED_FRACTION)}
    if parent is None:
        return Estimate(tokens=tokens, facts=facts, notes=("the model is not known yet",))
    estimate = decoding_estimate(ModelConfig(**parent), tokens, device, facts)
    reading = device.seconds("pool/read", float(inputs.one("prompts").get("conversations", 0)))
    return replace(estimate, seconds=(estimate.seconds or 0.0) + reading)


def spread_prompts(pool: Path, at_most: int) -> list[PairPrompt]:
    """Rows of a pool that end with an answer, evenly spread over it, so that every kind of row is asked.

    The pool is read twice, since it may be larger than memory.
    """
    from gradus.data.pool import read_pool
    from gradus.eval.tasks import evenly_spread
    from gradus.posttrain.prompts import prompt_from_conversation

    def answered() -> Iterator[Conversation]:
        return (row for row in read_pool(pool, "train") if row.messages[-1].role == "assistant")

    chosen = set(evenly_spread(sum(1 for _ in answered()), at_most))
    return [prompt_from_conversation(row) for number, row in enumerate(answered()) if number in chosen]


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Ask, sample, judge, pair. Results count what passed, what failed and why prompts gave no pair."""
    from gradus.data.pool import write_pairs
    from gradus.engine.load import load_engine
    from gradus.posttrain.pairs import PairSettings, make_pairs

    settings: Settings = stage.settings
    parent = input_model(stage, inputs)
    engine = load_engine(parent.folder, tokenizer_folder=parent.tokenizer, device=decoding_device(place))
    prompts = spread_prompts(inputs["prompts"].path, settings.num_prompts)
    asked = PairSettings(
        samples=settings.samples,
        temperature=settings.temperature,
        seed=stage.seed,
        max_tokens=settings.max_tokens,
        reject_artifacts=settings.reject_artifacts,
    )
    with place.progress.task("sampling answers", len(prompts) * settings.samples, "answers") as task:
        result = make_pairs(engine, prompts, asked, on_progress=lambda done, _: task.update(done))
    if not result.pairs and not place.smoke:
        reasons = ", ".join(f"{name} {count}" for name, count in result.skipped.items())
        raise DataError(f"no prompt gave a pair ({reasons}); ask more prompts or raise the temperature")
    write_pairs(place.work, result.pairs, validation_fraction=0.0)
    counts = result.counts | {"failures": result.failures, "skipped": result.skipped}
    passed = {
        "value": result.counts["samples_passed"] / max(1, result.counts["samples"]),
        "n": result.counts["samples"],
    }
    return place.commit({"pairs": len(result.pairs), "samples_passed": passed, "counts": counts})
