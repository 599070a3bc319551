"""Muon: momentum whose matrix updates are replaced by the nearest semi-orthogonal matrix, batched by shape.

Sources: Muon, Jordan et al. 2024; iteration coefficients, Polar Express, Amsel et al. 2025 (5 steps, safety
2e-2, cushion 2); variance along the longer side, NorMuon, Li et al. 2025, as in nanochat; cautious weight
decay, Chen et al. 2025. Ours works on all matrices of one shape at once, also on those fused as rows of one
parameter, and needs no word from the device to skip a step. Of several processes each keeps the state of its own
matrices and works on those alone, whole: gradients come to the owner, updates go back to whoever holds the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradus.model.rows import RowSource, held
from gradus.model.xla import on_host, varying
from gradus.train.config import OptimizerSettings
from gradus.train.exchange import Exchange
from gradus.train.parallel import World

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
# Elements of matrices that are worked on at a time: a step needs several copies of them.
_MOST_ELEMENTS = 2**27
# A gram matrix in fp32 rounds away what is below 3e-4 of the largest singular value. Two steps lift small ones 33-fold,
# after which the result is within 2e-5 of the exact one; bf16 is too coarse for it at any step.
_STEPS_BEFORE_GRAM = 2
_SAFETY = 1.02  # keeps the largest singular value below 1 where bf16 rounds up


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """U V^T of each matrix U S V^T, approximately: singular values come out near 1.

    matrices: (G, r, c) with r >= c. Returns the same shape in `dtype`. A zero matrix stays zero.
    """
    long, short = matrices.shape[-2:]
    assert long >= short
    norm = matrices.flatten(1).norm(dim=1)[:, None, None]
    x: Tensor = (matrices / (norm * _SAFETY + 1e-30)).to(dtype)
    is_tall = dtype == torch.float32 and long >= 2 * short
    for a, b, c in POLAR_EXPRESS[: _STEPS_BEFORE_GRAM if is_tall else None]:
        gram = x.mT @ x  # (G, c, c)
        x = torch.baddbmm(x, x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), beta=a)
    return x @ _remaining_steps(x.mT @ x) if is_tall else x


def _remaining_steps(gram: Tensor) -> Tensor:
    """What the steps after `_STEPS_BEFORE_GRAM` multiply x with, (G, c, c), from its x^T x alone.

    Each step x <- x p(x^T x) is a factor that commutes with the gram matrix, which becomes p gram p: products of the
    short side only, of 15 to 22 % fewer operations in all where the long side is 2.75 to 4 times the short one.
    """
    product: Tensor | None = None
    remaining = POLAR_EXPRESS[_STEPS_BEFORE_GRAM:]
    for index, (a, b, c) in enumerate(remaining):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else product @ factor
        if index + 1 < len(remaining):
            gram = factor @ gram @ factor
    assert product is not None
    return product


@dataclass(frozen=True)
class _Part:
    """One matrix: rows [start, stop) of a parameter with so many columns, stacked on its longer side."""

    name: str
    start: int
    stop: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.stop - self.start, self.columns

    def tall(self, tensor: Tensor) -> Tensor:
        """This part of the parameter, its gradient or the like, as a view with the longer side first."""
        rows = tensor[self.start : self.stop]
        return rows if self.shape[0] >= self.shape[1] else rows.T


class _Group:
    """All matrices of one shape. Momentum is (G, long, short), variance (G, long, 1)."""

    def __init__(self, parts: Sequence[_Part], has_variance: bool, device: torch.device) -> None:
        self.parts = parts
        long, short = max(parts[0].shape), min(parts[0].shape)
        self.momentum = torch.zeros((len(parts), long, short), device=device)
        self.variance = torch.zeros((len(parts), long, 1), device=device) if has_variance else None
        # A step of a tall matrix moves its outputs as far as that of a square one.
        scales = [max(1.0, part.shape[0] / part.shape[1]) ** 0.5 for part in parts]
        self.scale = torch.tensor(scales).to(device)[:, None, None]

    def portions(self) -> list[slice]:
        """The matrices in runs that are not too large to be worked on at a time."""
        count = max(1, _MOST_ELEMENTS // self.momentum[0].numel())
        return [slice(start, start + count) for start in range(0, len(self.parts), count)]


class Muon:
    """Muon over named parameters; `splits` gives the row counts of matrices fused into one parameter."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        splits: Mapping[str, Sequence[int]],
        settings: OptimizerSettings,
        world: World | None = None,
    ) -> None:
        self.settings = settings
        self.parameters = dict(parameters)
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        parts = {name: _parts(name, shape, splits.get(name, [shape[0]])) for name, shape in shapes.items()}
        costs = {name: sum(_cost(part.shape) for part in of_name) for name, of_name in parts.items()}
        self.exchange = Exchange(shapes, costs, world or World())
        by_shape: dict[tuple[int, int], list[_Part]] = {}
        for name in self.exchange.owned:
            for part in parts[name]:
                by_shape.setdefault((max(part.shape), min(part.shape)), []).append(part)
        has_variance = settings.variance_beta is not None
        device = next(iter(parameters.values())).device
        self.groups = [_Group(of_shape, has_variance, device) for _, of_shape in sorted(by_shape.items())]

    @torch.no_grad()
    def step(self, step: int, lr: float | Tensor, skip: Tensor, divisor: Tensor, dtype: torch.dtype) -> None:
        """One update; gradients are used up.

        lr: a number, or () as data. divisor: () that gradients are divided by; skip: () bool, True changes nothing;
        dtype: what to orthogonalize in.
        """
        momentum = varying(self.momentum_at(step), skip.device)
        keep = (~skip).float()
        whole = self.exchange.to_owner({n: held(p.grad) for n, p in self.parameters.items()})  # type: ignore[arg-type]
        for group in self.groups:
            for matrices in group.portions():
                self._update(group, matrices, whole, momentum, keep, skip, divisor, dtype)
        updates = self.exchange.to_holders(whole, like=keep)
        for name, parameter in self.parameters.items():
            self._apply(held(parameter), updates[name], keep, lr)

    def _update(
        self,
        group: _Group,
        matrices: slice,
        whole: Mapping[str, Tensor],
        momentum: float | Tensor,
        keep: Tensor,
        skip: Tensor,
        divisor: Tensor,
        dtype: torch.dtype,
    ) -> None:
        """Put the update of some matrices of a group in the place of their gradients in `whole`."""
        parts = group.parts[matrices]
        grads = torch.stack([part.tall(whole[part.name]) for part in parts])
        grads.div_(divisor)
        if skip.device.type != "cpu" or bool(skip):
            # A product with zero would keep NaN.
            grads = torch.where(skip, torch.zeros_like(grads), grads)
        group.momentum[matrices].lerp_(grads, (1 - momentum) * keep)
        update = orthogonalize(grads.lerp_(group.momentum[matrices], momentum), dtype).float()
        if group.variance is not None:
            update = self._equalized(group.variance[matrices], update, keep)
        update.mul_(group.scale[matrices] * keep)
        for part, matrix in zip(parts, update, strict=True):
            part.tall(whole[part.name]).copy_(matrix)

    def momentum_at(self, step: int) -> float:
        """Momentum grows linearly over the first steps."""
        s = self.settings
        done = min(1.0, step / s.momentum_warmup_steps) if s.momentum_warmup_steps else 1.0
        return s.momentum_start + (s.momentum - s.momentum_start) * done

    def _equalized(self, variance: Tensor, update: Tensor, keep: Tensor) -> Tensor:
        """Divide each vector along the long side by its running size; the whole keeps its norm."""
        assert self.settings.variance_beta is not None
        square = update.square().mean(dim=-1, keepdim=True)  # (G, long, 1)
        variance.lerp_(square, (1 - self.settings.variance_beta) * keep)
        step_size = variance.clamp(min=1e-10).rsqrt()
        before = square.sum(dim=1, keepdim=True)
        after = (square * step_size.square()).sum(dim=1, keepdim=True)
        return update.mul_(step_size * (before / after.clamp(min=1e-20)).sqrt())

    def _apply(self, weight: Tensor, update: Tensor, keep: Tensor, lr: float | Tensor) -> None:
        """Move the rows that are held here by their update, which is zero where the step is skipped."""
        if self.settings.weight_decay:
            decayed = weight * ((weight * update) > 0) if self.settings.cautious else weight * keep
            update.add_(decayed, alpha=self.settings.weight_decay)
        if isinstance(lr, Tensor):
            weight.sub_(update.mul_(lr))
        else:
            weight.add_(update, alpha=-lr)

    def state(self) -> dict[str, Tensor]:
        """Buffers of the matrices owned here: `momentum/<parameter>`, laid out like it, and `variance/<parameter>`."""
        found: dict[str, Tensor] = {}
        for name, momentum, variance in self._by_parameter(on_host):
            found[f"momentum/{name}"] = torch.cat(momentum)
            if variance:
                found[f"variance/{name}"] = torch.cat(variance)
        return found

    def load_state(self, state: Mapping[str, RowSource]) -> None:
        """Copy buffers back, those of matrices owned here; a missing name raises KeyError."""
        wholes: list[tuple[Tensor, Tensor]] = []

        def taken(buffer: Tensor) -> Tensor:
            wholes.append((buffer, on_host(buffer)))
            return wholes[-1][1]

        for name, momentum, variance in self._by_parameter(taken):
            for buffers, kind in ((momentum, "momentum"), (variance, "variance")):
                if buffers:
                    saved = state[f"{kind}/{name}"][:].split([len(b) for b in buffers])  # type: ignore[no-untyped-call]
                    for buffer, value in zip(buffers, saved, strict=True):
                        buffer.copy_(value)
        for whole, filled in wholes:
            if filled is not whole:
                whole.copy_(filled)

    def _by_parameter(self, taken: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, list[Tensor], list[Tensor]]]:
        """Each parameter's buffers as views in row order: momentum (rows, columns), variance (long,).

        taken: gives what the views are of, for a group's buffer.
        """
        momentum: dict[str, dict[int, Tensor]] = {}
        variance: dict[str, dict[int, Tensor]] = {}
        for group in self.groups:
            momenta = taken(group.momentum)
            variances = taken(group.variance) if group.variance is not None else None
            for index, part in enumerate(group.parts):
                is_tall = part.shape[0] >= part.shape[1]
                buffer = momenta[index]
                momentum.setdefault(part.name, {})[part.start] = buffer if is_tall else buffer.T
                if variances is not None:
                    variance.setdefault(part.name, {})[part.start] = variances[index, :, 0]
        for name in momentum:
            of_name = variance.get(name, {})
            yield (
                name,
                [momentum[name][k] for k in sorted(momentum[name])],
                [of_name[k] for k in sorted(of_name)],
            )


def _parts(name: str, shape: tuple[int, ...], rows: Sequence[int]) -> list[_Part]:
    """The matrices that are fused as rows of one parameter."""
    found, start = [], 0
    for count in rows:
        found.append(_Part(name, start, start + count, shape[1]))
        start += count
    return found


def _cost(shape: tuple[int, int]) -> float:
    """Multiply-adds of one round of the iteration, for sharing the work out."""
    long, short = max(shape), min(shape)
    return 2.0 * long * short**2 + short**3
