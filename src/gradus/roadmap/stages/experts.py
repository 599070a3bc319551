"""Stage `experts`: a mixture of experts trained one expert after the other, then merged.

While expert i trains, every token goes through it at weight 1, so that the model is a dense one with its feed-forward:
memory and time of a step are those of one expert. Each goes on in the data where the one before ended. What is left is
the trunk and every expert in files of their own (model/expert_files.py), and in model/ all of them behind fresh
routers, which have to learn who is asked: `pretrain` with `from` this stage does so, with balance, and is held to what
the best expert reached alone. bpb of the results is that expert's, behind the trunk as it is at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from gradus.core.artifact import Artifact
from gradus.core.files import write_atomic
from gradus.core.quantity import format_count
from gradus.model.config import ModelConfig, model_config, toy_model
from gradus.roadmap.estimate import steps_of
from gradus.roadmap.lineage import refuse_warm
from gradus.roadmap.metering import Meter
from gradus.roadmap.metrics import Evaluation
from gradus.roadmap.place import Place
from gradus.roadmap.session import Session, training_session
from gradus.roadmap.stage import Device, Estimate, Expected, Input, Inputs, Stage
from gradus.roadmap.stages.pretrain import BOOKMARK, TextSettings, document_evaluation, text_estimate
from gradus.roadmap.training import follow, save_final_model, training_reports, training_results

if TYPE_CHECKING:
    import torch

    from gradus.data.loader import RowLoader
    from gradus.model.batch import Batch
    from gradus.model.transformer import Transformer
    from gradus.tokenizer.tokenizer import Tokenizer
    from gradus.train.loop import StepReport

VERSION = 1
MAKES = "experts"
INPUTS = (Input("tokens", ("tokens",)),)
PARALLEL = True
_DONE = "experts-done.json"
_SEED_STEP = 7919  # between the seeds of two experts' fresh weights


class Settings(TextSettings):
    """model: a dial, a preset or a table with num_experts. horizon: of each expert.

    trunk: what experts share is trained on by every expert in turn ("train"), or by the first alone ("freeze").
    """

    model: str | dict[str, Any] = "mac_nano"
    trunk: Literal["train", "freeze"] = "train"

    @model_validator(mode="after")
    def _every_expert_stands_for_itself(self) -> Self:
        if self.keep_best is not None or self.protect or self.keep_checkpoints == 0:
            raise ValueError(
                "keep_best, protect, keep_checkpoints = 0: checkpoints of single experts are for resuming alone, and "
                "go at the end; leave them out"
            )
        if self.scaling is not None:
            raise ValueError(
                "scaling: the horizon law is not known for experts trained one after the other; leave it out"
            )
        if self.optimizer.state == "warm":
            raise ValueError('optimizer = "warm": every expert begins with fresh weights, and so does its optimizer')
        return self

    def smoke(self) -> Self:
        """Two layers, narrow, as many experts."""
        return super().smoke().model_copy(update={"model": toy_model(self.model)})


def sources(settings: Settings, roadmap_dir: object) -> dict[str, str]:
    """Everything comes from other stages."""
    return {}


def plan(settings: Settings, inputs: Expected, device: Device, stage: Stage) -> Estimate:
    """As so many dense pretraining stages. Errors: ConfigError for a model whose experts cannot be trained alone."""
    from gradus.model.expert_files import single_expert_config

    refuse_warm(settings.optimizer, {})
    tokens = inputs.one("tokens")
    config = model_config(settings.model, int(tokens.get("vocab_size", 8192)), settings.context)
    one = text_estimate(single_expert_config(config), settings, tokens, device, stage.kind)
    count = config.num_experts or 1
    times: dict[str, Any] = {key: getattr(one, key) * count for key in ("seconds", "steps", "tokens", "flops")}
    facts = {"model": config.model_dump(mode="json")}
    return replace(one, **times, facts=facts, notes=(f"{count} experts, one after the other",))


@dataclass
class _Work:
    """What every expert's training is given. model: the one that trains now, which evaluation looks at."""

    stage: Stage
    place: Place
    session: Session
    tokenizer: Tokenizer
    config: ModelConfig
    loader: RowLoader
    steps: int
    model: Transformer

    @property
    def settings(self) -> Settings:
        found: Settings = self.stage.settings
        return found

    @property
    def count(self) -> int:
        assert self.config.num_experts is not None
        return self.config.num_experts


