"""Stage `pretrain`: a model learns to continue documents, from fresh weights or from an earlier stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError
from gradus.core.gate import Gate
from gradus.core.home import MODEL_FOLDER
from gradus.core.quantity import Quantity
from gradus.model.config import ModelConfig, model_config, toy_model
from gradus.roadmap.estimate import steps_of, training_estimate
from gradus.roadmap.lineage import context_problem, fine_tuned_problem, refuse_warm, shape_problem
from gradus.roadmap.metering import Meter
from gradus.roadmap.metrics import Evaluation
from gradus.roadmap.models import input_model
from gradus.roadmap.place import Place
from gradus.roadmap.scaling import law_note, law_settings, stage_law
from gradus.roadmap.session import Session, training_session
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage
from gradus.roadmap.training import (
    MODEL_KINDS,
    SMOKE_ROW,
    SMOKE_STEPS,
    TrainingSettings,
    follow,
    save_final_model,
    training_checkpoints,
    training_reports,
    training_results,
)
from gradus.roadmap.watched_tasks import WatchSettings, check_watch, watch_of, watched_tokens

if TYPE_CHECKING:
    import torch

    from gradus.data.bookmark import Bookmark
    from gradus.data.shards import TokenStore
    from gradus.model.transformer import Transformer
    from gradus.tokenizer.tokenizer import Tokenizer

VERSION = 1
MAKES = "pretrain"
INPUTS = (
    Input("tokens", ("tokens",)),
    # A fine-tuned parent is refused unless it is allowed; see lineage.py.
    # Merged experts are for here alone: their routers have learned nothing yet.
    Input("from", (*MODEL_KINDS, "experts"), required=False),
)
PARALLEL = True
SAMPLE_TOKENS = 64
BOOKMARK = "bookmark.json"
GAIN = "gain_over_best_expert"  # bits per byte


class TextSettings(TrainingSettings):
    """What every stage that continues text lets its author choose.

    horizon: "2M tokens", "500 steps", "1 epoch", "20 tokens/param", "1e15 flops". packing: what becomes of a document
    that does not fit into a row, cut in fragments that are all trained on, or cropped and its end thrown away.
    weights: shares of the tokens for sources, by the tokens they have if none are given. generation: of the token
    shards, the newest if None. scaling: "auto" sets batch_tokens, the optimizer's rates and its weight decay by the
    horizon law; what is written for the optimizer is then meant for depth 12 at 524,288 tokens a step.
    evaluate_tokens: validation tokens of an evaluation at most. samples: beginnings of text that the model continues
    at each evaluation.
    """

    context: int = Field(default=512, ge=8)
    horizon: Quantity = Quantity(20.0, "tokens/param")
    evaluate_tokens: int = Field(default=200_000, ge=1)
    samples: tuple[str, ...] = ("The ", "Once ")
    packing: Literal["fragments", "crop"] = "fragments"
    weights: dict[str, float] | None = None
    generation: int | None = Field(default=None, ge=1)
    scaling: Literal["auto"] | None = None

    @model_validator(mode="after")
    def _one_batch_size(self) -> Self:
        if self.scaling == "auto" and "batch_tokens" in self.model_fields_set:
            raise ValueError('batch_tokens is written, and scaling = "auto" sets it; leave one of them out')
        return self

    def smoke(self) -> Self:
        """A handful of steps on short rows."""
        small = super().smoke()
        return small.model_copy(
            update={
                "scaling": None,  # at a handful of steps there is no horizon
                "context": min(self.context, SMOKE_ROW),
                "horizon": Quantity(float(SMOKE_STEPS), "steps"),
                "evaluate_tokens": 20_000,
            }
        )


class Settings(TextSettings):
    """model: a dial ("d4") or a table; with `from`, the parent's if it is left out, and else it must be the parent's.

    continue_data: begin where the stage of `from` ended in the same token shards. allow_other_depth: a `model` deeper
    than the parent takes over the parent's layers and adds new ones above, which at first change nothing.
    allow_fine_tuned: begin from a model that has learned to answer, which forgets that. watch: benchmarks at
    evaluations, on a subset of their items.
    """

    model: str | dict[str, Any] = "d4"
    continue_data: bool = False
    allow_other_depth: bool = False
    allow_fine_tuned: bool = False
    watch: WatchSettings | None = Field(default=None, exclude=True)

    def smoke(self) -> Self:
        """A model of the same make, two layers deep and narrow, for a handful of steps."""
        watch = None if self.watch is None else self.watch.smoke()
        return super().smoke().model_copy(update={"model": toy_model(self.model), "watch": watch})


def own_gates(parents: Mapping[str, Sequence[str]]) -> tuple[Gate, ...]:
    """Merged experts have to be no worse than the best of them alone."""
    return (Gate(measure=GAIN, at_least=0.0),) if "experts" in parents.get("from", ()) else ()


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages; what is watched is looked for and is no part of the identity."""
    check_watch(settings.watch, settings.evaluate_every, roadmap_dir)
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Steps from the horizon; FLOPs from the model's shape. Errors: ConfigError for a parent that is not allowed."""
    tokens = inputs.one("tokens")
    refuse_warm(settings.optimizer, inputs.one("from"))
    config = model_config(settings.model, int(tokens.get("vocab_size", 8192)), settings.context)
    if "from" in stage.references:
        parent = inputs.one("from")
        problems = [fine_tuned_problem(parent, settings.allow_fine_tuned)]
        if "model" not in parent:
            return _unknown(problems)
        known = ModelConfig(**parent["model"])
        problems.append(context_problem(known, settings.context))
        depth = known.depth
        if _writes_model(stage):
            problems.append(shape_problem(known, config, settings.allow_other_depth))
            depth = config.depth
            if depth > known.depth and settings.optimizer.state == "warm":
                problems.append('optimizer = "warm": new layers have no optimizer state; write optimizer = "fresh"')
        _refuse(problems)
        config = known.model_copy(update={"depth": depth})
    watched = watched_tokens(settings.watch, settings.evaluate_every, stage.directory)
    return text_estimate(config, settings, tokens, device, stage.kind, watched)


