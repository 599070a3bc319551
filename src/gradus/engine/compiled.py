"""Decoding steps of a few fixed shapes, so that a GPU is told once what a step is: compiled layers and CUDA graphs.

One token of a small model is so little work that a GPU waits for the host, which starts some 35 operations a layer. So
the parts of each layer before and after attention go through torch.compile, as in training, which makes one of what
lies between two products; and on CUDA the step up to the head is captured in a CUDA graph, which the host starts as
one. A graph repeats the same kernels on the same memory. So all that changes from step to step lies in one small
tensor, the first slots are the rows, rounded up to a power of two, and they look at a length that is rounded up
likewise: a graph for each pair of numbers that comes up. When the cache grows, its memory is another, and so are the
graphs.

A slot that takes no part in a step, because its stream waits or because rows were rounded up, is computed too, and what
it says is nobody's. In its place another row's key and value are stored once more, where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor

from gradus.core.errors import ConfigError
from gradus.engine.cache import SlotCache, seen_places
from gradus.model.attention import attention_cached
from gradus.model.batch import to_device
from gradus.model.block import Block, Surroundings
from gradus.model.compiler import compiler_problem
from gradus.model.experts import Routing
from gradus.model.past import CachedPass
from gradus.model.prefix import attention_cached_after
from gradus.model.transformer import Transformer

_LEAST_LENGTH = 64
_CAPTURING = Lock()
"""A capture begins by waiting for the whole device, which another one that is under way does not survive."""
_TRIED = (2, 1)
"""Rows of the steps that a model is compiled for: any number, and one, which has kernels of its own."""


class FixedSteps:
    """The steps of one cache, by their shapes."""

    def __init__(self, model: Transformer, cache: SlotCache) -> None:
        self._model, self._cache = model, cache
        self._graphs = self._new_graphs()
        self._steps: dict[tuple[int, int], _FixedStep] = {}
        self._capacity = cache.capacity

    def _new_graphs(self) -> Graphs | None:
        make = GRAPHS.get(self._model.device.type)
        return None if make is None else make(self._model.device)

    @torch.inference_mode()
    def take(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Hidden states (B, width) behind one token in each of these slots, which hold so many positions.

        They are overwritten by the next step.
        """
        cache, longest = self._cache, max(lengths) + 1
        cache.reserve(longest)
        if cache.capacity != self._capacity:
            self._steps.clear()
            self._graphs = self._new_graphs()  # torch takes no more graphs into memory whose graphs are all gone
            self._capacity = cache.capacity
        rows = min(_power_of_two(slots[-1] + 1), cache.num_slots)
        length = min(max(_LEAST_LENGTH, _power_of_two(longest)), cache.capacity)
        for slot, held in zip(slots, lengths, strict=True):
            cache.hold(slot, held + 1)
            cache.wipe(slot, held + 1, length)
        if (rows, length) not in self._steps:
            self._steps[rows, length] = _FixedStep(self._model, cache, rows, length, self._graphs)
        hidden = self._steps[rows, length].take(slots, lengths, tokens)
        is_whole = slots[-1] == len(slots) - 1
        return hidden if is_whole else hidden[to_device(torch.tensor(slots), hidden.device)]


