"""AdamW with moments of 8 bits a value: a code and, for every block of a row, a scale (torchao's OptimState8bit).

Source: Dettmers et al. 2021, 8-bit Optimizers via Block-wise Quantization. torchao quantizes; its optimizer itself has
to be compiled, and its blocks run over the ends of rows. Ours lie within rows, so that a checkpoint does not know how
many processes the rows were divided among, and needs no word from the device to skip a step. What is too small for
blocks (norm weights, short rows) keeps moments of 32 bits, as torchao's and bitsandbytes' do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf, prod, sqrt

import torch
from torch import Tensor, nn

from gradus.core.errors import MissingPackageError
from gradus.model.rows import RowSource, held, held_rows
from gradus.train.config import OptimizerSettings
from gradus.train.exchange import Exchange
from gradus.train.parallel import World

_LEAST_ELEMENTS = 4096  # of a parameter that is quantized
_MOST_IN_BLOCK, _LEAST_IN_BLOCK = 256, 32
# Elements that are worked on at a time: their moments stand in 32 bits meanwhile.
_MOST_ELEMENTS = 2**24
_KINDS = ("mean", "square")


def block_size(shape: tuple[int, ...]) -> int | None:
    """Values that share a scale in the moments of a parameter of this shape, the most that divide a row evenly.

    None: they keep 32 bits.
    """
    row = prod(shape[1:])
    if len(shape) < 2 or prod(shape) < _LEAST_ELEMENTS:
        return None
    return next((size for size in range(_MOST_IN_BLOCK, _LEAST_IN_BLOCK - 1, -1) if row % size == 0), None)


def largest_step(beta1: float, beta2: float) -> float:
    """The most that |mean| / sqrt(square) can be in AdamW of full precision, by Cauchy-Schwarz; inf without bound."""
    ratio = beta1**2 / beta2
    return (1 - beta1) / sqrt((1 - beta2) * (1 - ratio)) if ratio < 1 else inf


class Adam8bitGroup:
    """Parameters that share an AdamW rate; moments start at zero, of the rows that are held here.

    Errors: MissingPackageError without torchao.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        lr: float,
        weight_decay: float,
        world: World,
        settings: OptimizerSettings,
    ) -> None:
        try:
            from torchao.optim.subclass_8bit import OptimState8bit
        except ImportError:
            raise MissingPackageError("torchao", "optim") from None
        self._quantized = OptimState8bit
        self.parameters = dict(parameters)
        self.lr = lr
        self.weight_decay = weight_decay
        self.settings = settings
        self.blocks = {name: block_size(tuple(p.shape)) for name, p in parameters.items()}
        self._largest_step = largest_step(settings.beta1, settings.beta2)
        # By kind, then by parameter: codes or values, laid out like it; scales (rows, blocks of a row).
        self.values: dict[str, dict[str, Tensor]] = {kind: {} for kind in _KINDS}
        self.scales: dict[str, dict[str, Tensor]] = {kind: {} for kind in _KINDS}
        self._maps: dict[str, Tensor] = {}
        for kind in _KINDS:
            for name, parameter in parameters.items():
                self._begin(kind, name, held(parameter.detach()))
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        scale_shapes = {n: (shape[0], prod(shape[1:]) // b) for n, shape in shapes.items() if (b := self.blocks[n])}
        whole = {name: shape for name, shape in shapes.items() if name not in scale_shapes}
        self._exchanges = {
            "codes": Exchange({n: shapes[n] for n in scale_shapes}, _sizes(scale_shapes), world),
            "scales": Exchange(scale_shapes, _sizes(scale_shapes), world),
            "values": Exchange(whole, _sizes(whole), world),
        }

    def _begin(self, kind: str, name: str, weight: Tensor) -> None:
        block = self.blocks[name]
        if block is None:
            self.values[kind][name] = torch.zeros_like(weight)
            return
        # A row more than none, since blocks are counted by dividing.
        zero = self._quantized.zeros((1, *weight.shape[1:]), kind == "mean", block, weight.device)
        rows = weight.shape[0]
        # The code of zero is not zero where values have a sign.
        zero.copy_(torch.zeros_like(zero.codes, dtype=torch.float32))
        self.values[kind][name] = zero.codes.repeat(rows, *[1] * (weight.ndim - 1))
        self.scales[kind][name] = zero.scale.repeat(rows, 1)
        self._maps[kind] = zero.qmap

    @torch.no_grad()
    def step(self, count: Tensor, lr_scale: float, skip: Tensor, divisor: Tensor) -> None:
        """One update. count: () fp32, updates so far with this one; skip and divisor: () fp32."""
        s = self.settings
        keep = 1 - skip
        # Both bias corrections at once.
        rate = self.lr * lr_scale * (1 - s.beta2**count).sqrt() / (1 - s.beta1**count) * keep
        eps = s.eps * (1 - s.beta2**count).sqrt()
        decay = 1 - self.lr * lr_scale * self.weight_decay * keep
        for name, parameter in self.parameters.items():
            weight, whole = held(parameter), held(parameter.grad)  # type: ignore[arg-type]
            for rows in _portions(weight):
                grad = whole[rows].float() / divisor
                # A product with zero would keep NaN.
                grad = torch.where(skip.bool(), torch.zeros_like(grad), grad)
                mean = self._averaged("mean", name, rows, grad, 1 - s.beta1, skip)
                square = self._averaged("square", name, rows, grad.square(), 1 - s.beta2, skip)
                # A small square is zero in 8 bits long before its mean is.
                step = (mean / (square.sqrt() + eps)).clamp(-self._largest_step, self._largest_step)
                weight[rows] = weight[rows] * decay - rate * step

    def _averaged(self, kind: str, name: str, rows: slice, new: Tensor, share: float, skip: Tensor) -> Tensor:
        """Take `new` into a moment; returns it before it is rounded."""
        values = self.values[kind][name][rows]
        if self.blocks[name] is None:
            return values.lerp_(new, share * (1 - skip))
        scales = self.scales[kind][name][rows]
        moment = self._quantized(values, scales.view(-1), self._maps[kind], kind == "mean", torch.float32)
        found: Tensor = moment.dequantize().lerp_(new, share)
        before = values.clone(), scales.clone()
        moment.copy_(found)
        # Rounding twice need not give the same codes.
        values.copy_(torch.where(skip.bool(), before[0], values))
        scales.copy_(torch.where(skip.bool(), before[1], scales))
        return found

    def state(self) -> dict[str, Tensor]:
        """The moments of the parameters that this process writes, whole."""
        found: dict[str, Tensor] = {}
        for part, kind, mine in self._parts():
            whole = self._exchanges[part].to_owner(mine) if mine else {}
            found |= {f"{_label(part, kind)}/{name}": value for name, value in whole.items()}
        return found

    def load_state(self, state: Mapping[str, RowSource]) -> None:
        """Copy the rows held here; KeyError where a name is missing or its shape is another."""
        for part, kind, mine in self._parts():
            for name, tensor in mine.items():
                label, shape = f"{_label(part, kind)}/{name}", self._exchanges[part].shapes[name]
                source = state[label]
                if tuple(source.shape) != shape:
                    raise KeyError(f"{label} has shape {tuple(source.shape)}, expected {shape}")
                start, stop = held_rows(self.parameters[name])
                if start < stop:
                    tensor.copy_(source[start:stop])

    def _parts(self) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
        """(part of the state, which moment, this process's rows of it by parameter)."""
        for kind in _KINDS:
            values = self.values[kind]
            yield "codes", kind, {name: tensor for name, tensor in values.items() if self.blocks[name]}
            yield "scales", kind, self.scales[kind]
            yield "values", kind, {name: tensor for name, tensor in values.items() if not self.blocks[name]}


def _label(part: str, kind: str) -> str:
    """The name in checkpoints; moments of 32 bits are called as AdamW's."""
    return f"adam_{kind}" if part == "values" else f"adam8bit_{kind}_{part}"


def _portions(weight: Tensor) -> Iterator[slice]:
    """Runs of rows that are not too large to be worked on at a time."""
    count = max(1, _MOST_ELEMENTS // max(1, prod(weight.shape[1:])))
    for start in range(0, weight.shape[0], count):
        yield slice(start, min(start + count, weight.shape[0]))


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    return {name: float(prod(shape)) for name, shape in shapes.items()}
