"""Stage `extend`: a trained model learns to use a longer context, on long documents packed whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError
from gradus.core.files import write_atomic
from gradus.core.quantity import Quantity, format_count
from gradus.model.config import ModelConfig
from gradus.model.rope import RopeScaling, rescaled_base
from gradus.roadmap.estimate import steps_of, training_estimate
from gradus.roadmap.lineage import refuse_warm
from gradus.roadmap.metering import Meter
from gradus.roadmap.models import input_model
from gradus.roadmap.place import Place
from gradus.roadmap.preflight import larger_batch, said
from gradus.roadmap.session import Session, training_session
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage
from gradus.roadmap.stages.pretrain import document_evaluation, refuse_other_tokenizer
from gradus.roadmap.training import (
    MODEL_KINDS,
    SMOKE_CONTEXT,
    SMOKE_STEPS,
    TrainingSettings,
    follow,
    save_final_model,
    training_checkpoints,
    training_reports,
    training_results,
)

if TYPE_CHECKING:
    from gradus.data.shards import TokenStore
    from gradus.eval.passkey import PasskeyItem
    from gradus.model.transformer import Transformer
    from gradus.tokenizer.tokenizer import Tokenizer

VERSION = 1
MAKES = "extend"
INPUTS = (
    Input("tokens", ("tokens",)),
    Input("from", MODEL_KINDS),
)
PARALLEL = True
MEASURED = "measured.json"
_PASSKEY_DEPTHS = 5
_SHORTEST_PASSKEY = 128


class Settings(TrainingSettings):
    """context: tokens of the new, longer rows. horizon: "500 steps", "20M tokens", "0.5 tokens/param", "1 epoch" of the
    rows that are packed.

    rope: how rotary positions are stretched: "yarn" divides slow frequencies and keeps fast ones, "base" raises the
    base (to rope_base, or so that the slowest frequency slows down by the factor), "none" leaves them.
    least_document_tokens: documents of at least so many tokens count as long, those that fill a row if None.
    long_fraction: share of the tokens from long documents; the rest are shorter ones, so that these are not unlearned.
    evaluate_tokens: validation tokens of an evaluation at most. samples: beginnings of text that the model continues at
    each evaluation. passkey_samples: pass keys asked for at each length and depth, before and after.
    """

    context: int = Field(ge=16)
    horizon: Quantity = Quantity(1.0, "epochs")
    rope: Literal["yarn", "base", "none"] = "yarn"
    rope_base: float | None = Field(default=None, gt=1.0)
    least_document_tokens: int | None = Field(default=None, ge=1)
    long_fraction: float = Field(default=0.8, gt=0.0, le=1.0)
    evaluate_tokens: int = Field(default=200_000, ge=1)
    samples: tuple[str, ...] = ()
    passkey_samples: int = Field(default=4, ge=1)

    def smoke(self) -> Self:
        """A context that a smoke run's model and documents can have, for a handful of steps of eight rows."""
        return (
            super()
            .smoke()
            .model_copy(
                update={
                    "context": SMOKE_CONTEXT,
                    "batch_tokens": 8 * SMOKE_CONTEXT,
                    "horizon": Quantity(float(SMOKE_STEPS), "steps"),
                    "least_document_tokens": 32,
                    "evaluate_tokens": 20_000,
                    "passkey_samples": 1,
                }
            )
        )


