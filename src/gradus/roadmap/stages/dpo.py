"""Stage `dpo`: a chat model learns to prefer the better of two answers, by the same training step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.home import MODEL_FOLDER
from gradus.model.config import ModelConfig
from gradus.model.cost import mean_context
from gradus.roadmap.estimate import training_estimate
from gradus.roadmap.metering import Meter
from gradus.roadmap.place import Place
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage
from gradus.roadmap.training import (
    Evaluation,
    TrainingSettings,
    follow,
    save_final_model,
    training_checkpoints,
    training_reports,
    training_results,
    training_session,
)
from gradus.train.config import OptimizerSettings, ScheduleSettings

VERSION = 1
MAKES = "dpo"
INPUTS = (
    Input("from", ("sft", "dpo", "grpo", "import")),
    Input("pairs", ("pairs",)),
)
PARALLEL = True
PAIR_TOKENS = 280  # both sides with their prompt, for plans
REFERENCE = "reference_logp.npy"


class Settings(TrainingSettings):
    """beta, sft_weight: see posttrain.dpo. pairs_per_step and micro_pairs take the place of tokens and rows."""

    beta: float = Field(default=0.1, gt=0.0)
    sft_weight: float = Field(default=0.1, ge=0.0)
    epochs: float = Field(default=1.0, gt=0)
    pairs_per_step: int = Field(default=32, ge=1)
    micro_pairs: int = Field(default=32, ge=1)
    # Rates two orders below those of pretraining: the policy must stay near its reference.
    optimizer: OptimizerSettings = OptimizerSettings(matrix_lr=2e-4, embed_lr=2e-4, head_lr=4e-5, vector_lr=5e-5)
    schedule: ScheduleSettings = ScheduleSettings(kind="linear", warmup_fraction=0.1)

    def smoke(self) -> Self:
        """Few pairs a step."""
        return super().smoke().model_copy(update={"pairs_per_step": 4, "micro_pairs": 4})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """The steps, and one forward pass of the reference over all pairs."""
    parent, pairs = inputs.one("from").get("model"), float(inputs.one("pairs").get("pairs", 0))
    if parent is None:
        return Estimate(notes=("the model is not known yet",))
    per_step = min(settings.pairs_per_step, max(1.0, pairs))
    steps = max(1, math.ceil(pairs * settings.epochs / per_step))
    micro = min(settings.micro_pairs, math.ceil(per_step / device.processes))
    sized = settings.model_copy(update={"batch_tokens": round(per_step * PAIR_TOKENS), "micro_rows": micro})
    return training_estimate(
        ModelConfig(**parent),
        steps,
        sized,
        PAIR_TOKENS,
        device,
        kind=stage.kind,
        mean_context=PAIR_TOKENS / 4,
        head_fraction=0.4,
        evaluated_tokens=pairs * PAIR_TOKENS,
    )


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Render the pairs, compute the reference once, train."""
    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.data.loader import PairLoader, pair_lengths
    from gradus.data.pack import unpacked_plan
    from gradus.data.pool import read_pairs
    from gradus.data.rows import render_pairs
    from gradus.model.weights import load_model
    from gradus.posttrain.dpo import DPOSettings, dpo_loss, reference_logps
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.train.precision import compute_dtype

    settings: Settings = stage.settings
    parent = inputs["from"]
    tokenizer = load_tokenizer(parent.path / MODEL_FOLDER)
    form = HermesFormat(tokenizer)
    with training_session(place) as session:
        model = load_model(parent.path / MODEL_FOLDER, session.device, prepare=session.prepare)
        model.compute_dtype = compute_dtype(place.machine.precision, session.device)
        rows = place.scratch / f"rows-{place.rank}"
        pairs = read_pairs(inputs["pairs"].path, "train")
        store, counts = render_pairs(pairs, form, rows, split="train", row_length=model.config.context)
        with place.progress.task("reference log-probabilities", store.num_documents) as task:
            reference = reference_logps(model, store, on_progress=lambda done, _: task.update(done))
        if session.world.is_main:
            np.save(place.work / REFERENCE, reference, allow_pickle=False)
        loader = PairLoader(
            store,
            unpacked_plan(pair_lengths(store)),
            seed=stage.seed,
            pairs_per_step=min(settings.pairs_per_step, store.num_documents // 2),
            micro_pairs=settings.micro_pairs,
            reference_logp=reference,
            rank=session.world.rank,
            world=session.world.size,
        )
        steps = loader.order.steps_for_epochs(settings.epochs)
        loss = dpo_loss(DPOSettings(beta=settings.beta, sft_weight=settings.sft_weight))
        kept = training_checkpoints(settings, place, session)
        reports = training_reports(model, loader.batches, loss, steps, settings, place, session, kept)
        meter = Meter(place, model, mean_context(store.lengths.tolist()), store.trained_fraction)
        last = follow(reports, place, session, lambda: Evaluation({}), meter=meter)
        results = training_results(place, last, model.config, meter) | dict(last.metrics)
        save_final_model(place, session, model, tokenizer, form.chat_template)
        return place.commit(results | {"counts": counts})
