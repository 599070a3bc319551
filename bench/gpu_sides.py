"""One side of one measurement of bench/gpu.py, in a process of its own. Prints one line of JSON.

    python bench/gpu_sides.py SIDE JOB    SIDE: gradus, plain, trainer; JOB: JSON of `Job`

All sides train the same shape from fresh weights on the same random tokens, in rows of one document each, in bf16
(fp32 on a CPU), with the same number of tokens a step. What is each side's own: its model code, kernels, optimizer.
plain is the Hub's class for the shape, compiled as a whole, in a loop of a dozen lines with fused AdamW; trainer is
transformers' Trainer with its own defaults, compiled. Where memory runs out, rows of a micro-batch are halved.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from bench_record import peak_bytes
from torch import Tensor

from gradus.model.config import ModelConfig, model_config
from gradus.model.cost import flops_per_token, parameters
from gradus.model.hub import hub_config


@dataclasses.dataclass(frozen=True)
class ModelJob:
    """The model that is measured, and where."""

    model: str | dict[str, Any]
    vocab_size: int
    context: int
    device: str

    @property
    def config(self) -> ModelConfig:
        return model_config(self.model, vocab_size=self.vocab_size, context=self.context)

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32


@dataclasses.dataclass(frozen=True)
class Job(ModelJob):
    """Training. rows: of one step; micro_rows: of one pass; steps: in each of `windows` timed runs of steps.

    document_tokens: length of the documents in a row, None for one that fills it.
    """

    rows: int
    micro_rows: int
    steps: int
    windows: int
    compile: bool
    document_tokens: int | None = None


@dataclasses.dataclass
class Measured:
    """Seconds of each window, of the first steps (which load and compile), and of the optimizer alone in one step."""

    windows: list[float]
    first_seconds: float
    optimizer_seconds: float | None
    loss: float


def wait(job: ModelJob) -> None:
    """Until the GPU has done everything."""
    if job.device == "cuda":
        torch.cuda.synchronize()


def rows_of_step(job: Job, step: int) -> Tensor:
    """(rows, context + 1) int64 on the host: Markov chains over the vocabulary, so that there is something to learn."""
    generator = torch.Generator().manual_seed(step)
    shape = (job.rows, job.context + 1)
    strides = torch.randint(1, 4, shape, generator=generator)
    return strides.cumsum(1).add_(torch.randint(job.vocab_size, (job.rows, 1), generator=generator)) % job.vocab_size


def gradus_side(job: Job) -> Measured:
    """Ours, as the training stages run it: `fit`, batches made ahead in pinned memory."""
    from gradus.data.prefetch import Prefetch
    from gradus.model.batch import Batch, Documents
    from gradus.model.transformer import build_model
    from gradus.train.config import OptimizerSettings, ScheduleSettings
    from gradus.train.loop import fit
    from gradus.train.losses import next_token_loss
    from gradus.train.optimizers import build_optimizer
    from gradus.train.parallel import World
    from gradus.train.schedule import Schedule
    from gradus.train.sharding import prepare_model

    device = torch.device(job.device)
    each = job.document_tokens or job.context
    lengths = [each] * (job.context // each) + ([job.context % each] if job.context % each else [])

    def batches(step: int) -> list[Batch]:
        made = []
        for rows in rows_of_step(job, step).split(job.micro_rows):  # type: ignore[no-untyped-call]
            documents = Documents.of_lengths(lengths * len(rows))
            batch = Batch(rows[:, :-1].flatten(), rows[:, 1:].flatten(), documents)
            made.append(batch.pinned() if job.device == "cuda" else batch)
        return made

    model = build_model(
        job.config,
        torch.Generator().manual_seed(0),
        device,
        prepare=lambda model: prepare_model(model, World(), compile=job.compile),
    )
    optimizer = build_optimizer(model, OptimizerSettings())
    steps = job.steps * (job.windows + 1)
    with Prefetch(batches) as ahead:
        reports = fit(
            model,
            optimizer,
            ahead,
            next_token_loss,
            Schedule(ScheduleSettings(), steps),
            steps=steps,
            checkpoints=None,
            log_every=job.steps,
            precision="bf16" if job.device == "cuda" else "fp32",
        )
        first, *windows, loss = clocked(job, (report.loss or float("nan") for report in reports))
    skip, one = torch.zeros((), dtype=torch.bool, device=device), torch.ones((), device=device)
    optimizer.gradients()
    alone = timed(job, lambda: optimizer.step(0, 0.0, skip, one))
    return Measured(windows, first, alone, loss)


def clocked(job: Job, losses: Iterator[float]) -> list[float]:
    """Seconds until each loss arrives, and the last loss at the end."""
    found, last, began = [], float("nan"), time.perf_counter()
    for loss in losses:
        wait(job)
        now = time.perf_counter()
        found.append(now - began)
        last, began = loss, now
    return [*found, last]


def timed(job: Job, work: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of one call, after one to warm up."""
    work()
    wait(job)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    wait(job)
    return (time.perf_counter() - began) / repeats