def sources(settings: Settings, roadmap_dir: object) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Steps from the horizon; a token of a full row attends to half of it."""
    refuse_warm(settings.optimizer, inputs.one("from"))
    parent, tokens = inputs.one("from").get("model"), inputs.one("tokens")
    if parent is None:
        return Estimate(notes=("the model is not known yet",))
    config = extended_config(ModelConfig(**parent), settings)
    if "longest_document" in tokens:
        _refuse_short_documents(settings, tokens["longest_document"])
    mean = settings.context / 2
    epoch_tokens, notes = _expected_epoch(settings, tokens)
    steps = steps_of(settings.horizon, settings.step_tokens(settings.context), config, epoch_tokens, mean)
    evaluations = steps // settings.evaluate_every + 1
    # Perplexity by position is measured three times over as many tokens, and pass keys at every length.
    passkeys = 3 * settings.passkey_samples * _PASSKEY_DEPTHS * sum(passkey_lengths(settings.context))
    estimate = training_estimate(
        config,
        steps,
        settings,
        settings.context,
        device,
        kind=stage.kind,
        mean_context=mean,
        evaluated_tokens=(evaluations + 3) * settings.evaluate_tokens + passkeys,
    )
    return replace(estimate, notes=(*estimate.notes, *notes))


def _expected_epoch(settings: Settings, tokens: Mapping[str, Any]) -> tuple[float, list[str]]:
    """Tokens of the rows that `run` will pack, and what a plan says of them where the horizon counts epochs."""
    least = settings.least_document_tokens or settings.context
    everything, by_length = float(tokens.get("tokens", 0.0)), tokens.get("tokens_by_length")
    if by_length is None:
        note = (
            f"an epoch is of documents with at least {least:,} tokens and a share of others; how many there are is "
            "known once they are encoded, and until then all tokens are counted"
        )
        epoch_tokens = everything
    else:
        # Of documents between a power of two and the next, those from `least` on as if tokens were spread evenly.
        long_tokens = sum(
            count * min(1.0, max(0.0, 2 - least / int(shortest))) for shortest, count in by_length.items()
        )
        epoch_tokens = min(everything, long_tokens / settings.long_fraction)
        note = (
            f"an epoch is about {format_count(epoch_tokens)} of {format_count(everything)} tokens: documents with at "
            f"least {least:,}, and others beside them"
        )
    return epoch_tokens, [note] if settings.horizon.unit == "epochs" else []


def _refuse_short_documents(settings: Settings, longest: Mapping[str, int]) -> None:
    """What `run` finds of the documents, told before a parent is trained for it. longest: tokens by split."""
    problems = []
    least = settings.least_document_tokens or settings.context
    if longest.get("train", 0) < least:
        problems.append(
            f"no document has {least:,} tokens, the longest has {longest.get('train', 0):,}; lower "
            "least_document_tokens, or give longer documents"
        )
    if longest.get("validation", 0) < settings.context:
        problems.append(
            f"no validation document has {settings.context:,} tokens, the longest has "
            f"{longest.get('validation', 0):,}; hold back more documents (validation_fraction of the corpus), or "
            "extend to a shorter context"
        )
    if problems:
        raise ConfigError(problems)


def passkey_lengths(context: int) -> list[int]:
    """Where pass keys are asked for: the context and its halves, down to what holds a question; longest first."""
    return [context >> k for k in range(4) if context >> k >= _SHORTEST_PASSKEY] or [context]


def extended_config(parent: ModelConfig, settings: Settings) -> ModelConfig:
    """The parent's shape with the longer context. Errors: ConfigError where it is not longer."""
    if settings.context <= parent.context:
        raise ConfigError(
            f'"context": the model has a context of {parent.context:,} tokens already; expected more, found '
            f"{settings.context:,}"
        )
    factor = settings.context / parent.context
    if settings.rope_base is not None and settings.rope != "base":
        raise ConfigError('"rope_base" goes with rope = "base"')
    if settings.rope == "base" and parent.rope_scaling is not None:
        raise ConfigError(
            f'"rope": the rotary positions of the model of `from` are stretched by YaRN from '
            f"{parent.rope_scaling.original_context:,} tokens, and a raised base would stretch them twice; expected "
            '"yarn", which stretches them anew, or "none", found "base"'
        )
    changes: dict[str, Any] = {"context": settings.context}
    if settings.rope == "base":
        changes["rope_base"] = settings.rope_base or rescaled_base(parent.rope_base, parent.head_dim, factor)
    elif settings.rope == "yarn":
        changes["rope_scaling"] = _stretched_anew(parent, settings.context)
    return parent.model_copy(update=changes)