def run(stage: Stage, inputs: Inputs, place: Place) -> Artifact:
    """Train every expert to its horizon, measure each behind the last trunk, merge."""
    from gradus.conversation.formats.hermes import HermesFormat
    from gradus.data.loader import RowLoader
    from gradus.data.plans import Packing, ShardPlans
    from gradus.data.shards import TokenStore
    from gradus.model.expert_files import merged_model, single_expert_config
    from gradus.tokenizer.loading import load_tokenizer
    from gradus.train.precision import compute_dtype

    settings: Settings = stage.settings
    source = inputs["tokens"]
    store = TokenStore(source.path, "train", settings.generation)
    tokenizer = load_tokenizer(source.path / "tokenizer")
    packed = ShardPlans(
        store,
        Packing(settings.context, settings.packing, by_source=settings.weights is not None),
        place.scratch / "plans",
    )
    config = model_config(settings.model, tokenizer.vocab_size, settings.context)
    alone = single_expert_config(config)
    with training_session(place) as session:
        loader = RowLoader(
            store,
            packed,
            seed=stage.seed,
            rows_per_step=settings.rows_of_step(settings.context),
            micro_rows=settings.micro_rows,
            rank=session.world.rank,
            world=session.world.size,
            weights=settings.weights,
        )
        step_tokens, seen = settings.step_tokens(settings.context), packed.mean_context
        steps = steps_of(settings.horizon, step_tokens, alone, store.num_tokens, seen)
        model = _fresh(alone, stage.seed, session)
        model.compute_dtype = compute_dtype(place.machine.precision, session.device)
        meter = Meter(place, model, packed.mean_context)
        work = _Work(stage, place, session, tokenizer, config, loader, steps, model)
        evaluate = _evaluation(work, source)
        last = follow(_all_reports(work), place, session, evaluate, meter=meter)
        single = _every_expert(work, evaluate)
        generator = _generator(stage.seed)
        model = merged_model(place.work, config, generator, session.device, session.prepare)
        model.compute_dtype = work.model.compute_dtype
        results = training_results(place, last, config, meter)
        results |= {"experts": {str(i): {"bpb": bpb} for i, bpb in enumerate(single)}}
        results |= {"bpb": min(single), "best_expert": single.index(min(single)), "packing": packed.statistics()}
        save_final_model(place, session, model, tokenizer, HermesFormat(tokenizer).chat_template)
        if session.world.is_main:
            loader.bookmark(work.count * steps).write(place.work / BOOKMARK)
        return place.commit(results)


def _generator(seed: int) -> torch.Generator:
    """A generator of its own; torch is imported late."""
    import torch

    return torch.Generator().manual_seed(seed)


def _fresh(config: ModelConfig, seed: int, session: Session) -> Transformer:
    from gradus.model.transformer import build_model

    return build_model(config, _generator(seed), session.device, prepare=session.prepare)


def _evaluation(work: _Work, source: Artifact) -> Callable[[], Evaluation]:
    """Bits per byte and samples of the expert that trains now."""

    def evaluate() -> Evaluation:
        return document_evaluation(work.model, work.tokenizer, work.stage, source, work.session)()

    return evaluate


