"""Stage `grpo`: a chat model learns from its own answers by rewards that can be verified, by the same training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from gradus.core.artifact import Artifact
from gradus.core.errors import ConfigError, DataError, did_you_mean
from gradus.core.files import expand_path
from gradus.core.settings import Problem
from gradus.core.settings import Settings as Table
from gradus.core.temperature import DrawingTemperature
from gradus.data.sources import SyntheticSource, source_digest
from gradus.data.synthetic.config import CATEGORIES
from gradus.model.config import LoraSettings, ModelConfig
from gradus.model.cost import parameters
from gradus.posttrain.rewards import Reward
from gradus.roadmap.decoding import ANSWER_TOKENS, decoding_estimate
from gradus.roadmap.estimate import training_estimate
from gradus.roadmap.lineage import refuse_warm
from gradus.roadmap.metering import Meter
from gradus.roadmap.metrics import Evaluation, StepLines
from gradus.roadmap.models import input_model
from gradus.roadmap.place import Place
from gradus.roadmap.session import Session, training_session
from gradus.roadmap.sources import file_sources
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, SourceError, Stage
from gradus.roadmap.training import (
    SMOKE_STEPS,
    TrainingSettings,
    follow,
    save_final_model,
    training_checkpoints,
    training_reports,
    training_results,
)
from gradus.train.config import OptimizerSettings, ScheduleSettings

if TYPE_CHECKING:
    from gradus.engine.engine import Engine
    from gradus.model.batch import Batch
    from gradus.posttrain.rollouts import Rollouts, RolloutSettings, Sample, Source
    from gradus.posttrain.tasks import Task
    from gradus.train.loop import StepReport

VERSION = 1
MAKES = "grpo"
FILES, SYNTHETIC = "files", "synthetic"
INPUTS = (
    Input("from", ("sft", "dpo", "grpo", "import")),
    Input("prompts[].source", ("pool",), outside=(FILES, SYNTHETIC)),
)
PARALLEL = True
ROLLOUTS = "rollouts.jsonl"
PROMPT_TOKENS = 100  # for plans
SAMPLES_SHOWN = 4
ROLLOUTS_JUDGED = 3  # before a word on what teaches nothing
GENERATED_TASKS = 2000  # of a synthetic source whose author does not say


class Prompts(Table):
    """Tasks of one source and how answers to them are judged.

    source: a pool's name; "files:PATH", JSON lines with tasks; or "synthetic:CATEGORY", of the offline generators.
    rewards: at least one, added up by weight. max_rows: at most so many tasks, evenly spread. think, tools: None leaves
    them as the source has them; tools = [] asks without any.
    """

    source: str
    rewards: tuple[Reward, ...] = Field(min_length=1)
    max_rows: int | None = Field(default=None, ge=1)
    think: bool | None = None
    tools: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _kinds_differ(self) -> Self:
        kinds = [reward.kind for reward in self.rewards]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(f'reward "{kind}" is given twice')
        return self


class Settings(TrainingSettings):
    """steps: updates. prompts_per_step, group_size: prompts of a rollout and answers to each. inner_epochs: updates
    with the same rollout. micro_samples: answers in one forward pass; they take the place of tokens and rows.

    epsilon_low, epsilon_high, kl_beta, denominator: of the loss (posttrain/grpo.py); truncated, advantage_scale: of
    answers that a limit cut off, and of groups (posttrain/rollouts.py). temperature: at which answers are drawn, and
    of the probabilities that training compares. evaluate_prompts: held-back tasks of each pool and generator.
    lora: train adapters instead of the weights, as in `sft`.
    """

    prompts: tuple[Prompts, ...] = Field(min_length=1)
    steps: int = Field(default=100, ge=1)
    prompts_per_step: int = Field(default=16, ge=1)
    group_size: int = Field(default=8, ge=2)
    inner_epochs: int = Field(default=1, ge=1)
    micro_samples: int = Field(default=32, ge=1)
    temperature: DrawingTemperature = 1.0
    max_tokens: int = Field(default=256, ge=1)
    max_calls: int = Field(default=4, ge=0)
    epsilon_low: float = Field(default=0.2, gt=0.0, lt=1.0)
    epsilon_high: float = Field(default=0.28, gt=0.0)
    kl_beta: float = Field(default=0.0, ge=0.0)
    advantage_scale: Literal["std", "none"] = "std"
    denominator: Literal["tokens", "constant"] = "tokens"
    truncated: Literal["mask", "penalise"] = "mask"
    evaluate_prompts: int = Field(default=64, ge=0)
    lora: LoraSettings | None = None
    evaluate_every: int = Field(default=25, ge=1)
    save_every: int = Field(default=25, ge=1)
    log_every: int = Field(default=5, ge=1)
    # AdamW for all: Muon makes every step one of full size, however little a rollout says.
    optimizer: OptimizerSettings = OptimizerSettings(
        matrix="adamw", matrix_lr=1e-4, embed_lr=1e-4, head_lr=1e-4, vector_lr=1e-4, beta1=0.9, beta2=0.95
    )
    schedule: ScheduleSettings = ScheduleSettings(kind="wsd", warmup_fraction=0.05, decay_fraction=0.2)

    @model_validator(mode="after")
    def _checkpoints_lie_between_rollouts(self) -> Self:
        if self.save_every % self.inner_epochs:
            raise ValueError(
                f"save_every must be a multiple of inner_epochs ({self.inner_epochs}), found {self.save_every}: a "
                "checkpoint inside a rollout could not be resumed to the same result"
            )
        if between := [step for step in self.protect if step % self.inner_epochs]:
            raise ValueError(f"protect must hold multiples of inner_epochs ({self.inner_epochs}), found {between[0]}")
        return self

    def smoke(self) -> Self:
        """A few steps with few and short answers."""
        every = self.inner_epochs * max(1, 6 // self.inner_epochs)
        return self.model_copy(
            update={
                "steps": min(self.steps, SMOKE_STEPS),
                "prompts_per_step": min(self.prompts_per_step, 4),
                "group_size": min(self.group_size, 4),
                "max_tokens": min(self.max_tokens, 48),
                "evaluate_prompts": min(self.evaluate_prompts, 8),
                "log_every": 2,
                "save_every": every,
                "evaluate_every": 6,
            }
        )

    def smoke_of(self, processes: int) -> Self:
        """With a prompt for each process, where the real one has that."""
        small = super().smoke_of(processes)
        prompts = min(self.prompts_per_step, processes)
        return small.model_copy(update={"prompts_per_step": max(small.prompts_per_step, prompts)})

    def rollout_settings(self, seed: int) -> RolloutSettings:
        """Those of rollouts."""
        from gradus.posttrain.rollouts import RolloutSettings

        same = ("group_size", "micro_samples", "temperature", "max_tokens", "max_calls", "truncated", "advantage_scale")
        return RolloutSettings(
            prompts_per_rollout=self.prompts_per_step, seed=seed, **{name: getattr(self, name) for name in same}
        )


def sources(settings: Settings, roadmap_dir: Path) -> dict[str, str]:
    """Files of tasks, read once to report what is wrong with them before the walk; the generators' code."""
    from gradus.posttrain.tasks import load_tasks

    problems: list[Problem] = []
    named = []
    found: dict[str, str] = {}
    for index, entry in enumerate(settings.prompts):
        place, key = _outside(entry.source), ("prompts", index, "source")
        if place == FILES:
            named.append((key, entry.source.partition(":")[2]))
        elif place == SYNTHETIC:
            category = entry.source.partition(":")[2]
            if category not in CATEGORIES:
                known = ", ".join(CATEGORIES)
                problems.append(
                    Problem(
                        key, f'unknown generator "{category}"; known are {known}{did_you_mean(category, CATEGORIES)}'
                    )
                )
            found["generators"] = source_digest(SyntheticSource(name="conversations", documents=1), roadmap_dir)
    found |= file_sources(named, roadmap_dir)
    for key, path in named:
        try:
            load_tasks(expand_path(path, roadmap_dir), path)
        except ConfigError as error:
            problems.append(Problem(key, str(error)))
    if problems:
        raise SourceError(problems)
    return found


