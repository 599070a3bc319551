"""`fit`, the training loop as a generator: it trains, saves and resumes; the caller evaluates and logs.

Everything that decides what happens next is a function of the global step and of what a checkpoint holds,
so a run that was killed anywhere continues as if nothing had happened, bit for bit on one machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gradus.core.errors import TrainingError
from gradus.model.batch import Batch
from gradus.model.mps import fitting, sum_dtype
from gradus.model.transformer import Transformer
from gradus.model.xla import placed, send_work
from gradus.train.checkpoint import Checkpoint, Checkpoints
from gradus.train.config import GuardSettings, Precision
from gradus.train.guard import Guard
from gradus.train.losses import Loss
from gradus.train.memory import keep_freed_memory
from gradus.train.optimizers import Optimizer
from gradus.train.parallel import World
from gradus.train.precision import LossScale, compute_dtype
from gradus.train.schedule import Schedule
from gradus.train.sharding import let_go
from gradus.train.step import StepResult, train_step


@dataclass(frozen=True)
class StepReport:
    """Where training stands after `step` of `steps`.

    loss: mean nats per counted item over the accepted steps since the last logged report, None if there was
    none; metrics: means over the same items. lr: the matrices' learning rate of this step. tokens: trained
    on so far by all ranks; computed: the same with tokens that documents share counted once. skipped: steps refused so
    far; rollbacks: returns to a checkpoint so far.
    logged, saved, evaluate: which boundaries this report stands at; resumed: it was reported before the run
    was interrupted. data_step: the data step that comes next, which rollbacks move on faster than steps.
    passed_over: of each rollback, the step that was refused last, the step returned to, and the data steps from and to
    (exclusive) that are not trained on again.
    """

    step: int
    steps: int
    loss: float | None
    metrics: dict[str, float]
    lr: float
    grad_norm: float
    tokens: int
    computed: int
    tokens_per_second: float
    skipped: int
    rollbacks: int
    logged: bool
    saved: bool
    evaluate: bool
    resumed: bool = False
    data_step: int = 0
    passed_over: Sequence[Sequence[int]] = ()


def saved_report(values: Mapping[str, Any]) -> StepReport:
    """A report from what `asdict` made of it, also before documents shared tokens: then all were computed."""
    return StepReport(**{"computed": values["tokens"], **values})


@dataclass
class _Tally:
    """Sums since the last logged report; tensors, so that adding to them waits for nothing."""

    device: torch.device
    loss_sum: Tensor = field(init=False)
    count: Tensor = field(init=False)
    metrics: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        kind = sum_dtype(self.device)
        self.loss_sum = torch.zeros((), dtype=kind, device=self.device)
        self.count = torch.zeros((), dtype=kind, device=self.device)
        self.metrics = {}

    def add(self, result: StepResult) -> None:
        zero = torch.zeros_like(self.loss_sum)
        self.loss_sum = self.loss_sum + torch.where(result.skipped, zero, result.loss_sum)
        self.count = self.count + torch.where(result.skipped, zero, result.count)
        for name, value in result.metrics.items():
            self.metrics[name] = self.metrics.get(name, zero) + torch.where(result.skipped, zero, value)

    def state(self) -> dict[str, Tensor]:
        metrics = {f"metrics/{name}": value for name, value in self.metrics.items()}
        return {"loss_sum": self.loss_sum, "count": self.count} | metrics

    def load_state(self, state: dict[str, Tensor]) -> None:
        moved = {name: value.to(self.device) for name, value in state.items()}
        self.loss_sum, self.count = moved.pop("loss_sum"), moved.pop("count")
        self.metrics = {name.removeprefix("metrics/"): value for name, value in moved.items()}


class _Run:
    """State of a run between steps: what a checkpoint holds besides weights and optimizer."""

    def __init__(
        self,
        model: Transformer,
        optimizer: Optimizer,
        checkpoints: Checkpoints | None,
        guard: GuardSettings,
        world: World,
        data_stride: int,
    ) -> None:
        self.data_stride = data_stride
        self.model = model
        self.optimizer = optimizer
        self.checkpoints = checkpoints
        self.world = world
        self.device = model.device
        self.guard = Guard(guard, self.device)
        self.tally = _Tally(self.device)
        self.tokens = torch.zeros((), dtype=torch.int64, device=self.device)
        self.computed = torch.zeros((), dtype=torch.int64, device=self.device)
        self.loss_scale: LossScale | None = None
        self.step = 0  # steps done
        self.data_offset = 0  # data windows passed over by rollbacks
        self.passed_over: list[Sequence[int]] = []  # as in StepReport, one of each rollback

    def compute_in(self, dtype: torch.dtype) -> None:
        """Settle the number format of the passes."""
        self.model.compute_dtype = dtype
        self.loss_scale = LossScale(self.device) if dtype == torch.float16 else None

    @property
    def rollbacks(self) -> int:
        return len(self.passed_over)

    def advance(self, micro_batches: Sequence[Batch], loss: Loss, lr_scale: float) -> StepResult:
        """Train one step and count it."""
        result = train_step(
            self.model,
            self.optimizer,
            micro_batches,
            loss,
            step=self.step,
            lr_scale=lr_scale,
            guard=self.guard,
            world=self.world,
            loss_scale=self.loss_scale,
        )
        self.step += 1
        self.tokens = self.tokens + result.tokens.long()
        self.computed = self.computed + result.computed.long()
        self.tally.add(result)
        if self.device.type == "xla":
            self.optimizer.zero_grad()  # what lives on would be kept as a result
            send_work(self.device)
        return result

    def save(self, report: StepReport) -> None:
        """Commit a checkpoint, on all ranks together."""
        if self.checkpoints is None:
            return
        state = {
            "step": self.step,
            "data_offset": self.data_offset,
            "passed_over": self.passed_over,
            "precision": str(self.model.compute_dtype).removeprefix("torch."),
            "report": asdict(report),
        }
        extra = {f"guard/{k}": v for k, v in self.guard.state().items()}
        extra |= {f"tally/{k}": v for k, v in self.tally.state().items()}
        if self.loss_scale is not None:
            extra |= {f"loss_scale/{k}": v for k, v in self.loss_scale.state().items()}
        extra["tokens"], extra["computed"] = self.tokens, self.computed
        self.checkpoints.save(self.step, self.model, self.optimizer, state, extra)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        let_go(self.model, self.world)
        checkpoint.load_weights(self.model)
        checkpoint.load_optimizer(self.optimizer)
        self.compute_in(getattr(torch, checkpoint.state["precision"]))
        saved = checkpoint.extra()
        saved |= {name: saved[name].long() for name in ("tokens", "computed") if name in saved}  # once float64
        extra = {name: placed(fitting(tensor, self.device), self.device) for name, tensor in saved.items()}
        if self.loss_scale is not None:
            self.loss_scale.load_state(_below("loss_scale/", extra))
        self.guard.load_state(_below("guard/", extra))
        self.tally.load_state(_below("tally/", extra))
        self.tokens = extra["tokens"]
        self.computed = extra.get("computed", self.tokens)
        self.step = checkpoint.state["step"]
        self.data_offset = checkpoint.state["data_offset"]
        self.passed_over = list(checkpoint.state.get("passed_over", ()))
        send_work(self.device)

    def roll_back(self) -> None:
        """Return to the last checkpoint and pass over the data since then.

        Raises TrainingError where there is none, or where that has not helped before.
        """
        settings = self.guard.settings
        story = (
            f"step {self.step}: {settings.skips_in_row} steps in a row were refused because their loss or "
            "gradient was not finite or far above the recent ones"
        )
        advice = "; lower the learning rates, or look at the data of these steps"
        checkpoint = self.checkpoints.latest() if self.checkpoints is not None else None
        if checkpoint is None:
            raise TrainingError(f"{story}, and there is no checkpoint to return to{advice}")
        if self.rollbacks >= settings.max_rollbacks:
            raise TrainingError(f"{story}, after {self.rollbacks} returns to a checkpoint{advice}")
        refused, reached = self.step, self.step + self.data_offset
        reached += -reached % self.data_stride
        before = self.passed_over
        self.restore(checkpoint)
        self.guard.forget_row()  # a checkpoint may have been saved among the refused steps
        begin = self.step + self.data_offset
        self.data_offset = reached - self.step
        self.passed_over = [*before, (refused, self.step, begin, reached)]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def fit(
    model: Transformer,
    optimizer: Optimizer,
    batches: Callable[[int], Sequence[Batch]],
    loss: Loss,
    schedule: Schedule,
    *,
    steps: int,
    checkpoints: Checkpoints | None,
    log_every: int,
    save_every: int | None = None,
    save_at: Collection[int] = (),
    evaluate_every: int | None = None,
    precision: Precision = "auto",
    guard: GuardSettings | None = None,
    world: World | None = None,
    data_stride: int = 1,
) -> Iterator[StepReport]:
    """Train to `steps`, from the newest checkpoint if there is one; yield at the boundaries asked for.

    batches: this rank's micro-batches for a data step, a pure function; a rollback moves it past the steps it
    refused. The last step is always logged, saved and evaluated. A resumed run first yields the report it was
    saved with (resumed=True), for the caller may have died before it acted on it. checkpoints None trains and
    writes nothing. save_at: further steps to save at. Checkpoints and optimizer know the same `world`. data_stride: a
    rollback goes on at a data step that is a multiple of it, where so many data steps belong together; save_every and
    save_at are such too.
    """
    keep_freed_memory()
    world = world or World()
    run = _Run(model, optimizer, checkpoints, guard or GuardSettings(), world, data_stride)
    checkpoint = checkpoints.latest() if checkpoints is not None else None
    if checkpoint is None:
        run.compute_in(compute_dtype(precision, run.device))
        send_work(run.device)
    else:
        run.restore(checkpoint)
        yield replace(saved_report(checkpoint.state["report"]), resumed=True)
    begin, begin_tokens = time.perf_counter(), float(run.tokens)
    while run.step < steps:
        micro_batches = [batch.to(run.device) for batch in batches(run.step + run.data_offset)]
        scale = schedule(run.step)
        result = run.advance(micro_batches, loss, scale)
        is_last = run.step == steps
        logged = is_last or run.step % log_every == 0
        # Reading the counter makes the host wait for a GPU, so there it is read when logging.
        if (logged or run.device.type == "cpu") and int(run.guard.skipped_in_row) >= run.guard.settings.skips_in_row:
            run.roll_back()
            begin, begin_tokens = time.perf_counter(), float(run.tokens)
            continue
        saved = is_last or run.step in save_at or (save_every is not None and run.step % save_every == 0)
        evaluate = is_last or (evaluate_every is not None and run.step % evaluate_every == 0)
        if not (logged or saved or evaluate):
            continue
        tokens = float(run.tokens)
        now = time.perf_counter()
        report = _report(run, result, steps, optimizer.lr * scale)
        report = replace(
            report,
            tokens_per_second=(tokens - begin_tokens) / (now - begin),
            logged=logged,
            saved=saved and checkpoints is not None,
            evaluate=evaluate,
        )
        if logged:
            run.tally.reset()
            send_work(run.device)
            begin_tokens = tokens
        if saved:
            run.save(report)
        yield report
        # What the caller did meanwhile is not training time.
        begin = time.perf_counter() if logged else begin + time.perf_counter() - now
    if checkpoints is not None:
        checkpoints.finish()


def _report(run: _Run, result: StepResult, steps: int, lr: float) -> StepReport:
    count = float(run.tally.count)
    return StepReport(
        step=run.step,
        steps=steps,
        loss=float(run.tally.loss_sum) / count if count else None,
        metrics={name: float(value) / count for name, value in run.tally.metrics.items()} if count else {},
        lr=lr,
        grad_norm=float(result.grad_norm),
        tokens=int(run.tokens),
        computed=int(run.computed),
        tokens_per_second=0.0,
        skipped=int(run.guard.skipped),
        rollbacks=run.rollbacks,
        logged=False,
        saved=False,
        evaluate=False,
        data_step=run.step + run.data_offset,
        passed_over=tuple(run.passed_over),
    )
