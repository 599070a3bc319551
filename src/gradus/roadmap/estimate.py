"""The plan of training stages: steps from a horizon, then FLOPs, time and memory. Torch-free."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from gradus.core.devices import CPU
from gradus.core.errors import ConfigError
from gradus.core.quantity import Quantity
from gradus.model.config import LoraSettings, ModelConfig
from gradus.model.cost import (
    STATE_BYTES,
    TrainingMemory,
    adapter_parameters,
    check_adapters,
    flops_of_shared,
    flops_per_token,
    multiplied_parameters,
    parameters,
    sharded_memory,
    training_memory,
)
from gradus.roadmap.horizon import horizon_steps
from gradus.roadmap.lineage import optimizer_facts
from gradus.roadmap.stage import Device, Estimate
from gradus.roadmap.training import TrainingSettings

# A small model on a GPU waits for its kernels to be launched: a layer's, forward and backward. Assumed, not measured.
GPU_LAYER_SECONDS = 1e-3
# Resident in the process of a walk that trains, before it has a model, and in each other one: mostly torch's libraries.
PROGRAM_BYTES = 6.7e8
WORKER_BYTES = 4.0e8
# Stages whose step is as many rows as batch_tokens hold.
_BY_TOKENS = frozenset({"pretrain", "midtrain", "extend", "experts", "sft"})


def steps_of(
    horizon: Quantity, batch_tokens: int, config: ModelConfig, epoch_tokens: float, mean_context: float
) -> int:
    """Optimizer steps for a horizon given in steps, tokens, epochs, FLOPs or tokens per parameter."""
    return horizon_steps(
        horizon,
        batch_tokens,
        parameters=multiplied_parameters(config),
        flops_per_token=flops_per_token(config, mean_context),
        epoch_tokens=epoch_tokens,
    )


def training_estimate(
    config: ModelConfig,
    steps: int,
    settings: TrainingSettings,
    row_length: int,
    device: Device,
    *,
    kind: str,
    mean_context: float,
    head_fraction: float = 1.0,
    shared_fraction: float = 0.0,
    evaluated_tokens: float = 0.0,
    lora: LoraSettings | None = None,
) -> Estimate:
    """The plan of a training stage.

    lora: adapters that are trained in place of the weights. Errors: ConfigError for a model that cannot have them, and
    for a step of fewer rows than there are processes.
    kind: whose measured rate counts. shared_fraction: tokens that need no computing since another document begins with
    them too. evaluated_tokens: of all its evaluations, which go through the model forward only.
    """
    if lora is not None:
        check_adapters(config, lora)
    rows = settings.rows_of_step(row_length)
    if kind in _BY_TOKENS and rows < device.processes:
        raise ConfigError(
            f'"batch_tokens": a step of {settings.batch_tokens:,} tokens has {rows} of the rows of {row_length:,}, '
            f"which {device.processes} processes cannot share; write batch_tokens = {device.processes * row_length} "
            "or more, or start fewer processes"
        )
    tokens = steps * settings.step_tokens(row_length)
    each = flops_per_token(config, mean_context, head_fraction) - shared_fraction * flops_of_shared(config)
    # Of the three products with a weight, that of its own gradient falls away where it is frozen.
    each *= 1.0 if lora is None else 2 / 3
    flops = tokens * each
    rate, overhead = device.training(kind, config.width)
    seconds = (flops + evaluated_tokens * each / 3) / rate
    on_cpu = device.name == CPU
    if not on_cpu:
        micro_batches = max(1.0, rows / device.processes / settings.micro_rows)
        seconds = max(seconds, steps * micro_batches * config.depth * GPU_LAYER_SECONDS)
    micro_tokens = min(settings.micro_rows * row_length, settings.step_tokens(row_length) // device.processes)
    memory = _memory_of_one(config, settings, micro_tokens, mean_context, device)
    if lora is not None:
        state = STATE_BYTES[settings.optimizer.rest]
        memory = _with_adapters(memory, adapter_parameters(config, lora), state, device)
    copies = device.processes if on_cpu else 1
    parts = {"program": PROGRAM_BYTES + (copies - 1) * WORKER_BYTES} if on_cpu else {}
    count = parameters(config)
    notes = (f"a token passes through {count.active:,} of {count.total:,} parameters",) if count.expert else ()
    parts |= {name: copies * float(size) for name, size in asdict(memory).items()}
    return Estimate(
        seconds=overhead + seconds,
        steps=steps,
        tokens=tokens,
        parameters=count.total,
        scaled_parameters=multiplied_parameters(config),
        flops=flops,
        mfu=flops / seconds / device.peak_flops if device.peak_flops else None,
        memory_bytes=sum(parts.values()),
        memory=parts,
        facts={"model": config.model_dump(mode="json"), "optimizer": _state_facts(settings), "lora": lora is not None},
        notes=notes,
    )


def _state_facts(settings: TrainingSettings) -> dict[str, Any] | None:
    """What the kept state of the optimizer is, for stages that take it over; None where none is kept."""
    return optimizer_facts(settings.optimizer) if settings.keep_checkpoints else None


def _with_adapters(memory: TrainingMemory, count: int, state_bytes: float, device: Device) -> TrainingMemory:
    """Gradients and optimizer state, of so many bytes a value, of so many adapter parameters alone."""
    ranks = device.processes if device.parallel != "replicate" else 1
    held = count // ranks
    return replace(memory, weights=memory.weights + 4 * held, gradients=4 * held, optimizer=round(state_bytes * held))


def _memory_of_one(
    config: ModelConfig, settings: TrainingSettings, micro_tokens: int, mean_context: float, device: Device
) -> TrainingMemory:
    """Memory of one process, as `[machine]` lays the model out."""
    optimizer = settings.optimizer
    state_bytes = STATE_BYTES[optimizer.matrix], STATE_BYTES[optimizer.rest]
    compute_bytes = 4 if device.in_fp32 else 2
    is_sharded = device.processes > 1 and device.parallel != "replicate"
    if not is_sharded and device.activation_checkpointing == "none":
        return training_memory(
            config,
            micro_tokens,
            compute_bytes,
            mean_context=mean_context,
            on_cpu=device.name == CPU,
            state_bytes=state_bytes,
        )
    ranks = device.processes if is_sharded else 1
    micro_batches = max(1, settings.batch_tokens // (device.processes * micro_tokens))
    return sharded_memory(
        config,
        micro_tokens,
        ranks,
        device.activation_checkpointing,
        micro_batches,
        compute_bytes,
        state_bytes=state_bytes,
        offload=device.offload,
    )