def hub_model(job: ModelJob) -> Any:
    """The Hub's class for this shape with fresh fp32 weights on the device."""
    from transformers import AutoConfig, AutoModelForCausalLM

    table = hub_config(job.config)
    config = AutoConfig.for_model(table.pop("model_type"), **table)
    torch.manual_seed(0)
    with torch.device(job.device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]


def plain_side(job: Job) -> Measured:
    """What somebody who knows PyTorch writes in an afternoon."""
    import torch.nn.functional as F

    model = hub_model(job)
    net = torch.compile(model) if job.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    micro_batches = -(-job.rows // job.micro_rows)

    def losses() -> Iterator[float]:
        for step in range(job.steps * (job.windows + 1)):
            total = torch.zeros((), device=job.device)
            for rows in rows_of_step(job, step).split(job.micro_rows):  # type: ignore[no-untyped-call]
                rows = (rows.pin_memory() if job.device == "cuda" else rows).to(job.device, non_blocking=True)
                with torch.autocast(job.device, torch.bfloat16, enabled=job.dtype == torch.bfloat16):
                    logits = net(input_ids=rows[:, :-1], use_cache=False).logits
                loss = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten()) / micro_batches
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if (step + 1) % job.steps == 0:
                yield float(total)
            optimizer.zero_grad(set_to_none=(step + 1) < job.steps * (job.windows + 1))

    first, *windows, loss = clocked(job, losses())
    return Measured(windows, first, timed(job, optimizer.step), loss)


def trainer_side(job: Job) -> Measured:
    """transformers' Trainer; packed rows are ready made, so that its data loader has little to do."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % job.steps == 0:
                wait(job)
                marks.append(time.perf_counter())

    steps = job.steps * (job.windows + 1)
    rows = torch.cat([rows_of_step(job, step)[:, :-1] for step in range(steps)])
    data = [{"input_ids": row, "labels": row} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=job.micro_rows,
            gradient_accumulation_steps=-(-job.rows // job.micro_rows),
            bf16=job.dtype == torch.bfloat16,
            torch_compile=job.compile,
            use_cpu=job.device == "cpu",
            dataloader_drop_last=True,
            logging_steps=steps,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(model=hub_model(job), args=arguments, train_dataset=data, callbacks=[Clock()])
        began = time.perf_counter()
        loss = trainer.train().training_loss
    edges = [began, *marks]
    first, *windows = [end - start for start, end in itertools.pairwise(edges)]
    return Measured(windows, first, None, loss)


SIDES = {"gradus": gradus_side, "plain": plain_side, "trainer": trainer_side}


def measure(side: str, job: Job) -> dict[str, Any]:
    """Run a side, with fewer rows at a time where memory runs out. The figures by name, units in the names."""
    while True:
        try:
            found = SIDES[side](job)
            break
        except torch.OutOfMemoryError:
            if job.micro_rows == 1:
                raise
            micro_rows = job.micro_rows // 2
        # Outside of the handler, whose traceback holds on to the tensors.
        job = dataclasses.replace(job, micro_rows=micro_rows)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    config, count = job.config, parameters(job.config)
    step_seconds = min(found.windows) / job.steps
    rate = job.rows * job.context / step_seconds
    on_gpu = job.device == "cuda"
    return {
        "side": side,
        "tokens_per_second": rate,
        "step_seconds": step_seconds,
        "window_seconds": found.windows,
        "compile_seconds": max(0.0, found.first_seconds - min(found.windows)) if job.compile else None,
        "optimizer_seconds": found.optimizer_seconds,
        "optimizer_fraction": found.optimizer_seconds / step_seconds if found.optimizer_seconds is not None else None,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() if on_gpu else peak_bytes(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
        "loss": found.loss,
        "micro_rows": job.micro_rows,
        "parameters": count.total,
        "active_parameters": count.active,
        # Attention as far as a causal token sees, which is what is computed; and over the whole row, 6 N + 12 L d T, as
        # PaLM (appendix B) and nanochat count.
        "flops_per_second": rate
        * flops_per_token(config, (min(job.document_tokens or job.context, job.context) + 1) / 2),
        "flops_per_second_whole_rows": rate * flops_per_token(config, job.context),
    }


def main() -> None:
    """Run from the command line, by bench/gpu.py."""
    side, job = sys.argv[1], Job(**json.loads(sys.argv[2]))
    print(json.dumps(measure(side, job)))


if __name__ == "__main__":
    main()
