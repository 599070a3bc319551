"""Stage `dpo`: a chat model learns to prefer the better of two answers, by the same training step."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.errors import ArtifactError
from gradus.core.files import write_atomic
from gradus.core.fingerprint import digest, file_digest
from gradus.core.home import REFERENCE_FOLDER
from gradus.model.config import LoraSettings, ModelConfig
from gradus.model.cost import mean_context
from gradus.posttrain.config import DPOSettings
from gradus.roadmap.estimate import training_estimate
from gradus.roadmap.lineage import refuse_warm
from gradus.roadmap.metering import Meter
from gradus.roadmap.metrics import METRICS, Evaluation, StepLines
from gradus.roadmap.models import ModelReference, input_model
from gradus.roadmap.place import Place
from gradus.roadmap.session import Session, training_session
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage
from gradus.roadmap.training import (
    TrainingSettings,
    follow,
    save_final_model,
    training_checkpoints,
    training_reports,
    training_results,
)
from gradus.train.config import OptimizerSettings, ScheduleSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradus.conversation.formats.wire import Format
    from gradus.data.shards import TokenStore
    from gradus.model.transformer import Transformer
    from gradus.train.loop import StepReport
    from gradus.train.losses import Loss

VERSION = 1
MAKES = "dpo"
INPUTS = (
    Input("from", ("sft", "dpo", "grpo", "import")),
    Input("pairs", ("pairs",)),
)
PARALLEL = True
PAIR_TOKENS = 280  # both sides with their prompt, for plans
_ANSWERS = 0.4  # of them
REFERENCE = "reference_logp.npy"
VALIDATED = ("margin", "accuracy", "chosen_reward", "rejected_reward")  # measured on held-back pairs


# A chosen answer whose tokens have lost so many nats on average is being forgotten, not preferred.
COLLAPSE_NATS = 0.5


class Settings(TrainingSettings, DPOSettings):
    """loss, beta, sft_weight, label_smoothing, gamma: see posttrain.config.

    pairs_per_step and micro_pairs take the place of tokens and rows. epochs: passes over the pairs.
    lora: train adapters instead of the weights, as in `sft`.
    """

    sft_weight: float = Field(default=0.1, ge=0.0)
    epochs: float = Field(default=1.0, gt=0)
    pairs_per_step: int = Field(default=32, ge=1)
    micro_pairs: int = Field(default=32, ge=1)
    lora: LoraSettings | None = None
    # Rates two orders below those of pretraining: the policy must stay near its reference.
    optimizer: OptimizerSettings = OptimizerSettings(matrix_lr=2e-4, embed_lr=2e-4, head_lr=4e-5, vector_lr=5e-5)
    schedule: ScheduleSettings = ScheduleSettings(kind="linear", warmup_fraction=0.1)

    def smoke(self) -> Self:
        """Few pairs a step."""
        return super().smoke().model_copy(update={"pairs_per_step": 4, "micro_pairs": 4})

    def smoke_of(self, processes: int) -> Self:
        """With a pair for each process, where the real one has that."""
        pairs = max(4, min(self.pairs_per_step, processes))
        return super().smoke_of(processes).model_copy(update={"pairs_per_step": pairs})


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """The steps, and one forward pass of the reference over all pairs."""
    refuse_warm(settings.optimizer, inputs.one("from"), settings.lora)
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
        head_fraction=_ANSWERS,
        shared_fraction=(1 - _ANSWERS) / 2,  # the prompt of one side
        lora=settings.lora,
        evaluated_tokens=pairs * PAIR_TOKENS if settings.has_reference else 0.0,
    )


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Render the pairs, compute the reference once, train."""
    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.data.loader import PairLoader, pair_lengths
    from gradus.data.pack import unpacked_plan
    from gradus.model.weights import load_model
    from gradus.posttrain.dpo import dpo_loss
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.train.precision import compute_dtype

    settings: Settings = stage.settings
    parent = input_model(stage, inputs)
    tokenizer = load_tokenizer(parent.tokenizer)
    form = HermesFormat(tokenizer)
    with training_session(place) as session:
        model = load_model(parent.folder, session.device, prepare=session.prepare, lora=settings.lora, seed=stage.seed)
        model.compute_dtype = compute_dtype(place.machine.precision, session.device)
        store, counts = _rendered("train", inputs["pairs"], model, form, place)
        reference = _reference(settings, parent, model, store, place, session)
        if session.world.is_main and reference is not None:
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
        loss = dpo_loss(settings)
        kept = training_checkpoints(settings, place, session)
        evaluate = _evaluation(settings, loss, parent, inputs["pairs"], model, form, place, session)
        reports = training_reports(model, loader.batches, loss, steps, settings, place, session, kept, parent)
        meter = Meter(place, model, mean_context(store.lengths.tolist()), store.trained_fraction)
        last = follow(_watched(reports, place), place, session, evaluate, kept, meter)
        results = training_results(place, last, model.config, meter) | dict(last.metrics)
        save_final_model(place, session, model, tokenizer, form.chat_template)
        return place.commit(results | {"counts": counts})


