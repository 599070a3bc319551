"""What the training stages share: settings, checkpoints, following `fit` to its end, and what is left of it.

Each stage builds its own model, batches and loss, and passes what it evaluates as a plain function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from gradus.core.errors import TrainingError
from gradus.core.home import ADAPTER_FOLDER, CHECKPOINTS_FOLDER, MODEL_FOLDER
from gradus.core.quantity import format_count
from gradus.core.statistics import Z95
from gradus.model.config import ModelConfig
from gradus.model.cost import parameters
from gradus.roadmap.metering import Meter
from gradus.roadmap.metrics import METRICS, STANDARD_ERRORS, Evaluation, Journal, StepLines
from gradus.roadmap.models import ModelReference, newest_checkpoint
from gradus.roadmap.place import Place
from gradus.roadmap.stage import StageSettings
from gradus.roadmap.warm_start import carry_over, state_bytes
from gradus.train.config import GuardSettings, OptimizerSettings, ScheduleSettings

if TYPE_CHECKING:
    import torch

    from gradus.model.batch import Batch
    from gradus.model.transformer import Transformer
    from gradus.roadmap.session import Session
    from gradus.roadmap.watched_tasks import Watch
    from gradus.tokenizer.tokenizer import Tokenizer
    from gradus.train.checkpoint import Checkpoints
    from gradus.train.loop import StepReport
    from gradus.train.losses import Loss

SMOKE_STEPS = 12
SMOKE_ROW = 256  # tokens of a row at most, in a smoke run
SMOKE_CONTEXT = 320  # the longer one that `extend` teaches there
# What has a model to begin from, or to ask: artifacts of these kinds.
MODEL_KINDS = ("pretrain", "midtrain", "import", "extend", "sft", "dpo", "grpo")


class TrainingSettings(StageSettings):
    """What every training stage lets its author choose.

    batch_tokens: tokens of one optimizer step over all processes. micro_rows: packed rows in one forward pass.
    keep_checkpoints: how many of the newest are kept, the final one among them; 0 keeps none once the stage is done,
    and with them goes the optimizer's state. keep_best: a measure of evaluations,
    such as "bpb"; the checkpoint where it is lowest is kept besides. protect: steps whose checkpoints are kept.
    optimizer: what its table leaves out is as in the default. "warm" alone begins with the moments of `from`.
    """

    batch_tokens: int = Field(default=8192, ge=1)
    micro_rows: int = Field(default=16, ge=1)
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    guard: GuardSettings = GuardSettings()
    log_every: int = Field(default=10, ge=1)
    save_every: int = Field(default=100, ge=1)
    evaluate_every: int = Field(default=100, ge=1)
    keep_checkpoints: int = Field(default=2, ge=0)
    keep_best: str | None = None
    protect: tuple[int, ...] = ()

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer_over_the_default(cls, written: Any) -> Any:
        if isinstance(written, str):
            written = {"state": written}
        if not isinstance(written, dict):
            return written
        default: OptimizerSettings = cls.model_fields["optimizer"].default
        return default.model_dump(exclude_unset=True) | written

    @model_validator(mode="after")
    def _what_is_kept_is_wanted(self) -> Self:
        if self.keep_checkpoints == 0 and (self.keep_best is not None or self.protect):
            raise ValueError("keep_checkpoints = 0 keeps none, and keep_best or protect asks for some; leave one out")
        if (self.keep_best or "").startswith("tasks.") and not (self.keep_best or "").endswith("perplexity"):
            raise ValueError(
                f'keep_best keeps where a measure is lowest, and "{self.keep_best}" is best at its highest'
            )
        return self

    def rows_of_step(self, row_length: int) -> int:
        """Packed rows of one optimizer step: as many as batch_tokens hold, at least one."""
        return max(1, self.batch_tokens // row_length)

    def rows_of_pass(self, row_length: int) -> int:
        """Packed rows of one forward pass: micro_rows, where a step has so many."""
        return min(self.micro_rows, self.rows_of_step(row_length))

    def step_tokens(self, row_length: int) -> int:
        """Tokens of one optimizer step as it is made, of whole rows."""
        return self.rows_of_step(row_length) * row_length

    def smoke(self) -> Self:
        """Few small steps, every kind of boundary among them."""
        return self.model_copy(
            update={
                "batch_tokens": min(self.batch_tokens, 2048),
                "log_every": 2,
                "save_every": 5,
                "evaluate_every": 6,
            }
        )

    def smoke_of(self, processes: int) -> Self:
        """With a row for each process in a step, where the real one has that."""
        small = self.smoke()
        rows = min(self.batch_tokens, processes * SMOKE_CONTEXT)
        return small.model_copy(update={"batch_tokens": max(small.batch_tokens, rows)})


def follow(
    reports: Iterator[StepReport],
    place: Place,
    session: Session,
    evaluate: Callable[[], Evaluation],
    checkpoints: Checkpoints | None = None,
    meter: Meter | None = None,
    watch: Watch | None = None,
) -> StepReport:
    """Drive `fit` to its end: progress, metrics, evaluations. Returns the last report.

    All processes evaluate together; the main one writes. checkpoints: are told what they were measured at. meter:
    what each logged line tells besides. watch: benchmarks that are looked at besides.
    """
    last: StepReport | None = None
    journal = Journal(place, meter) if session.world.is_main else None
    shown: dict[str, float] = {}
    with place.progress.task("training", None, "tok") as task:
        for report in reports:
            if journal is not None:
                if last is None:
                    journal.open(report)
                journal.train(report)
            is_known = journal is not None and report.resumed and journal.is_evaluated
            if report.evaluate and session.world.all_agree(not is_known):
                found = evaluate()
                if watch is not None and watch.is_due(report.step, report.steps):
                    found = _with_benchmarks(found, watch.look())
                shown |= found.measures
                # Noted first: a line in the journal means that a walk killed here need not evaluate again.
                if checkpoints is not None and report.saved:
                    checkpoints.note(report.step, found.measures)
                if journal is not None:
                    journal.evaluate(report, found)
            expected = report.tokens * report.steps / report.step
            task.update(report.tokens, total=expected, info=_info(report, shown))
            last = report
    assert last is not None, "fit reports its last step"
    return last


def _with_benchmarks(found: Evaluation, looked: Mapping[str, Mapping[str, Any]]) -> Evaluation:
    values = {name: float(measure["value"]) for name, measure in looked.items()}
    errors = {name: float(m["standard_error"]) for name, m in looked.items() if "standard_error" in m}
    return replace(found, measures={**found.measures, **values}, standard_errors=errors)


def _info(report: StepReport, shown: Mapping[str, float]) -> str:
    parts = [f"step {report.step:,}/{report.steps:,}"]
    if report.loss is not None:
        parts.append(f"loss {report.loss:.3f}")
    parts += [f"{name} {value:.3f}" for name, value in shown.items() if "/" not in name]
    parts.append(f"{format_count(report.tokens_per_second)} tok/s")
    if report.skipped:
        parts.append(f"{report.skipped} skipped")
    return "  ".join(parts)


def training_results(place: Place, last: StepReport, config: ModelConfig, meter: Meter) -> dict[str, Any]:
    """Facts and measures that every training stage leaves in its results."""
    lines = StepLines(place.work / METRICS).lines()
    rates = sorted(line["tokens_per_second"] for line in lines if line["event"] == "train")
    evaluated = [line for line in lines if line["event"] == "evaluate"]
    rate = rates[len(rates) // 2] if rates else 0.0
    results: dict[str, Any] = {
        "model": config.model_dump(mode="json"),
        "parameters": parameters(config).total,
        "active_parameters": parameters(config).active,
        "steps": last.steps,
        "tokens": last.tokens,
        "computed_tokens": last.computed,
        "loss": last.loss,
        "skipped_steps": last.skipped,
        "passed_over": [
            {"refused_at": refused, "returned_to": returned, "data_steps": [begin, end]}
            for refused, returned, begin, end in last.passed_over
        ],
        "tokens_per_second": rate,
        **meter.results(last, rate),
    }
    kept = newest_checkpoint(place.work)
    if kept is not None:
        results["optimizer_state_bytes"] = state_bytes(kept)
    if evaluated:
        # Names such as "bpb/books" become results of their own branch, which a gate can name: by_source.books.bpb
        errors = evaluated[-1].get(STANDARD_ERRORS, {})
        for name, value in evaluated[-1].items():
            measure, found, source = name.partition("/")
            if found:
                results.setdefault("by_source", {}).setdefault(source, {})[measure] = value
            elif name in errors:
                spread = Z95 * errors[name]
                bounds = {"lower": value - spread, "upper": value + spread}
                results[name] = {"value": value, "standard_error": errors[name], **bounds}
            elif name not in {"event", "step", "tokens", STANDARD_ERRORS}:
                results[name] = value
    return results


def save_final_model(
    place: Place, session: Session, model: Transformer, tokenizer: Tokenizer, chat_template: str
) -> None:
    """The artifact's model/ folder: weights, config and tokenizer, complete for chat and for the Hub.

    Of a model with adapters the weights are merged, and adapter/ holds the adapters alone, as PEFT reads them.
    All processes call it; the main one writes. Checkpoints that are not to stay are laid aside.
    """
    from gradus.model.weights import save_adapter, save_model
    from gradus.tokenizer.specials import END_OF_TEXT, IM_END
    from gradus.train.sharding import whole_weights

    folder, beside = place.work / MODEL_FOLDER, place.work / ADAPTER_FOLDER
    session.world.all_agree(True)  # until every process has read its results here, the main one moves nothing away
    with whole_weights(model, session.world) as whole:
        if session.world.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            ends = tokenizer.special(IM_END)
            save_model(folder, whole, token_ids={"eos_token_id": ends, "pad_token_id": tokenizer.special(END_OF_TEXT)})
            tokenizer.save(folder, chat_template=chat_template)
            if model.lora is not None:
                beside.mkdir(exist_ok=True)
                save_adapter(beside, model)
            settings = place.stage.settings
            if isinstance(settings, TrainingSettings) and settings.keep_checkpoints == 0:
                # Into what the commit deletes; until then a killed walk still finds them there.
                (place.work / CHECKPOINTS_FOLDER).rename(place.scratch / CHECKPOINTS_FOLDER)


def unkept_problem(settings: TrainingSettings, checkpoint: str, steps: int | None) -> str:
    """'' or why a stage of these settings will not have a checkpoint ("100", "best") at its end, with the fix.

    steps: how many it trains, None where that is not certain yet.
    """
    if settings.keep_checkpoints == 0:
        return "it keeps no checkpoint (keep_checkpoints = 0); let it keep some, or leave the checkpoint out"
    if checkpoint == "best" and settings.keep_best is None:
        return 'it keeps no best checkpoint; give it keep_best = "bpb", or another measure'
    if not checkpoint.isdigit() or steps is None:
        return ""
    wanted = int(checkpoint)
    if not 0 < wanted <= steps:
        return f"it ends after {steps:,} steps"
    protected = {step for step in settings.protect if 0 < step <= steps}
    every, count = settings.save_every, max(2, settings.keep_checkpoints)
    regular = range(steps - steps % every, 0, -every)[:count]
    kept = protected.union(sorted({*regular, *protected, steps})[-count:])
    could_be_best = settings.keep_best is not None and wanted % every == 0
    if wanted in kept or could_be_best:
        return ""
    listed = ", ".join(f"@{step}" for step in sorted(kept))
    return f"at its end it keeps {listed}; write protect = [{wanted}] there, which keeps that one besides"


def training_checkpoints(settings: TrainingSettings, place: Place, session: Session) -> Checkpoints:
    """The checkpoints of a stage, in its folder, kept as its settings say."""
    from gradus.train.checkpoint import Checkpoints

    aside = place.scratch / CHECKPOINTS_FOLDER
    if session.world.is_main and aside.is_dir():
        aside.rename(place.work / CHECKPOINTS_FOLDER)
    session.world.all_agree(True)
    # A folder of another fingerprint is refused by its identity.
    return Checkpoints(
        place.work / CHECKPOINTS_FOLDER,
        keep=settings.keep_checkpoints,
        identity=place.stage.fingerprint,
        protect=settings.protect,
        best_by=settings.keep_best,
        world=session.world,
        background=place.machine.background_saving,
    )


def training_reports(
    model: Transformer,
    batches: Callable[[int], Sequence[Batch]],
    loss: Loss,
    steps: int,
    settings: TrainingSettings,
    place: Place,
    session: Session,
    checkpoints: Checkpoints,
    parent: ModelReference | None,
    *,
    on_policy: bool = False,
    data_stride: int = 1,
) -> Iterator[StepReport]:
    """`fit` with the stage's settings: its optimizer, schedule, guard, boundaries.

    parent: the model that the stage began from, whose optimizer state a warm start takes over. The batches of the next
    steps are made ready in the background. on_policy: each step's are made with its own weights, and are ready.
    data_stride: so many data steps belong together, as `fit` has it.
    """
    from gradus.data.prefetch import Prefetch
    from gradus.train.loop import fit
    from gradus.train.optimizers import build_optimizer
    from gradus.train.precision import compute_dtype
    from gradus.train.profiling import SIGNAL_STEPS, StepProfiler, on_signal
    from gradus.train.schedule import Schedule

    asked = place.machine.profile
    wanted = compute_dtype(place.machine.precision, session.device)
    if (away := session.distance_to_host(model.config, wanted, settings.optimizer)) is not None:
        place.progress.line(f"  the GPU's gradients are the processor's within {away:.1g} (two layers of this width)")
    profiler = StepProfiler(
        place.home / "profiles" / f"{place.stage.name}-{place.stage.fingerprint[:8]}",
        round(asked.value) if asked else SIGNAL_STEPS,
        at_once=asked is not None and session.world.is_main,
        device=session.device,
        say=place.progress.line,
    )
    optimizer = build_optimizer(model, settings.optimizer, session.world)
    if settings.optimizer.state == "warm":
        carry_over(optimizer, parent, place)
    made = partial(_sampled if on_policy else _ready, batches, session.device)
    ready = nullcontext(made) if on_policy else Prefetch(made)
    with ready as ahead, checkpoints, on_signal(profiler):
        try:
            for report in fit(
                model,
                optimizer,
                profiler.watched(ahead),
                loss,
                Schedule(settings.schedule, steps),
                steps=steps,
                checkpoints=checkpoints,
                log_every=settings.log_every,
                save_every=settings.save_every,
                save_at=settings.protect,
                evaluate_every=settings.evaluate_every,
                precision=place.machine.precision,
                guard=settings.guard,
                world=session.world,
                data_stride=data_stride,
            ):
                if report.resumed and model.compute_dtype != wanted:
                    place.progress.line(_other_precision(model.compute_dtype, wanted))
                yield report
        finally:
            profiler.end()


def _other_precision(kept: torch.dtype, wanted: torch.dtype) -> str:
    """What is said where a stage that was begun in one precision would now be given another."""
    names = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    begun, asked = (names[str(dtype).removeprefix("torch.")] for dtype in (kept, wanted))
    return (
        f"  note: this stage was begun in {begun} and goes on in it, not in {asked}: precision is decided at a stage's "
        "first step; give the stage another seed to begin it anew"
    )


def _ready(batches: Callable[[int], Sequence[Batch]], device: torch.device, step: int) -> Sequence[Batch]:
    """A step's batches as the device takes them best.

    Errors: TrainingError where chips of a TPU would not have as many rows each, or a Mac's GPU would sum over more
    tokens than it can.
    """
    from gradus.model.sharing import share_prefixes

    made = [share_prefixes(batch, device) for batch in batches(step)]
    if device.type == "xla":
        _check_even(made)
    elif device.type == "mps":
        _check_short(made)
    # From page-locked memory a GPU takes them without the host waiting.
    return [batch.pinned() for batch in made] if device.type == "cuda" else made


def _sampled(batches: Callable[[int], Sequence[Batch]], device: torch.device, step: int) -> Sequence[Batch]:
    """A step's batches that are ready, and on the device. Errors: as of `_ready` on a Mac's GPU."""
    made = batches(step)
    if device.type == "mps":
        _check_short(made)
    return made


def _check_short(batches: Sequence[Batch]) -> None:
    from gradus.model.mps import LONGEST_SUM

    for batch in batches:
        if (tokens := batch.tokens.shape[0]) > LONGEST_SUM:
            raise TrainingError(
                f'[machine] device = "mps": products of torch can be wrong over more than {LONGEST_SUM:,} tokens, and '
                f"a micro-batch here has {tokens:,}; set micro_rows, micro_pairs or micro_samples lower: a step is "
                "the same in more of them"
            )


def _check_even(batches: Sequence[Batch]) -> None:
    from gradus.model.xla import num_devices

    for batch in batches:
        rows = batch.tokens.shape[0] // (batch.documents.row_length or 1)
        if rows % num_devices():
            raise TrainingError(
                f'[machine] device = "xla": a micro-batch of {rows} rows cannot be shared evenly by {num_devices()} '
                "chips; choose micro_rows, and batch_tokens in rows, as multiples of that"
            )