class _FixedStep:
    """A step of the first `rows` slots, which look at the first `length` places: what the model asks of it as a cache.

    inputs: (3, rows) int64: token and position of each row, and the row whose key and value it stores.
    """

    def __init__(self, model: Transformer, cache: SlotCache, rows: int, length: int, graphs: Graphs | None) -> None:
        self._model, self._cache, self._graphs = model, cache, graphs
        self._rows, self._length = rows, length
        self._inputs = torch.zeros((3, rows), dtype=torch.int64, device=model.device)
        self._source = self._inputs[2]
        self._places: dict[int | None, Tensor] = {}  # (rows,) for each window
        self._masks: dict[int | None, Tensor] = {}  # (rows, 1, 1, S) for each window
        self._replay: Callable[[], object] | None = None
        self._hidden: Tensor | None = None

    def take(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """As of FixedSteps, for all rows."""
        values = [[0] * self._rows, [0] * self._rows, [slots[0]] * self._rows]
        for slot, *row in zip(slots, tokens, lengths, slots, strict=True):
            for line, value in zip(values, row, strict=True):
                line[slot] = value
        self._inputs.copy_(torch.tensor(values), non_blocking=True)
        if self._replay is not None and self._hidden is not None:
            self._replay()
            return self._hidden
        hidden = self._run()
        # Behind a first run, for what is compiled, loaded or tuned at first is not to be captured.
        if self._graphs is not None:
            self._replay, self._hidden = self._graphs.captured(self._run)
        return hidden

    def _run(self) -> Tensor:
        tokens, positions, source = self._inputs.unbind()
        for window in set(self._cache.windows):
            room = self._cache.room(window)
            self._masks[window] = seen_places(positions, window, room, self._length)
            self._places[window] = (positions if window is None else positions % room)[source]
        return self._model.decode(tokens, positions + self._cache.prefix_length, self)

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        cache = self._cache
        window = cache.windows[layer]
        mask, places = self._masks[window], self._places[window]
        stored = []
        for whole, new in ((cache.keys[layer], keys), (cache.values[layer], values)):
            whole[self._source, :, places] = new[self._source].to(whole.dtype)
            stored.append(whole[: self._rows, :, : mask.shape[-1]])
        if cache.prefix:
            return attention_cached_after(queries, stored[0], stored[1], mask, *cache.prefix[layer])
        return attention_cached(queries, stored[0], stored[1], mask)

    def recent(self, key: str, x: Tensor, reach: int) -> Tensor:
        stored = self._cache.recent_of(key, x[:, None].expand(-1, reach, -1))
        before = stored[: self._rows].clone()
        stored[self._source] = torch.cat([before[:, 1:], x[:, None]], dim=1)[self._source]
        return before


class Graphs(Protocol):
    """What a device has for repeating the same work on the same memory."""

    def captured(self, work: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        """What repeats the work, which is not done meanwhile, and the tensor that it then fills."""
        ...


class CudaGraphs:
    """CUDA graphs in memory of their own, one for all: they run one after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = torch.cuda.graph_pool_handle()

    def captured(self, work: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile, for another model, is none of this.
        mode = "thread_local"
        with (
            _CAPTURING,
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode=mode),
        ):
            out = work()
        return graph.replay, out


GRAPHS: Mapping[str, Callable[[torch.device], Graphs]] = {"cuda": CudaGraphs}


def compile_steps(model: Transformer) -> None:
    """Have a frozen model's decoding steps compiled, in place, before it decodes.

    ConfigError where that cannot be: packed weights, experts, or no compiler.
    """
    assert model.frozen_head is not None, "a model is frozen before its steps are compiled"
    device = model.device
    if model.is_packed:
        raise ConfigError(
            "compiled steps are for weights in fp32 on a processor (--dtype fp32) and for any float type on CUDA: "
            "these are packed for products that the compiler does not know"
        )
    if model.config.num_experts is not None:
        raise ConfigError(
            "steps of a model with experts are not compiled: how many tokens an expert gets is another number every "
            "time; leave --compile out"
        )
    if problem := compiler_problem(device):
        raise ConfigError(f"steps cannot be compiled here: {problem}; or leave --compile out")
    # By default the compiler gives up on a function at its ninth shape, in all models together.
    heads, rest = (torch.compile(_own(function), fullgraph=True) for function in (_heads, _rest))
    for block in model.blocks:
        layer: Any = block
        layer.forward = partial(_forward, block, block.forward, heads, rest)
    model.has_compiled_steps = True
    _try(model)


@torch.inference_mode()
def _try(model: Transformer) -> None:
    """Take a step of each kind, which compiles them: whoever asks first does not wait for that."""
    for rows in _TRIED:
        cache = SlotCache.of_model(model, rows)
        step = _FixedStep(model, cache, rows, cache.capacity, None)
        try:
            step.take(range(rows), [0] * rows, [0] * rows)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ConfigError(
                f"steps cannot be compiled here: {str(error).strip().splitlines()[0]}; leave --compile out"
            ) from error


def _forward(
    block: Block,
    plain: Callable[[Tensor, Surroundings], tuple[Tensor, Routing | None]],
    heads: Callable[[Block, Tensor, Surroundings], Tensor],
    rest: Callable[[Block, Tensor, Tensor], Tensor],
    x: Tensor,
    around: Surroundings,
) -> tuple[Tensor, Routing | None]:
    """`Block.forward`, compiled in fixed steps: all else has another number of tokens every time."""
    if not (isinstance(around.past, CachedPass) and isinstance(around.past.cache, _FixedStep)):
        return plain(x, around)
    x = block.mixed(x, around)
    _any_number_of_rows(x, around.tokens, *(around.turn or ()))
    out = around.past.attend(block.layer, heads(block, x, around))
    _any_number_of_rows(x, out)
    return rest(block, x, out), None


def _heads(block: Block, x: Tensor, around: Surroundings) -> Tensor:
    return block.heads(x, around)


def _rest(block: Block, x: Tensor, attention_out: Tensor) -> Tensor:
    return block.feed_forward(block.attended(x, attention_out))[0]


def _own(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A copy of a function with code of its own, by which the compiler counts."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


def _any_number_of_rows(*tensors: Tensor) -> None:
    """Have the compiler take the first dimension for one that varies, from the first time on."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)


def _power_of_two(number: int) -> int:
    """The least that is no smaller."""
    return 1 << (number - 1).bit_length()
