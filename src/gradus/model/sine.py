"""The sine-activated feed-forward: W2 phi(W1 x) with phi(z) = A exp(-d |z|) sin(f z), A, f and d learned per feature.

Source: PSANN (parameterised sine-activated neural networks). Gradients, with e = exp(-d |z|):
dz = A e (f cos fz - d sgn(z) sin fz); dA = e sin fz; df = A e z cos fz; dd = -|z| phi. For the backward pass only the
input, z and the three vectors are kept; phi is worked out again, in fp32 whatever the compute dtype.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gradus.model.config import Bounds, SineSettings
from gradus.model.rows import copy_rows


class SineParameters(nn.Module):
    """Amplitude A, frequency f and damping d of `width` features, kept as unbounded raw values.

    A value is softplus(raw), or with bounds low + (high - low) sigmoid(raw): it stays inside and can always move.
    """

    def __init__(self, settings: SineSettings, width: int) -> None:
        super().__init__()
        self.settings = settings
        self.amplitude = nn.Parameter(torch.empty(width))
        self.frequency = nn.Parameter(torch.empty(width))
        self.damping = nn.Parameter(torch.empty(width))

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """A, f and d, (width,) each, without a gradient where they are frozen."""
        s = self.settings
        raws: list[Tensor] = [self.amplitude, self.frequency, self.damping]
        if not s.trainable:
            raws = [raw.detach() for raw in raws]
        bounds = s.amplitude_bounds, s.frequency_bounds, s.damping_bounds
        amplitude, frequency, damping = (_value(raw, b) for raw, b in zip(raws, bounds, strict=True))
        return amplitude, frequency, damping

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """A and d at their settings; f normal around its own, kept inside its bounds and above zero."""
        s = self.settings
        copy_rows(self.amplitude, _raw(torch.full(self.amplitude.shape, s.amplitude), s.amplitude_bounds))
        copy_rows(self.damping, _raw(torch.full(self.damping.shape, s.damping), s.damping_bounds))
        drawn = torch.empty(self.frequency.shape, device=generator.device)
        drawn.normal_(s.frequency, s.frequency_deviation, generator=generator)
        copy_rows(self.frequency, _raw(drawn, s.frequency_bounds))


def _value(raw: Tensor, bounds: Bounds | None) -> Tensor:
    if bounds is None:
        return F.softplus(raw)
    low, high = bounds
    return low + (high - low) * raw.sigmoid()


def _raw(value: Tensor, bounds: Bounds | None) -> Tensor:
    """The raw value of a value, in fp64 on the way; at a bound, a hair inside it."""
    value = value.double()
    if bounds is None:
        value = value.clamp(min=1e-6)
        return (value + (-torch.expm1(-value)).log()).float()
    low, high = bounds
    return ((value - low) / (high - low)).clamp(1e-6, 1 - 1e-6).logit().float()


def sine(z: Tensor, amplitude: Tensor, frequency: Tensor, damping: Tensor) -> Tensor:
    """A exp(-d |z|) sin(f z), in at least fp32. z: (N, m); the others: (m,). Returns (N, m) in the dtype of z."""
    return _Sine.apply(z, amplitude, frequency, damping)  # type: ignore[no-any-return,no-untyped-call]


def sine_feed_forward(x: Tensor, up: Tensor, down: Tensor, parameters: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """phi(x W1^T) W2^T. x: (N, d); up: (m, d); down: (d, m); parameters: A, f and d, (m,) each. Returns (N, d)."""
    return _SineFeedForward.apply(x, up, down, *parameters)  # type: ignore[no-any-return,no-untyped-call]


def _wide(z: Tensor) -> Tensor:
    return z.to(torch.promote_types(z.dtype, torch.float32))


def _phi(z: Tensor, amplitude: Tensor, frequency: Tensor, damping: Tensor) -> Tensor:
    wide = _wide(z)
    decay = (wide.abs() * -damping).exp_()
    return (wide * frequency).sin_().mul_(decay).mul_(amplitude).to(z.dtype)


def _phi_backward(
    grad: Tensor, z: Tensor, amplitude: Tensor, frequency: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of z (its dtype) and of A, f and d (summed over rows)."""
    wide, grad = _wide(z), _wide(grad)
    size = wide.abs()
    decay = (size * -damping).exp_()
    angle = wide * frequency
    swing, slope = angle.sin().mul_(decay), angle.cos_().mul_(decay)  # e sin fz, e cos fz
    d_amplitude = (grad * swing).sum(0)
    d_frequency = (grad * wide * slope).sum(0) * amplitude
    d_damping = (grad * size * swing).sum(0) * -amplitude
    d_z = slope.mul_(frequency).sub_(wide.sign() * damping * swing).mul_(amplitude).mul_(grad)
    return d_z.to(z.dtype), d_amplitude, d_frequency, d_damping


class _Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, amplitude: Tensor, frequency: Tensor, damping: Tensor) -> Tensor:
        ctx.save_for_backward(z, amplitude, frequency, damping)
        return _phi(z, amplitude, frequency, damping)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return _phi_backward(grad, *ctx.saved_tensors)


class _SineFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, up: Tensor, down: Tensor, amplitude: Tensor, frequency: Tensor, damping: Tensor
    ) -> Tensor:
        z = F.linear(x, up)
        ctx.save_for_backward(x, up, down, z, amplitude, frequency, damping)
        return F.linear(_phi(z, amplitude, frequency, damping), down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, up, down, z, *parameters = ctx.saved_tensors
        d_down = grad.T @ _phi(z, *parameters)
        d_z, *d_parameters = _phi_backward(grad @ down, z, *parameters)
        return d_z @ up, d_z.T @ x, d_down, *d_parameters