def _unknown(problems: list[str]) -> Estimate:
    _refuse(problems)
    return Estimate(notes=("the model is not known yet",))


def _refuse(problems: list[str]) -> None:
    if found := [problem for problem in problems if problem]:
        raise ConfigError(found)


def _writes_model(stage: Stage) -> bool:
    """Whether the author wrote `model`; a toy size of a smoke run is not written by anybody."""
    settings: Settings = stage.settings
    return "model" in settings.model_fields_set and settings.model != toy_model(settings.model)


def text_estimate(
    config: ModelConfig,
    settings: TextSettings,
    tokens: Mapping[str, Any],
    device: Device,
    kind: str,
    watched: float = 0.0,
) -> Estimate:
    """The plan of a stage that continues text. watched: tokens of benchmarks at each evaluation."""
    # A token attends to half of its document on average.
    mean = min(float(tokens.get("tokens_per_document", settings.context)), settings.context) / 2
    epoch_tokens = float(tokens.get("tokens", 0.0))
    notes = []
    if settings.scaling == "auto":
        law = stage_law(settings.horizon, config, epoch_tokens, mean)
        settings, notes = law_settings(settings, law), [law_note(law)]
    steps = steps_of(settings.horizon, settings.step_tokens(settings.context), config, epoch_tokens, mean)
    each = min(settings.evaluate_tokens, float(tokens.get("validation_tokens", settings.evaluate_tokens)))
    evaluations = steps // settings.evaluate_every + 1
    estimate = training_estimate(
        config,
        steps,
        settings,
        settings.context,
        device,
        kind=kind,
        mean_context=mean,
        evaluated_tokens=evaluations * (each + watched),
    )
    return replace(estimate, notes=(*estimate.notes, *notes))


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Pack the shards once, train to the horizon, measure bits per byte on the validation side as it goes."""
    from gradus.data.bookmark import read_bookmark
    from gradus.data.shards import TokenStore

    settings: Settings = stage.settings
    store = TokenStore(inputs["tokens"].path, "train", settings.generation)
    begin = read_bookmark(_parent(stage, inputs).file(BOOKMARK)) if settings.continue_data else None
    return train_on(stage, inputs, place, store, settings.weights, begin, settings.watch)


def train_on(
    stage: Stage,
    inputs: Inputs,
    place: Place,
    store: TokenStore,
    weights: Mapping[str, float] | None,
    begin: Bookmark | None = None,
    watch: WatchSettings | None = None,
) -> Artifact:
    """Train a model on rows of a stream of documents, with loss on every token.

    store: what is trained on, the tokens of the input or a set made of them; weights: shares of the tokens for its
    sources. begin: where in the rows to begin. watch: benchmarks at evaluations.
    """
    import torch

    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.data.loader import RowLoader
    from gradus.data.plans import Packing, ShardPlans
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.train.losses import next_token_loss
    from gradus.train.precision import compute_dtype

    settings: TextSettings = stage.settings
    source = inputs["tokens"]
    tokenizer = load_tokenizer(source.path / "tokenizer")
    packing = Packing(settings.context, settings.packing, by_source=weights is not None)
    packed = ShardPlans(store, packing, place.scratch / "plans")
    with training_session(place) as session:
        generator = torch.Generator().manual_seed(stage.seed)
        model = _model(stage, inputs, tokenizer, generator, session)
        model.compute_dtype = compute_dtype(place.machine.precision, session.device)
        if settings.scaling == "auto":
            law = stage_law(settings.horizon, model.config, store.num_tokens, packed.mean_context)
            settings = law_settings(settings, law)
            place.progress.line(f"  {law_note(law)}")
        loader = RowLoader(
            store,
            packed,
            seed=stage.seed,
            rows_per_step=settings.rows_of_step(settings.context),
            micro_rows=settings.micro_rows,
            rank=session.world.rank,
            world=session.world.size,
            weights=weights,
            begin=begin,
        )
        horizon, seen = settings.horizon, packed.mean_context
        steps = steps_of(horizon, settings.step_tokens(settings.context), model.config, store.num_tokens, seen)
        mixture = loader.order.mixture
        if mixture is not None:
            for warning in mixture.warnings(loader.order.place(steps)):
                place.progress.line(f"  warning: {warning}")
        evaluate = document_evaluation(model, tokenizer, stage, source, session)
        kept = training_checkpoints(settings, place, session)
        parent = input_model(stage, inputs) if "from" in inputs else None
        reports = training_reports(
            model, loader.batches, next_token_loss, steps, settings, place, session, kept, parent
        )
        meter = Meter(place, model, packed.mean_context)
        form = HermesFormat(tokenizer)
        looks = watch_of(watch, model, form, place, session)
        last = follow(reports, place, session, evaluate, kept, meter, looks)
        results = training_results(place, last, model.config, meter)
        save_final_model(place, session, model, tokenizer, form.chat_template)
        if session.world.is_main:
            loader.bookmark(last.data_step).write(place.work / BOOKMARK)
        results |= {"packing": packed.statistics(), "epochs": loader.epochs_before(last.data_step)}
        if "from" in inputs and inputs["from"].manifest.kind == "experts":
            results[GAIN] = float(inputs["from"].results["bpb"]) - float(results["bpb"])
        if mixture is not None:
            results["mixture"] = [asdict(share) for share in mixture.shares(loader.order.place(last.data_step))]
        return place.commit(results)


def _model(
    stage: Stage, inputs: Inputs, tokenizer: Tokenizer, generator: torch.Generator, session: Session
) -> Transformer:
    """The parent's model, with more layers where that is allowed, or one with fresh weights."""
    from gradus.model.deepen import deeper_model
    from gradus.model.transformer import build_model
    from gradus.model.weights import load_config, load_model

    settings, device = stage.settings, session.device
    if "from" not in inputs:
        config = model_config(settings.model, tokenizer.vocab_size, settings.context)
        return build_model(config, generator, device, prepare=session.prepare)
    refuse_other_tokenizer(inputs["from"], tokenizer)
    folder = input_model(stage, inputs).folder
    parent = load_config(folder)
    _refuse([context_problem(parent, settings.context)])
    if isinstance(settings, Settings) and _writes_model(stage):
        written = model_config(settings.model, tokenizer.vocab_size, settings.context)
        _refuse([shape_problem(parent, written, settings.allow_other_depth)])
        if written.depth > parent.depth:
            return deeper_model(folder, written.depth, generator, device, session.prepare)
    return load_model(folder, device, prepare=session.prepare)


