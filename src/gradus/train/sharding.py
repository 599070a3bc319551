"""How a model is prepared for training: compiling, activation checkpointing, sharding by rows, in that order.

Each block is wrapped by itself; what is compiled are its parts before and after attention. Activation checkpointing
(Chen et al. 2016) runs a block's forward pass again in the backward pass instead of keeping what it needs; selective
keeps the results of products with weights and of fused attention, which are what costs time. Sharding is torch's
FSDP2: a block's parameters are gathered before it runs and let go after it, gradients are summed where they are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from gradus.model.batch import Batch, Documents
from gradus.model.compiler import compiler_problem
from gradus.model.transformer import Transformer
from gradus.model.xla import send_work
from gradus.train.config import ActivationCheckpointing
from gradus.train.losses import next_token_loss
from gradus.train.parallel import World

_COSTLY = ("aten::mm", "aten::addmm", "aten::_grouped_mm", "aten::_scaled_dot_product", "torch_attn::")


def prepare_model(
    model: Transformer,
    world: World,
    *,
    activation_checkpointing: ActivationCheckpointing = "none",
    compile: bool = False,
    offload_from: torch.device | None = None,
) -> None:
    """Make a model train as asked; best while it has shapes alone, on the meta device.

    Names of parameters stay. With one process nothing is sharded. Compiled layers cannot be checkpointed selectively.
    offload_from: the device that computes where weights, gradients and the optimizer's work are the host's; a sharded
    model only.
    """
    assert not (compile and activation_checkpointing == "selective"), "the settings refuse this"
    for block in model.blocks:
        pieces: Any = block
        if compile:
            # Attention between them goes by the documents of a batch: compiled, it would be so for each batch anew.
            pieces.heads = _compiled(block.heads)
            if block.experts is None:  # tokens are sorted by expert: no two batches have the same shapes
                pieces.feed_forward = _compiled(block.feed_forward)
        if activation_checkpointing != "none":
            pieces.forward = _checkpointed(block.forward, activation_checkpointing)
    if world.mesh is not None:
        model.offloaded_from = offload_from
        _shard(model, world.mesh, offload_from)


def can_compile(device: torch.device) -> bool:
    """Whether compiling is worth its time on a device, and what it needs is there."""
    return device.type == "cuda" and compiler_problem(device) is None


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled for training alone.

    Evaluation and decoding come with other numbers of tokens every time, and would be compiled for many of them.
    """
    fast = torch.compile(function, fullgraph=True)
    return lambda *inputs: (fast if torch.is_grad_enabled() else function)(*inputs)


def _checkpointed(forward: Callable[..., Any], kind: ActivationCheckpointing) -> Callable[..., Any]:
    # A forward pass draws no random numbers.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if kind == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_costly)
    return partial(checkpoint, forward, **options)


def _keep_costly(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation.name().startswith(_COSTLY) else CheckpointPolicy.PREFER_RECOMPUTE


def _shard(model: Transformer, mesh: Any, offload_from: torch.device | None) -> None:
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

    policy = OffloadPolicy()
    if offload_from is not None:
        policy = CPUOffloadPolicy(pin_memory=offload_from.type == "cuda")
    for block in model.blocks:
        fully_shard(block, mesh=mesh, offload_policy=policy)
    # The loss multiplies by the head after the model has returned, so embedding and head stay gathered till the
    # backward pass is through.
    fully_shard(model, mesh=mesh, reshard_after_forward=False, offload_policy=policy)
    for module in (*model.blocks, model):
        assert isinstance(module, FSDPModule)
        # Gradients are sums: the count of all processes divides them once, in the step.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def let_go(model: Transformer, world: World) -> None:
    """Free what a forward pass without a backward pass left gathered: parameters are then those held here."""
    if world.is_sharded:
        model.reshard()  # type: ignore[operator]


def sum_gradients_after(model: Transformer, is_last: bool) -> None:
    """Say whether the next backward pass of a sharded model is the last of its step: then gradients are summed."""
    model.set_requires_gradient_sync(is_last)  # type: ignore[operator]
    model.set_is_last_backward(is_last)  # type: ignore[operator]


def idle_batch_loss(model: Transformer) -> Tensor:
    """A loss of zero that takes part in every gathering and summing, for a process that has fewer micro-batches."""
    token = torch.zeros(1, dtype=torch.int64, device=model.device)
    return next_token_loss(model, Batch(token, token, Documents([0, 1], token)))[0] * 0.0


@contextmanager
def whole_weights(model: Transformer, world: World) -> Iterator[Transformer]:
    """Every process holds all weights for a while: to decode, or to write them as one file.

    Gives the model that holds them: of one on XLA, which would compile for every new length, a copy on the host.
    All processes enter and leave together; gradients are not for use inside.
    """
    if model.device.type == "xla":
        yield _on_host(model)
        return
    if not world.is_sharded:
        yield model
        return
    modules: list[Any] = [*model.blocks, model]
    for module in modules:
        module.unshard()
    try:
        yield model
    finally:
        for module in modules:
            module.reshard()


@torch.no_grad()
def _on_host(model: Transformer) -> Transformer:
    """A copy of a model without adapters in the memory of the host."""
    send_work(model.device)
    with torch.device("meta"):
        copy = Transformer(model.config)
    copy.take_memory("cpu")
    copy.compute_dtype = model.compute_dtype
    own = dict(model.named_parameters())
    for name, parameter in copy.named_parameters():
        parameter.copy_(own[name])
    return copy