def _stretched_anew(parent: ModelConfig, context: int) -> RopeScaling:
    """YaRN for a context; a model that was stretched before is stretched from what it was first trained on.

    What the model came with besides, such as beta_fast of an imported one, stays.
    """
    before = parent.rope_scaling
    if before is None:
        return RopeScaling(factor=context / parent.context, original_context=parent.context)
    if context <= before.original_context:
        raise ConfigError(
            f'"context": the rotary positions of the model of `from` are stretched from {before.original_context:,} '
            f'tokens already; expected more, found {context:,}; write rope = "none" to leave them as they are'
        )
    factor = context / before.original_context
    plain = before.model_copy(update={"attention_factor": None})
    if before.attention_factor is not None and math.isclose(before.attention_factor, plain.magnitude, rel_tol=1e-4):
        before = plain  # what follows from the factor was written out
    return before.model_copy(update={"factor": factor})


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Measure the parent, stretch its positions, train on long rows, measure again."""
    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.data.loader import RowLoader
    from gradus.data.long_documents import long_rows
    from gradus.data.shards import TokenStore
    from gradus.model.weights import load_model
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.train.losses import next_token_loss
    from gradus.train.precision import compute_dtype

    settings: Settings = stage.settings
    source, trained = inputs["tokens"], inputs["from"]
    shape = trained.results.get("model", {})
    at_once = settings.rows_of_pass(settings.context)
    for line in said(larger_batch(at_once, settings.context, trained.manifest.settings, shape)):
        place.progress.line(line)
    tokenizer = load_tokenizer(source.path / "tokenizer")
    refuse_other_tokenizer(inputs["from"], tokenizer)
    store = TokenStore(source.path, "train")
    rows = long_rows(
        store.lengths,
        settings.context,
        least_tokens=settings.least_document_tokens or settings.context,
        long_fraction=settings.long_fraction,
        seed=stage.seed,
    )
    with training_session(place) as session:
        parent_model = input_model(stage, inputs)
        model = load_model(parent_model.folder, session.device, prepare=session.prepare)
        model.compute_dtype = compute_dtype(place.machine.precision, session.device)
        parent, config = model.config, extended_config(model.config, settings)
        held_back = TokenStore(source.path, "validation")
        before = _measured_before(model, config, held_back, tokenizer, stage, place, session)
        _take_config(model, config)
        loader = RowLoader(
            store,
            rows.plan,
            seed=stage.seed,
            rows_per_step=settings.rows_of_step(settings.context),
            micro_rows=settings.micro_rows,
            rank=session.world.rank,
            world=session.world.size,
        )
        seen = rows.plan.mean_context
        steps = steps_of(settings.horizon, settings.step_tokens(settings.context), config, rows.plan.num_tokens, seen)
        evaluate = document_evaluation(model, tokenizer, stage, source, session)
        kept = training_checkpoints(settings, place, session)
        reports = training_reports(
            model, loader.batches, next_token_loss, steps, settings, place, session, kept, parent_model
        )
        meter = Meter(place, model, seen)
        last = follow(reports, place, session, evaluate, kept, meter)
        results = training_results(place, last, config, meter) | {"packing": rows.statistics()}
        with _measuring(held_back, tokenizer, stage, place, "after", times=1) as measured:
            results |= _measured(model, held_back, tokenizer, stage, parent.context, session, measured) | before
        for line in _told(results, parent.context):
            place.progress.line(f"  {line}")
        if not results["passkey"]:
            place.progress.line(f"  note: {settings.context:,} tokens of this tokenizer do not hold a pass key probe")
        save_final_model(place, session, model, tokenizer, HermesFormat(tokenizer).chat_template)
        return place.commit(results)


def _take_config(model: Transformer, config: ModelConfig) -> None:
    """Give the model another config of the same shapes."""
    model.config = config
    for block in model.blocks:
        block.config = config


def _measured_before(
    model: Transformer,
    config: ModelConfig,
    held_back: TokenStore,
    tokenizer: Tokenizer,
    stage: Stage,
    place: Place,
    session: Session,
) -> dict[str, Any]:
    """The parent as it came and with its positions stretched but untrained, once for all walks of the stage."""
    file = place.scratch / MEASURED
    if session.world.all_agree(file.exists()):
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    parent = model.config
    with _measuring(held_back, tokenizer, stage, place, "before", times=2) as measured:
        before = _measured(model, held_back, tokenizer, stage, parent.context, session, measured)
        _take_config(model, config)
        rescaled = _measured(model, held_back, tokenizer, stage, parent.context, session, measured)
        _take_config(model, parent)
    found = {"before": before, "rescaled": rescaled}
    if session.world.is_main:
        write_atomic(file, json.dumps(found))
    return found


def _told(results: dict[str, Any], parent_context: int) -> list[str]:
    """What a walk says of all three measurements."""
    stages = (("before", results["before"]), ("stretched", results["rescaled"]), ("after", results))
    lines = []
    for name in ("within", "beyond"):
        values = ", ".join(f"{found['perplexity'][name]['value']:.2f} {when}" for when, found in stages)
        lines.append(f"perplexity {name} {parent_context:,} tokens: {values}")
    if results["passkey"]:
        totals = [(when, found["passkey"]["total"]) for when, found in stages]
        values = ", ".join(f"{total['successes']} {when}" for when, total in totals)
        nats = ", ".join(f"{total['nats_per_token']:.2f}" for _, total in totals)
        lines.append(f"pass keys found of {totals[0][1]['n']}: {values}; nats a token {nats}")
    return lines


@contextmanager
def _measuring(
    held_back: TokenStore, tokenizer: Tokenizer, stage: Stage, place: Place, when: str, *, times: int
) -> Iterator[Callable[[int], None]]:
    """Progress over all tokens that are measured `times` times; gives what is told of more of them."""
    from gradus.eval.positions import measured_documents

    settings: Settings = stage.settings
    documents = len(measured_documents(held_back, settings.context, settings.evaluate_tokens))
    once = documents * settings.context + sum(len(item.tokens) for item in _passkeys(tokenizer, stage))
    with place.progress.task(f"perplexity by position and pass keys, {when}", times * once, "tok") as task:
        yield lambda tokens: task.update(advance=tokens)


def _passkeys(tokenizer: Tokenizer, stage: Stage) -> tuple[PasskeyItem, ...]:
    from gradus.eval.passkey import passkey_items

    settings: Settings = stage.settings
    lengths = passkey_lengths(settings.context)[::-1]
    return passkey_items(tokenizer, lengths, depths=_PASSKEY_DEPTHS, samples=settings.passkey_samples, seed=stage.seed)


def _measured(
    model: Transformer,
    held_back: TokenStore,
    tokenizer: Tokenizer,
    stage: Stage,
    parent_context: int,
    session: Session,
    measured: Callable[[int], None],
) -> dict[str, Any]:
    """Perplexity by position over the new context, and pass keys over the lengths up to it, as gates read them.

    Every process measures all of it: where the model is sharded none can without the others.
    """
    from gradus.eval.passkey import passkey_retrieval
    from gradus.eval.positions import loss_by_position
    from gradus.train.sharding import let_go

    settings: Settings = stage.settings
    loss = loss_by_position(model, held_back, settings.context, max_tokens=settings.evaluate_tokens, measured=measured)
    items = _passkeys(tokenizer, stage)
    passkeys = passkey_retrieval(model, items, measured=measured).measures() if items else {}
    let_go(model, session.world)
    return {
        "perplexity": {
            "whole": loss.measure(),
            "within": loss.measure(0, parent_context),
            "beyond": loss.measure(parent_context),
        },
        "positions": {"edges": loss.edges, "perplexity": loss.curve(), "documents": loss.documents},
        "passkey": passkeys,
    }