def _all_reports(work: _Work) -> Iterator[StepReport]:
    """Reports of all experts' training as of one run, whose steps go on from expert to expert."""
    from gradus.train.loop import saved_report

    file = work.place.scratch / _DONE
    done: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    before = replace(saved_report(done[-1]), resumed=True) if done else None
    if before is not None and len(done) == work.count:
        yield before
    for index in range(len(done), work.count):
        work.place.progress.line(f"  expert {index + 1} of {work.count}, {format_count(work.steps)} steps")
        _begin(work, index)
        earlier = saved_report(done[-1]) if done else None
        last: StepReport | None = None
        for report in _reports(work, index):
            if before is not None and not report.resumed:
                yield before  # so that the lines of the experts before are kept
            before = None
            last = _as_of_all(report, earlier, index * work.steps, work.count * work.steps)
            yield last
        assert last is not None, "fit reports its last step"
        done.append(asdict(last))
        _save(work, index, done)


def _as_of_all(report: StepReport, earlier: StepReport | None, first: int, steps: int) -> StepReport:
    """An expert's report as one of all experts' training. earlier: the last one so far; first: steps before its own."""
    moved = replace(
        report,
        step=report.step + first,
        steps=steps,
        data_step=report.data_step + first,
        # The step that was refused, the one returned to and the window of data move alike.
        passed_over=tuple(tuple(number + first for number in passed) for passed in report.passed_over),
    )
    if earlier is None:
        return moved
    return replace(
        moved,
        tokens=earlier.tokens + moved.tokens,
        computed=earlier.computed + moved.computed,
        skipped=earlier.skipped + moved.skipped,
        rollbacks=earlier.rollbacks + moved.rollbacks,
        passed_over=(*map(tuple, earlier.passed_over), *moved.passed_over),
    )


def _begin(work: _Work, index: int) -> None:
    """The model that trains next: the trunk as it is, and a fresh expert."""
    from gradus.model.expert_files import expert_parameters, load_shared

    if index:
        dtype = work.model.compute_dtype
        work.model = _fresh(work.model.config, work.stage.seed + index * _SEED_STEP, work.session)
        work.model.compute_dtype = dtype
        load_shared(work.place.work, work.model)
        if work.settings.trunk == "freeze":
            own = expert_parameters(work.model)
            for name, parameter in work.model.named_parameters():
                parameter.requires_grad_(name in own)


def _reports(work: _Work, index: int) -> Iterator[StepReport]:
    from gradus.train.checkpoint import Checkpoints
    from gradus.train.losses import next_token_loss

    place = work.place
    checkpoints = Checkpoints(
        place.scratch / f"checkpoints-{index}",
        keep=work.settings.keep_checkpoints,
        identity=f"{work.stage.fingerprint}/{index}",
        world=work.session.world,
        background=place.machine.background_saving,
    )
    batches = partial(_batches, work.loader, index * work.steps)
    return training_reports(
        work.model, batches, next_token_loss, work.steps, work.settings, place, work.session, checkpoints, None
    )


def _batches(loader: RowLoader, first: int, step: int) -> Sequence[Batch]:
    return loader.batches(first + step)


def _save(work: _Work, index: int, done: list[dict[str, Any]]) -> None:
    """Write the expert and the trunk, then that they are written; till then its checkpoint stays the truth."""
    from gradus.model.expert_files import save_expert, save_shared
    from gradus.train.sharding import whole_weights

    with whole_weights(work.model, work.session.world):
        if work.session.world.is_main:
            save_expert(work.place.work, index, work.model)
            if index == 0 or work.settings.trunk == "train":
                save_shared(work.place.work, work.model)
            write_atomic(work.place.scratch / _DONE, json.dumps(done))
    work.session.world.all_agree(True)  # the files are there


def _every_expert(work: _Work, evaluate: Callable[[], Evaluation]) -> list[float]:
    """Bits per byte of each expert behind the trunk as it is now."""
    from gradus.model.expert_files import load_expert, load_shared

    load_shared(work.place.work, work.model)
    found = []
    for index in range(work.count):
        load_expert(work.place.work, index, work.model)
        found.append(float(evaluate().measures["bpb"]))
        work.place.progress.line(f"  expert {index + 1} alone: {found[-1]:.4f} bits per byte")
    return found