def _outside(source: str) -> str | None:
    """Which kind of source this is besides a stage's pool; None for that."""
    prefix = source.partition(":")[0]
    return prefix if ":" in source and prefix in (FILES, SYNTHETIC) else None


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """Answers are sampled, then pass the model once forward, the reference once, and the updates."""
    refuse_warm(settings.optimizer, inputs.one("from"), settings.lora)
    parent = inputs.one("from").get("model")
    if parent is None:
        return Estimate(steps=settings.steps, notes=("the model is not known yet",))
    config = ModelConfig(**parent)
    answers = settings.prompts_per_step * settings.group_size
    answer_tokens = min(ANSWER_TOKENS, settings.max_tokens)
    sampled = settings.steps / settings.inner_epochs * answers * answer_tokens
    sized = settings.model_copy(
        update={"batch_tokens": answers * (PROMPT_TOKENS + answer_tokens), "micro_rows": settings.micro_samples}
    )
    row_length = PROMPT_TOKENS + answer_tokens
    training = training_estimate(
        config, settings.steps, sized, row_length, device, kind=stage.kind, mean_context=row_length / 2,
        head_fraction=answer_tokens / row_length,
        shared_fraction=PROMPT_TOKENS / row_length * (1 - 1 / min(settings.group_size, settings.micro_samples)),
        evaluated_tokens=2 * settings.steps * sized.batch_tokens,
        lora=settings.lora,
    )  # fmt: skip
    decoding = decoding_estimate(config, sampled, device, {})
    memory = dict(training.memory) | {"reference": 4.0 * parameters(config).total, "cache": decoding.memory["cache"]}
    return replace(
        training,
        seconds=(training.seconds or 0.0) + (decoding.seconds or 0.0),
        flops=round((training.flops or 0) + (decoding.flops or 0)),
        mfu=None,
        memory_bytes=sum(memory.values()),
        memory=memory,
    )


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Load the model twice, as what is trained and as the reference; roll out, compare, train."""
    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.engine.engine import Engine
    from gradus.model.weights import load_model
    from gradus.posttrain.grpo import GRPOSettings, grpo_loss
    from gradus.posttrain.rollouts import Rollouts, Source
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.tools.toolbox import ToolBox
    from gradus.train.precision import compute_dtype

    settings: Settings = stage.settings
    if settings.prompts_per_step < place.world_size:
        raise DataError(
            f"prompts_per_step = {settings.prompts_per_step} cannot be shared by {place.world_size} processes; "
            "ask more prompts a step or start fewer processes"
        )
    parent = input_model(stage, inputs)
    tokenizer = load_tokenizer(parent.tokenizer)
    form = HermesFormat(tokenizer)
    trained = [Source(_tasks(e, stage, inputs, place, "train"), e.rewards) for e in settings.prompts]
    held_back = [Source(_tasks(e, stage, inputs, place, "validation"), e.rewards) for e in settings.prompts]
    for source in trained:
        _check(source, settings)
    with training_session(place) as session:
        model, reference = (
            load_model(parent.folder, session.device, prepare=session.prepare, lora=lora, seed=stage.seed)
            for lora in (settings.lora, None)
        )
        for each in (model, reference):
            each.compute_dtype = compute_dtype(place.machine.precision, session.device)
        reference.requires_grad_(False)
        engine = Engine(model, tokenizer, form, ToolBox())
        rollouts = Rollouts(engine, reference, trained, settings.rollout_settings(stage.seed), session.world)
        batches = _OnPolicy(rollouts, settings, place)
        loss = grpo_loss(
            GRPOSettings(
                epsilon_low=settings.epsilon_low,
                epsilon_high=settings.epsilon_high,
                kl_beta=settings.kl_beta,
                denominator=settings.denominator,
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
            )
        )
        kept = training_checkpoints(settings, place, session)
        reports = training_reports(
            model, batches, loss, settings.steps, settings, place, session, kept, parent, on_policy=True,
            data_stride=settings.inner_epochs,
        )  # fmt: skip
        meter = _RolloutMeter(place, model, (PROMPT_TOKENS + ANSWER_TOKENS) / 2, batches)
        evaluate = _evaluation(engine, held_back, settings, stage, session, batches)
        last = follow(reports, place, session, evaluate, kept, meter)
        results = training_results(place, last, model.config, meter) | dict(last.metrics) | batches.results()
        save_final_model(place, session, model, tokenizer, form.chat_template)
        return place.commit(results)


def _tasks(
    entry: Prompts, stage: Stage, inputs: Inputs, place: Place, split: Literal["train", "validation"]
) -> list[Task]:
    """The tasks of one source, to train on or held back; files hold nothing back."""
    from gradus.data.pool import read_pool
    from gradus.eval.tasks import spread_items
    from gradus.posttrain.tasks import load_tasks, tasks_from_generator, tasks_from_pool, with_switches

    settings: Settings = stage.settings
    kind, name = _outside(entry.source), entry.source.partition(":")[2]
    at_most = entry.max_rows if split == "train" else settings.evaluate_prompts
    if at_most == 0 or (split == "validation" and kind == FILES):
        return []
    if kind == FILES:
        loaded = load_tasks(expand_path(name, place.roadmap_dir), entry.source)
        found = spread_items(lambda: loaded, at_most)
    elif kind == SYNTHETIC:
        side: Literal["train", "probe"] = "train" if split == "train" else "probe"
        found = list(tasks_from_generator(name, at_most or GENERATED_TASKS, stage.seed, side))
    else:
        pool = inputs.named(entry.source).path
        # Evenly spread, so that every kind of row is asked.
        found = spread_items(lambda: tasks_from_pool(read_pool(pool, split), entry.source), at_most)
    return [with_switches(task, entry.think, entry.tools) for task in found]


def _check(source: Source, settings: Settings) -> None:
    """Refuse what cannot be judged before anything is sampled."""
    from gradus.posttrain.rewards import check_tasks
    from gradus.tools.sandbox import require_sandbox

    if not source.tasks:
        raise DataError("a source of prompts holds no row that ends with an answer; there is nothing to ask")
    check_tasks(source.rewards, source.tasks)
    if any(reward.kind == "code" for reward in source.rewards):
        require_sandbox()


class _OnPolicy:
    """`batches(step)` for `fit`: a rollout by the weights of that step, used for as many steps as inner epochs.

    Every rollout is one line of rollouts.jsonl. What a killed run wrote past its checkpoint is cut off first.
    """

    def __init__(self, rollouts: Rollouts, settings: Settings, place: Place) -> None:
        self._rollouts, self._settings = rollouts, settings
        self._lines = StepLines(place.work / ROLLOUTS) if rollouts.world.is_main else None
        self._say = place.progress.line
        self._number: int | None = None
        self._batches: list[Batch] = []
        self._pending: list[Mapping[str, Any]] = []  # lines since the last logged step
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_SHOWN)

    def __call__(self, step: int) -> list[Batch]:
        number = step // self._settings.inner_epochs
        if self._number is None:
            self._begin(step)
        if number != self._number:
            rollout = self._rollouts.rollout(number)
            if not rollout.sums["groups"]:
                raise DataError(
                    "no prompt of a rollout leaves room for an answer in the model's context; ask shorter questions, "
                    "or extend the model's context first"
                )
            self._number, self._batches = number, rollout.batches
            self._note(step, number, rollout.sums, rollout.samples)
        return self._batches

    def figures(self) -> dict[str, float]:
        """Means over the rollouts since this was asked last."""
        lines, self._pending = self._pending, []
        names = dict.fromkeys(name for line in lines for name in line if name not in ("step", "rollout", "counts"))
        found = {name: [line[name] for line in lines if name in line] for name in names}
        return {name: sum(values) / len(values) for name, values in found.items()}

    def results(self) -> dict[str, Any]:
        """The figures of the last rollout, and what all counted. Of other processes than the first: nothing."""
        lines = self._lines.lines() if self._lines is not None else []
        if not lines:
            return {}
        last = {name: value for name, value in lines[-1].items() if name not in ("step", "rollout", "counts")}
        counts: dict[str, int] = {}
        for line in lines:
            for name, value in line["counts"].items():
                counts[name] = counts.get(name, 0) + value
        by_kind: dict[str, dict[str, float]] = {}
        for name, value in last.items():
            measure, found, kind = name.partition("/")
            if found:
                by_kind.setdefault(kind, {})[measure] = value
        whole = {name: value for name, value in last.items() if "/" not in name}
        return {"last_rollout": whole, "by_reward": by_kind, "counts": counts, "rollouts": len(lines)}

    def _begin(self, step: int) -> None:
        if self._lines is not None:
            self._lines.cut_after(step)
            logged = step - step % self._settings.log_every
            self._pending = [line for line in self._lines.lines() if line["step"] > logged]

    def _note(self, step: int, number: int, sums: dict[str, float], samples: list[Sample]) -> None:
        from gradus.posttrain.rollouts import rollout_counts, rollout_figures

        if self._lines is None:
            return
        line = {"step": step + 1, "rollout": number, **rollout_figures(sums), "counts": rollout_counts(sums)}
        self._lines.append(**line)
        self._pending.append(line)
        if number == ROLLOUTS_JUDGED - 1:
            self._warn_of_idle_rollouts()
        self.samples.extend(samples[:: max(1, len(samples) // SAMPLES_SHOWN)][:SAMPLES_SHOWN])

    def _warn_of_idle_rollouts(self) -> None:
        """Say so where the first rollouts taught nothing: every group earned alike."""
        assert self._lines is not None
        lines = self._lines.lines()
        if all(line["counts"]["same_reward"] == line["counts"]["groups"] for line in lines):
            share = sum(line["pass_rate"] for line in lines) / len(lines)
            self._say(
                f"  warning: the answers to each prompt of the first {len(lines)} rollouts earned the same "
                f"({share:.0%} pass): these tasks teach this model nothing; take easier ones, or harder where all pass"
            )


class _RolloutMeter(Meter):
    """A logged line tells besides what the rollouts since the last one earned."""

    def __init__(self, place: Place, model: Any, mean_context: float, batches: _OnPolicy) -> None:
        super().__init__(place, model, mean_context)
        self._batches = batches

    def figures(self, report: StepReport) -> dict[str, float]:
        return super().figures(report) | self._batches.figures()


def _evaluation(
    engine: Engine, held_back: list[Source], settings: Settings, stage: Stage, session: Session, batches: _OnPolicy
) -> Any:
    """What happens at an evaluation: the likeliest answers to held-back tasks are judged, and a few answers shown."""
    from gradus.posttrain.rollouts import evaluate_tasks, sample_line
    from gradus.train.sharding import whole_weights

    def evaluate() -> Evaluation:
        with whole_weights(engine.model, session.world):
            if not session.world.is_main:
                return Evaluation({})
            judged: list[Sample] = []
            measures = evaluate_tasks(engine, held_back, settings.rollout_settings(stage.seed), judged.append)
        shown = [*judged[:: max(1, len(judged) // SAMPLES_SHOWN)][:SAMPLES_SHOWN], *batches.samples]
        return Evaluation(measures, [sample_line(sample) for sample in shown])

    return evaluate
