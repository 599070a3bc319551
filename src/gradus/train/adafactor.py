"""Adafactor: the second moment of a matrix as one number for each row and each column.

Source: Shazeer and Stern 2018, algorithm 4, with the constants of its section 9; a test holds it equal to
torch.optim.Adafactor. Ours works on the rows that a process holds, with three sums over all of them a step, and
needs no word from the device to skip a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gradus.model.rows import RowSource, held, held_rows
from gradus.train.exchange import Exchange
from gradus.train.parallel import World

_DECAY = 0.8  # the second moment's rate is 1 - step^-0.8
_LEAST_VARIANCE = torch.finfo(torch.float32).eps
_LEAST_SIZE = 1e-3  # a parameter that is nearly zero moves as if its values were this large
_CLIP = 1.0  # an update's root mean square is at most this before it is scaled


class AdafactorGroup:
    """Parameters that share a rate, which is relative to the size of each parameter's values."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], lr: float, weight_decay: float, world: World) -> None:
        self.parameters = dict(parameters)
        self.lr = lr
        self.weight_decay = weight_decay
        self._world = world
        weights = {name: held(p.detach()) for name, p in parameters.items()}
        # Of a vector every value has its own.
        self.rows = {name: w.new_zeros(w.shape[:1] + (1,) * (w.ndim - 1)) for name, w in weights.items()}
        self.columns = {name: w.new_zeros(1, *w.shape[1:]) for name, w in weights.items() if w.ndim > 1}
        shapes = {name: (p.shape[0], *[1] * (p.ndim - 1)) for name, p in parameters.items()}
        self._exchange = Exchange(shapes, {name: float(shape[0]) for name, shape in shapes.items()}, world)

    @torch.no_grad()
    def step(self, count: Tensor, lr_scale: float, skip: Tensor, divisor: Tensor) -> None:
        """One update. count: () fp32, updates so far with this one; skip and divisor: () fp32."""
        keep = 1 - skip
        weight = count.pow(-_DECAY) * keep  # of this step in the second moment
        grads = {}
        for name, parameter in self.parameters.items():
            grad = held(parameter.grad) / divisor  # type: ignore[arg-type]
            grads[name] = torch.where(skip.bool(), torch.zeros_like(grad), grad)
        self._average(grads, weight)
        updates = self._updates(grads)
        sizes = self._root_mean_squares({n: held(p) for n, p in self.parameters.items()})
        norms = self._root_mean_squares(updates)
        rate = self.lr * lr_scale
        for name, parameter in self.parameters.items():
            if self.weight_decay:
                held(parameter).mul_(1 - rate * self.weight_decay * keep)
            step_size = sizes[name].clamp(min=_LEAST_SIZE) * count.rsqrt().clamp(max=rate) * keep
            held(parameter).sub_(updates[name] * (step_size / (norms[name] / _CLIP).clamp(min=1.0)))

    def _average(self, grads: Mapping[str, Tensor], weight: Tensor) -> None:
        """Take this step's squares into rows and columns."""
        sums = {name: grads[name].square().sum(0, keepdim=True) for name in self.columns}
        self._world.sum_over_sharers_(list(sums.values()))
        for name, grad in grads.items():
            square = grad.square()
            self.rows[name].lerp_(square.mean(-1, keepdim=True) if grad.ndim > 1 else square, weight)
        for name, column in self.columns.items():
            column.lerp_(sums[name] / self.parameters[name].shape[0], weight)

    def _updates(self, grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients divided by the root of their second moment."""
        totals = {name: self.rows[name].sum() for name in self.columns}
        self._world.sum_over_sharers_(list(totals.values()))
        found = {}
        for name, grad in grads.items():
            variance = self.rows[name]
            if name in self.columns:
                mean = (totals[name] / self.parameters[name].shape[0]).clamp(min=_LEAST_VARIANCE)
                variance = variance * self.columns[name] / mean
            found[name] = grad * variance.clamp(min=_LEAST_VARIANCE**2).rsqrt()
        return found

    def _root_mean_squares(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each whole tensor, ()."""
        squares = {name: tensor.square().sum() for name, tensor in tensors.items()}
        self._world.sum_over_sharers_(list(squares.values()))
        return {name: (square / self.parameters[name].numel()).sqrt() for name, square in squares.items()}

    def state(self) -> dict[str, Tensor]:
        """The moments that this process writes, whole."""
        found = {f"adafactor_rows/{name}": value for name, value in self._exchange.to_owner(self.rows).items()}
        if self._world.sharer == 0:
            found |= {f"adafactor_columns/{name}": value for name, value in self.columns.items()}
        return found

    def load_state(self, state: Mapping[str, RowSource]) -> None:
        """Copy the rows held here, and the columns; KeyError where a name is missing or its shape is another."""
        for name, parameter in self.parameters.items():
            source = state[f"adafactor_rows/{name}"]
            if source.shape[0] != parameter.shape[0]:
                raise KeyError(f"adafactor_rows/{name} has {source.shape[0]} rows, expected {parameter.shape[0]}")
            start, stop = held_rows(parameter)
            if start < stop:
                self.rows[name].copy_(source[start:stop])
        for name, column in self.columns.items():
            column.copy_(state[f"adafactor_columns/{name}"][...])
