"""Stage `pretrain`: a model learns to continue documents, from fresh weights or from an earlier stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError
from gradus.core.quantity import Quantity
from gradus.model.config import ModelConfig, model_config
from gradus.roadmap.estimate import steps_of, training_estimate
from gradus.roadmap.metering import Meter
from gradus.roadmap.place import Place
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage
from gradus.roadmap.training import (
    MODEL,
    SMOKE_STEPS,
    Evaluation,
    Session,
    TrainingSettings,
    follow,
    save_final_model,
    training_checkpoints,
    training_reports,
    training_results,
    training_session,
)

if TYPE_CHECKING:
    from gradus.model.transformer import Transformer
    from gradus.tokenizer.tokenizer import Tokenizer

VERSION = 1
MAKES = "pretrain"
INPUTS = (
    Input("tokens", ("tokens",)),
    Input("from", ("pretrain",), required=False),
)
PARALLEL = True
SAMPLE_TOKENS = 64
BOOKMARK = "bookmark.json"


class Settings(TrainingSettings):
    """model: a dial ("d4") or a table. horizon: "2M tokens", "500 steps", "1 epoch", "20 tokens/param", "1e15 flops".

    packing: what becomes of a document that does not fit into a row, cut in fragments that are all trained on, or
    cropped and its end thrown away. weights: shares of the tokens for sources, by the tokens they have if none are
    given. generation: of the token shards, the newest if None. continue_data: begin where the stage of `from` ended
    in the same token shards. evaluate_tokens: validation tokens of an evaluation at most. samples: beginnings of text
    that the model continues at each evaluation.
    """

    model: str | dict[str, Any] = "d4"
    context: int = Field(default=512, ge=8)
    horizon: Quantity = Quantity(20.0, "tokens/param")
    evaluate_tokens: int = Field(default=200_000, ge=1)
    samples: tuple[str, ...] = ("The ", "Once ")
    packing: Literal["fragments", "crop"] = "fragments"
    weights: dict[str, float] | None = None
    generation: int | None = Field(default=None, ge=1)
    continue_data: bool = False

    def smoke(self) -> Self:
        """A model of the same make, two layers deep and narrow, for a handful of steps."""
        small = super().smoke()
        return small.model_copy(
            update={
                "model": {"depth": 2, "width": 64},
                "context": min(self.context, 256),
                "horizon": Quantity(float(SMOKE_STEPS), "steps"),
                "evaluate_tokens": 20_000,
            }
        )


def sources(settings: Settings, roadmap_dir: object) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Steps from the horizon; FLOPs from the model's shape."""
    tokens = inputs.one("tokens")
    parent = inputs.one("from").get("model")
    config = (
        ModelConfig(**parent)
        if parent
        else model_config(settings.model, int(tokens.get("vocab_size", 8192)), settings.context)
    )
    # A token attends to half of its document on average.
    mean = min(float(tokens.get("tokens_per_document", settings.context)), settings.context) / 2
    steps = steps_of(settings.horizon, settings.batch_tokens, config, float(tokens.get("tokens", 0.0)), mean)
    each = min(settings.evaluate_tokens, float(tokens.get("validation_tokens", settings.evaluate_tokens)))
    evaluations = steps // settings.evaluate_every + 1
    return training_estimate(
        config,
        steps,
        settings,
        settings.context,
        device,
        kind=stage.kind,
        mean_context=mean,
        evaluated_tokens=evaluations * each,
    )


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Pack the shards once, train to the horizon, measure bits per byte on the validation side as it goes."""
    import torch

    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.data.bookmark import read_bookmark
    from gradus.data.loader import RowLoader
    from gradus.data.plans import Packing, ShardPlans
    from gradus.data.shards import TokenStore
    from gradus.model.transformer import build_model
    from gradus.model.weights import load_model
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.train.losses import next_token_loss
    from gradus.train.precision import compute_dtype

    settings: Settings = stage.settings
    source = inputs["tokens"]
    store = TokenStore(source.path, "train", settings.generation)
    tokenizer = load_tokenizer(source.path / "tokenizer")
    packing = Packing(settings.context, settings.packing, by_source=settings.weights is not None)
    packed = ShardPlans(store, packing, place.scratch / "plans")
    begin = read_bookmark(_parent(stage, inputs).file(BOOKMARK)) if settings.continue_data else None
    with training_session(place) as session:
        generator = torch.Generator().manual_seed(stage.seed)
        if "from" in inputs:
            model = load_model(inputs["from"].path / MODEL, session.device, prepare=session.prepare)
            refuse_other_tokenizer(inputs["from"], tokenizer)
        else:
            config = model_config(settings.model, tokenizer.vocab_size, settings.context)
            model = build_model(config, generator, session.device, prepare=session.prepare)
        model.compute_dtype = compute_dtype(place.machine.precision, session.device)
        loader = RowLoader(
            store,
            packed,
            seed=stage.seed,
            rows_per_step=max(1, settings.batch_tokens // settings.context),
            micro_rows=settings.micro_rows,
            rank=session.world.rank,
            world=session.world.size,
            weights=settings.weights,
            begin=begin,
        )
        horizon, seen = settings.horizon, packed.mean_context
        steps = steps_of(horizon, settings.batch_tokens, model.config, store.num_tokens, seen)
        if loader.order.mixture is not None:
            for warning in loader.order.mixture.warnings(loader.order.place(steps)):
                place.progress.line(f"  warning: {warning}")
        evaluate = document_evaluation(model, tokenizer, stage, source, session)
        kept = training_checkpoints(settings, place, session)
        reports = training_reports(model, loader.batches, next_token_loss, steps, settings, place, session, kept)
        meter = Meter(place, model, packed.mean_context)
        last = follow(reports, place, session, evaluate, kept, meter)
        results = training_results(place, last, model.config, meter)
        save_final_model(place, session, model, tokenizer, HermesFormat(tokenizer).chat_template)
        if session.world.is_main:
            loader.bookmark(last.data_step).write(place.work / BOOKMARK)
        results |= {"packing": packed.statistics(), "epochs": loader.epochs_before(last.data_step)}
        return place.commit(results)


def _parent(stage: Stage, inputs: Inputs) -> Artifact:
    if "from" not in inputs:
        raise ConfigError(f'stage "{stage.name}": continue_data needs `from`, the stage whose data is continued')
    return inputs["from"]


def refuse_other_tokenizer(parent: Artifact, tokenizer: Tokenizer) -> None:
    """ConfigError where the parent's model reads other ids than the tokens are."""
    from gradus.tokenizer.loading import load_tokenizer

    if load_tokenizer(parent.path / MODEL).digest != tokenizer.digest:
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

    settings: Settings = stage.settings
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
        with whole_weights(model, session.world):
            if not session.world.is_main:
                return Evaluation(measures)
            texts = continue_texts(model, tokenizer, settings.samples, sampling, SAMPLE_TOKENS)
        pairs = zip(settings.samples, texts, strict=True)
        return Evaluation(measures, [{"prompt": prompt, "text": text} for prompt, text in pairs])

    return evaluate
