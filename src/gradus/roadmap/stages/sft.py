"""Stage `sft`: a model learns to answer, from a weighted mixture of conversation pools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError, DataError
from gradus.core.quantity import Quantity
from gradus.data.length_policy import LengthPolicy
from gradus.data.mixture import (
    MixtureEntry,
    MixtureShare,
    WeighedBy,
    check_mixture,
    expected_shares,
    mixture_warnings,
    validation_documents,
)
from gradus.model.config import LoraSettings, ModelConfig
from gradus.roadmap.estimate import training_estimate
from gradus.roadmap.lineage import refuse_warm
from gradus.roadmap.metering import Meter
from gradus.roadmap.metrics import Evaluation
from gradus.roadmap.models import input_model
from gradus.roadmap.place import Place
from gradus.roadmap.preflight import larger_batch, long_conversations, said, separate_habits
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
    from gradus.conversation.formats.wire import Format, Rendered
    from gradus.conversation.messages import Conversation
    from gradus.data.shards import TokenStore
    from gradus.model.transformer import Transformer

VERSION = 1
MAKES = "sft"
INPUTS = (
    Input("from", MODEL_KINDS),
    Input("mixture[].source", ("pool",)),
)
PARALLEL = True
EVALUATED_TOKENS = 100_000
# Of conversations whose pool does not tell, for plans.
TOKENS_PER_CONVERSATION = 160.0
TRAINED_FRACTION = 0.4
SAMPLED_PROMPTS = 4
SAMPLE_TOKENS = 160
LINT_SAMPLE = 10  # rows of every thousand that get the checks which cost more rendering


class Settings(TrainingSettings):
    """mixture: pools with epochs or weights, and caps. epochs: passes over the whole mixture. weigh_by: whether weights
    are shares of the tokens or of the conversations. mixture_size: of one pass over a mixture by weights ("3M tokens",
    or "20_000 documents" by rows); as large as it can be without repeating a source if None.

    row_length: tokens of a packed row, at most the model's context, which it is if None; a longer conversation meets
    length_policy.
    packing: "whole" places conversations longest first, each where it fits best; "tight" searches on where that leaves
    rows with room, at row lengths up to 1,024.
    lora: train adapters of this rank instead of the weights; the artifact holds them in adapter/, merged in model/.
    watch: benchmarks at evaluations, on a subset of their items.
    """

    mixture: tuple[MixtureEntry, ...] = Field(min_length=1)
    epochs: float = Field(default=1.0, gt=0)
    weigh_by: WeighedBy = "tokens"
    mixture_size: Quantity | None = None
    row_length: int | None = Field(default=None, ge=8)
    length_policy: LengthPolicy = "drop"
    packing: Literal["whole", "tight"] = "tight"
    steps_at_most: int | None = Field(default=None, ge=1)
    lora: LoraSettings | None = None
    watch: WatchSettings | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _mixture_goes_together(self) -> Settings:
        check_mixture(self.mixture, self.mixture_size, self.weigh_by)
        return self

    def smoke(self) -> Self:
        """A handful of steps."""
        watch = None if self.watch is None else self.watch.smoke()
        # The models of smoke runs have short rows too.
        row_length = None if self.row_length is None else min(self.row_length, SMOKE_ROW)
        changes = {"steps_at_most": SMOKE_STEPS, "row_length": row_length, "watch": watch}
        return super().smoke().model_copy(update=changes)

    def row_of(self, context: int) -> int:
        """Tokens of a packed row for a model of this context. Errors: ConfigError where it cannot read one."""
        if self.row_length is not None and self.row_length > context:
            raise ConfigError(
                f'"row_length": the model has a context of {context:,} tokens; expected at most that, found '
                f"{self.row_length:,}; leave it out for the whole context, or extend that first"
            )
        return self.row_length or context


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Everything comes from other stages; what is watched is looked for and is no part of the identity."""
    check_watch(settings.watch, settings.evaluate_every, roadmap_dir)
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Tokens from the pools' conversations; the head works on answers only."""
    refuse_warm(settings.optimizer, inputs.one("from"), settings.lora)
    parent = inputs.one("from").get("model")
    if parent is None:
        return Estimate(notes=("the model is not known yet",))
    config = ModelConfig(**parent)
    shares, notes = _expected(settings, inputs)
    tokens, rows = sum(share.tokens for share in shares), sum(share.rows for share in shares)
    mean = tokens / rows / 2 if rows else TOKENS_PER_CONVERSATION / 2
    row_length = settings.row_of(config.context)
    watched = watched_tokens(settings.watch, settings.evaluate_every, stage.directory)
    # A packed row is as good as full.
    steps = max(1, round(tokens * settings.epochs / settings.step_tokens(row_length)))
    steps = min(steps, settings.steps_at_most or steps)
    pass_tokens = min(settings.micro_rows * row_length, settings.step_tokens(row_length) / device.processes)
    shared = sum(share.rows * float(inputs.named(share.source).get("shared_tokens", 0.0)) for share in shares)
    estimate = training_estimate(
        config,
        steps,
        settings,
        row_length,
        device,
        kind=stage.kind,
        mean_context=mean,
        head_fraction=TRAINED_FRACTION,
        shared_fraction=shared / max(1, tokens) * max(0.0, 1 - 2 * mean / pass_tokens),
        lora=settings.lora,
        evaluated_tokens=(steps // settings.evaluate_every + 1) * (min(EVALUATED_TOKENS, 0.01 * tokens) + watched),
    )
    return replace(
        estimate,
        seconds=(estimate.seconds or 0.0) + device.seconds("render", rows),
        notes=(*estimate.notes, *notes),
    )


def _expected(settings: Settings, inputs: Expected) -> tuple[list[MixtureShare], list[str]]:
    """What a plan knows of the mixture's shares, and what it says of them."""
    known = {}
    for entry in settings.mixture:
        pool = inputs.named(entry.source)
        if pool.get("conversations"):
            each = float(pool.get("tokens_per_conversation", TOKENS_PER_CONVERSATION))
            known[entry.source] = (float(pool["conversations"]), each)
    if len(known) < len(settings.mixture):
        return [], ["the size of the mixture is not known yet"]
    shares = expected_shares(settings.mixture, known, settings.mixture_size, settings.weigh_by)
    notes = [f"about {share}" for share in shares] if len(shares) > 1 else []
    pools = {entry.source: inputs.named(entry.source) for entry in settings.mixture}
    size = sum(share.tokens for share in shares)
    passes = settings.epochs
    if settings.steps_at_most is not None:
        passes = min(passes, settings.steps_at_most * settings.batch_tokens / size)
    return shares, [*notes, *mixture_warnings(shares, passes), *separate_habits(pools)]


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Lint and render the pools, pack whole conversations, train on answers."""
    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.data.loader import RowLoader
    from gradus.data.mixture import mixture_documents
    from gradus.data.pack import pack_plan
    from gradus.model.weights import load_model
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.train.losses import next_token_loss
    from gradus.train.precision import compute_dtype

    settings: Settings = stage.settings
    parent = input_model(stage, inputs)
    tokenizer = load_tokenizer(parent.tokenizer)
    form = HermesFormat(tokenizer)
    with training_session(place) as session:
        model = load_model(parent.folder, session.device, prepare=session.prepare, lora=settings.lora, seed=stage.seed)
        model.compute_dtype = compute_dtype(place.machine.precision, session.device)
        row_length = settings.row_of(model.config.context)
        store, counts = _rendered("train", _conversations("train", stage, inputs), stage, place, form, row_length)
        documents, shares = mixture_documents(
            store, settings.mixture, stage.seed, settings.mixture_size, settings.weigh_by
        )
        packed = pack_plan(store.lengths, row_length, mode=settings.packing, documents=documents)
        loader = RowLoader(
            store,
            packed,
            seed=stage.seed,
            rows_per_step=settings.rows_of_step(row_length),
            micro_rows=settings.micro_rows,
            rank=session.world.rank,
            world=session.world.size,
        )
        steps = loader.order.steps_for_epochs(settings.epochs)
        steps = min(steps, settings.steps_at_most or steps)
        passes = min(settings.epochs, steps / loader.order.steps_for_epochs(1.0))
        for line in [
            *(f"  {share}" for share in shares),
            *_warnings(stage, inputs, shares, passes, counts, row_length),
        ]:
            place.progress.line(line)
        kept = training_checkpoints(settings, place, session)
        reports = training_reports(
            model, loader.batches, next_token_loss, steps, settings, place, session, kept, parent
        )
        evaluate = _evaluation(model, form, stage, inputs, place, session, row_length, shares)
        meter = Meter(place, model, packed.mean_context, store.trained_fraction)
        watch = watch_of(settings.watch, model, form, place, session)
        last = follow(reports, place, session, evaluate, kept, meter, watch)
        results = training_results(place, last, model.config, meter)
        save_final_model(place, session, model, tokenizer, form.chat_template)
        results |= {"packing": packed.statistics(), "mixture": [asdict(s) for s in shares], "counts": counts}
        return place.commit(results)


def _warnings(
    stage: Stage,
    inputs: Inputs,
    shares: Sequence[MixtureShare],
    passes: float,
    counts: dict[str, Any],
    row_length: int,
) -> list[str]:
    """What is said before the first step."""
    settings, parent = stage.settings, inputs["from"]
    pools = {entry.source: inputs.named(entry.source).results for entry in settings.mixture}
    rows = settings.rows_of_pass(row_length)
    return said(
        [
            *mixture_warnings(shares, passes),
            *separate_habits(pools),
            *long_conversations(counts["whole_tokens"], row_length, settings.length_policy),
            *larger_batch(rows, row_length, parent.manifest.settings, parent.results.get("model", {})),
        ]
    )


def _conversations(split: Any, stage: Stage, inputs: Inputs) -> Iterator[Conversation]:
    """All conversations of one side of the mixture's pools, each with its pool's name as its source."""
    from gradus.data.mixture import labelled
    from gradus.data.pool import read_pool

    for entry in stage.settings.mixture:
        yield from labelled(read_pool(inputs.named(entry.source).path, split), entry.source)


def _rendered(
    split: str, conversations: Iterable[Conversation], stage: Stage, place: Place, form: Format, row_length: int
) -> tuple[TokenStore, dict[str, Any]]:
    """One side as token shards in scratch, linted on the way: training on rows that break a rule is refused."""
    from gradus.conversation.lint import lint
    from gradus.data.rows import render_pool

    passed = 0
    with place.progress.task(f"rendering {split} conversations", None, "rows") as task:

        def check(rows: Sequence[Conversation], rendered: Sequence[Rendered]) -> None:
            nonlocal passed
            found = lint(rows, form, LINT_SAMPLE, rendered)
            if found:
                shown = "\n".join(
                    f"  row {passed + (v.row or 0)} ({rows[v.row or 0].id}): {v.reason}: {v.detail}" for v in found[:5]
                )
                raise DataError(f"conversations break the rules of training data:\n{shown}")
            passed += len(rows)
            task.update(passed)

        return render_pool(
            conversations,
            form,
            place.scratch / f"rows-{place.rank}",
            split=split,
            row_length=row_length,
            length_policy=stage.settings.length_policy,
            check=check,
        )


def _evaluation(
    model: Transformer,
    form: Format,
    stage: Stage,
    inputs: Inputs,
    place: Place,
    session: Session,
    row_length: int,
    shares: Sequence[MixtureShare],
) -> Callable[[], Evaluation]:
    """What happens at an evaluation: loss on held-back answers, and replies to a few held-back questions.

    Answers are held back from each pool by its share of the mixture.
    """
    import torch

    from gradus.data.loader import rows_in_order
    from gradus.data.pack import pack_plan
    from gradus.engine.engine import Engine
    from gradus.engine.turn import PromptTooLongError, Request
    from gradus.eval.tasks import spread_items
    from gradus.model.mps import sum_dtype
    from gradus.model.sharing import share_prefixes
    from gradus.model.xla import send_work
    from gradus.posttrain.prompts import prompt_from_conversation
    from gradus.tools.toolbox import ToolBox
    from gradus.train.losses import next_token_loss
    from gradus.train.sharding import whole_weights

    world = session.world
    if next(_conversations("validation", stage, inputs), None) is None:
        return lambda: Evaluation({})
    store, _ = _rendered("validation", _conversations("validation", stage, inputs), stage, place, form, row_length)
    if not len(store.lengths):
        place.progress.line("  warning: every held-back conversation is too long for the model; no validation loss")
        return lambda: Evaluation({})
    documents = validation_documents(store, shares, EVALUATED_TOKENS)
    packed = pack_plan(store.lengths, row_length, mode="whole", documents=documents)
    engine = Engine(model, form.tokenizer, form, ToolBox())

    def answerable(conversation: Conversation) -> bool:
        """Whether what comes before its last answer leaves room for one."""
        try:
            engine.check(Request(prompt_from_conversation(conversation).conversation))
        except PromptTooLongError:
            return False
        return True

    def answered() -> Iterator[Conversation]:
        return (c for c in _conversations("validation", stage, inputs) if c.messages[-1].role == "assistant")

    shown = spread_items(answered, SAMPLED_PROMPTS)
    prompts = [prompt_from_conversation(c).conversation for c in shown if answerable(c)]

    def evaluate() -> Evaluation:
        sums = torch.zeros(2, dtype=sum_dtype(session.device), device=session.device)  # nats, targets
        with torch.no_grad():
            for batch in rows_in_order(store, packed, stage.settings.micro_rows, rank=world.rank, world=world.size):
                shared = share_prefixes(batch, session.device).to(session.device)
                nats, targets, _ = next_token_loss(model, shared)
                sums += torch.stack([nats.to(sums.dtype), targets.to(sums.dtype)])
                send_work(session.device)
        world.sum_([sums])
        measures = {"validation_loss": float(sums[0] / sums[1])}
        with whole_weights(model, world) as engine.decoder:
            if not world.is_main:
                return Evaluation(measures)
            replies = engine.generate([Request(prompt, max_tokens=SAMPLE_TOKENS) for prompt in prompts])
        samples = [
            {
                "prompt": prompt.messages[-1].content,
                "thinking": reply.turn.thinking,
                "calls": [{"name": call.name, "arguments": call.arguments} for call in reply.turn.calls],
                "answer": reply.turn.answer,
            }
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        return Evaluation(measures, samples)

    return evaluate