def _parent(stage: Stage, inputs: Inputs) -> Artifact:
    if "from" not in inputs:
        raise ConfigError(f'stage "{stage.name}": continue_data needs `from`, the stage whose data is continued')
    checkpoint = stage.references["from"][0].checkpoint
    if checkpoint not in (None, "latest"):
        raise ConfigError(
            f"continue_data begins where the stage of `from` ended, not at its checkpoint @{checkpoint}; leave one of "
            "the two out"
        )
    return inputs["from"]


def refuse_other_tokenizer(parent: Artifact, tokenizer: Tokenizer) -> None:
    """ConfigError where the parent's model reads other ids than the tokens are."""
    from gradus.tokenizer.loading import load_tokenizer

    if load_tokenizer(parent.path / MODEL_FOLDER).digest != tokenizer.digest:
        raise ConfigError(
            f'the model of stage "{parent.manifest.name}" was trained with another tokenizer; '
            "tokenize the corpus with the same one"
        )


def document_evaluation(
    model: Transformer, tokenizer: Tokenizer, stage: Stage, tokens: Artifact, session: Session
) -> Callable[[], Evaluation]:
    """What happens at an evaluation: bits per byte on held-back documents, and a few continuations."""
    from gradus.data.shards import TokenStore
    from gradus.engine.continuation import continue_texts
    from gradus.engine.sampling import Sampling
    from gradus.eval.bpb import BitsPerByte, bits_per_byte_by_source
    from gradus.train.sharding import whole_weights

    settings: TextSettings = stage.settings
    store = TokenStore(tokens.path, "validation")
    token_bytes = tokenizer.token_bytes

    def evaluate() -> Evaluation:
        found = bits_per_byte_by_source(
            model,
            store,
            token_bytes,
            row_length=settings.context,
            max_tokens=settings.evaluate_tokens,
            world=session.world,
        )
        measures = {"bpb": sum(found.values(), start=BitsPerByte()).value}
        if len(found) > 1:
            measures |= {f"bpb/{name}": part.value for name, part in found.items()}
        if not settings.samples:
            return Evaluation(measures)
        sampling = Sampling(temperature=0.8, top_k=50, seed=stage.seed)
        with whole_weights(model, session.world) as whole:
            if not session.world.is_main:
                return Evaluation(measures)
            texts = continue_texts(whole, tokenizer, settings.samples, sampling, SAMPLE_TOKENS)
        pairs = zip(settings.samples, texts, strict=True)
        return Evaluation(measures, [{"prompt": prompt, "text": text} for prompt, text in pairs])

    return evaluate