def _rendered(
    split: Any, pairs: Artifact, model: Transformer, form: Format, place: Place
) -> tuple[TokenStore, dict[str, Any]]:
    """One side of the pairs as token shards in scratch."""
    from gradus.data.pool import read_pairs
    from gradus.data.rows import render_pairs

    rows = place.scratch / f"rows-{place.rank}"
    return render_pairs(read_pairs(pairs.path, split), form, rows, split=split, row_length=model.config.context)


def _reference(
    settings: Settings, parent: ModelReference, model: Transformer, store: TokenStore, place: Place, session: Session
) -> NDArray[np.float32] | None:
    """The parent's log-probability of every answer, None for a loss without it.

    Kept in the home under the model and the tokens it belongs to: a resumed stage and a stage with another loss or
    another beta read it there.
    """
    from gradus.model.weights import CONFIG_FILE
    from gradus.posttrain.dpo import reference_logps

    if not settings.has_reference:
        return None
    files = [f for kind in ("model", "adapter_model") for f in sorted(parent.folder.glob(f"{kind}*.safetensors"))]
    # The same weights under another config (rotary base, window) are another model.
    model_files = {file.name: file_digest(file) for file in (parent.folder / CONFIG_FILE, *files)}
    belongs_to = {"model": model_files, "tokens": store.fingerprint, "computed_in": str(model.compute_dtype)}
    file = place.home / REFERENCE_FOLDER / f"{digest(belongs_to)[:32]}.npy"
    if session.world.all_agree(file.is_file()):
        try:
            return np.load(file, allow_pickle=False)  # type: ignore[no-any-return]
        except (ValueError, EOFError):
            raise ArtifactError(f"{file}: damaged reference log-probabilities; delete the file") from None
    with place.progress.task("reference log-probabilities", store.num_documents) as task:
        found = reference_logps(model, store, world=session.world, on_progress=lambda done, _: task.update(done))
    if session.world.is_main:
        file.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.save(content, found, allow_pickle=False)
        write_atomic(file, content.getvalue())
    return found


def _evaluation(
    settings: Settings,
    loss: Loss,
    parent: ModelReference,
    pairs: Artifact,
    model: Transformer,
    form: Format,
    place: Place,
    session: Session,
) -> Callable[[], Evaluation]:
    """What happens at an evaluation: loss, margin and accuracy on held-back pairs, where there are any."""
    import torch

    from gradus.data.loader import PairLoader, pair_lengths
    from gradus.data.pack import unpacked_plan
    from gradus.model.sharing import share_prefixes

    if not pairs.results.get("validation_pairs"):
        return lambda: Evaluation({})
    store, _ = _rendered("validation", pairs, model, form, place)
    if not store.num_documents:
        place.progress.line("  warning: every held-back pair is too long for the model; no validation measures")
        return lambda: Evaluation({})
    reference = _reference(settings, parent, model, store, place, session)
    plan = unpacked_plan(pair_lengths(store))
    # All processes see all pairs, so that a sharded model is gathered by all of them together.
    loader = PairLoader(
        store,
        plan,
        seed=0,
        pairs_per_step=plan.num_rows,
        micro_pairs=settings.micro_pairs,
        reference_logp=reference,
    )

    def evaluate() -> Evaluation:
        total, sums = 0.0, dict.fromkeys(VALIDATED, 0.0)
        with torch.no_grad():
            for batch in loader.batches(0):
                shared = share_prefixes(batch, session.device).to(session.device)
                value, _, metrics = loss(model, shared)
                total += float(value)
                sums = {name: found + float(metrics[name]) for name, found in sums.items()}
        measures = {"validation_loss": total} | {f"validation_{name}": found for name, found in sums.items()}
        return Evaluation({name: found / plan.num_rows for name, found in measures.items()})

    return evaluate


def _watched(reports: Iterator[StepReport], place: Place) -> Iterator[StepReport]:
    """The same reports; a warning, once, where the chosen answers are being forgotten."""
    # Without a reference the first steps stand for it: those of the stage, of which a resumed walk finds the lines.
    earlier = (line for line in StepLines(place.work / METRICS).lines() if "chosen_logp" in line)
    first = next(map(_chosen_by_token, earlier), None)
    warned = False
    for report in reports:
        if report.logged and report.metrics and not warned:
            by_token = _chosen_by_token(report.metrics)
            first = by_token if first is None else first
            change = report.metrics.get("chosen_change", by_token - first)
            if change < -COLLAPSE_NATS:
                warned = True
                place.progress.line(
                    f"  warning: step {report.step}: the chosen answers have lost {-change:.2f} nats a token: "
                    "they are being forgotten; lower the rates, raise beta, or raise sft_weight"
                )
        yield report


def _chosen_by_token(metrics: Mapping[str, float]) -> float:
    return metrics["chosen_logp"] / metrics["chosen_tokens"]
