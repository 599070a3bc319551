"""The optimizer of a model, by declared role: Muon for its matrices and fused AdamW for the rest, or what is asked for.

AdamW is torch's fused kernel, called directly: building torch.optim's class imports the compiler, which takes
longer than many a small run's first steps. A test holds it equal to torch.optim.AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gradus.core.errors import ArtifactError
from gradus.model.mps import is_mps
from gradus.model.rows import RowSource, held, held_rows
from gradus.model.transformer import Role, Transformer
from gradus.model.xla import placed, varying
from gradus.train.adafactor import AdafactorGroup
from gradus.train.adam8bit import Adam8bitGroup
from gradus.train.config import OptimizerSettings
from gradus.train.exchange import Exchange
from gradus.train.muon import Muon
from gradus.train.parallel import World
from gradus.train.sharding import let_go

_MATRICES = frozenset({"matrix", "expert"})


class AdamGroup:
    """Parameters that share an AdamW rate; moments start at zero, of the rows that are held here."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        lr: float,
        weight_decay: float,
        world: World,
        settings: OptimizerSettings,
    ) -> None:
        self.parameters = dict(parameters)
        self.lr = lr
        self.weight_decay = weight_decay
        self.settings = settings
        self.mean = {name: torch.zeros_like(held(p.detach())) for name, p in parameters.items()}
        self.square = {name: torch.zeros_like(held(p.detach())) for name, p in parameters.items()}
        sizes = {name: float(p.numel()) for name, p in parameters.items()}
        self._exchange = Exchange({name: tuple(p.shape) for name, p in parameters.items()}, sizes, world)

    @torch.no_grad()
    def step(self, count: Tensor, lr_scale: float | Tensor, skip: Tensor, divisor: Tensor) -> None:
        """One update. count: () fp32, updates so far with this one; skip and divisor: () fp32."""
        parameters = [held(p) for p in self.parameters.values()]
        # Without an error the kernel for MPS leaves out divisor and skip (pytorch/pytorch#186360).
        if count.device.type == "xla" or is_mps(count.device):
            self._step_unfused(count, lr_scale, skip, divisor)
            return
        torch._fused_adamw_(
            parameters,
            [held(p.grad) for p in self.parameters.values()],  # type: ignore[arg-type]
            list(self.mean.values()),
            list(self.square.values()),
            [],
            [count] * len(parameters),
            lr=self.lr * lr_scale,
            beta1=self.settings.beta1,
            beta2=self.settings.beta2,
            weight_decay=self.weight_decay,
            eps=self.settings.eps,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
            found_inf=skip,
        )

    def _step_unfused(self, count: Tensor, lr_scale: float | Tensor, skip: Tensor, divisor: Tensor) -> None:
        """The same update of whole parameters in plain operations, where no kernel does it; XLA makes one of them.

        Source: Loshchilov and Hutter 2019, algorithm 2.
        """
        s, lr, keep = self.settings, self.lr * lr_scale, 1 - skip
        mean_share, square_share = 1 - s.beta1**count, 1 - s.beta2**count  # what moments that began at zero reach
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None
            # A product with zero would keep NaN.
            grad = torch.where(skip > 0, torch.zeros_like(parameter), parameter.grad / divisor)
            mean, square = self.mean[name], self.square[name]
            mean.lerp_(grad, (1 - s.beta1) * keep)
            square.lerp_(grad.square(), (1 - s.beta2) * keep)
            parameter.mul_(1 - lr * self.weight_decay * keep)
            denominator = (square / square_share).sqrt() + s.eps
            parameter.sub_(lr * keep / mean_share * mean / denominator)

    def state(self) -> dict[str, Tensor]:
        """The moments of the parameters that this process writes, whole."""
        found = {f"adam_mean/{name}": value for name, value in self._exchange.to_owner(self.mean).items()}
        return found | {f"adam_square/{name}": value for name, value in self._exchange.to_owner(self.square).items()}

    def load_state(self, state: Mapping[str, RowSource]) -> None:
        """Copy the rows held here; KeyError where a name is missing or its shape is another."""
        for kind, moments in (("adam_mean", self.mean), ("adam_square", self.square)):
            for name, parameter in self.parameters.items():
                source = state[f"{kind}/{name}"]
                if tuple(source.shape) != tuple(parameter.shape):
                    raise KeyError(f"{kind}/{name} has shape {tuple(source.shape)}, expected {tuple(parameter.shape)}")
                start, stop = held_rows(parameter)
                if start < stop:
                    moments[name].copy_(source[start:stop])


class Optimizer:
    """All updates of one step. State is tensors by name, for safetensors."""

    def __init__(self, model: Transformer, settings: OptimizerSettings, world: World | None = None) -> None:
        self.model = model
        self.settings = settings
        self.world = world = world or World()
        let_go(model, world)
        # Frozen parameters have neither gradients nor state.
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        roles = model.roles()
        uses_muon = settings.matrix == "muon"
        matrices = {n: p for n, p in self.parameters.items() if roles[n] in _MATRICES and uses_muon}
        self.muon = Muon(matrices, model.row_splits(), settings, world) if matrices else None
        rates: dict[Role, float] = {
            "matrix": settings.matrix_lr,
            "expert": settings.matrix_lr,
            "embed": settings.embed_lr,
            "head": settings.head_lr,
            "vector": settings.vector_lr,
            "scalar": settings.scalar_lr,
            "adapter": settings.adapter_lr,
        }
        self.groups: list[AdamGroup | Adam8bitGroup | AdafactorGroup] = []
        for role, rate in rates.items():
            members = {n: p for n, p in self.parameters.items() if roles[n] == role and n not in matrices}
            if members:
                decay = settings.weight_decay if role in _MATRICES else 0.0
                kind = settings.matrix if role in _MATRICES else settings.rest
                if kind == "adafactor":
                    self.groups.append(AdafactorGroup(members, rate, decay, world))
                elif kind == "adamw8bit":
                    self.groups.append(Adam8bitGroup(members, rate, decay, world, settings))
                else:
                    self.groups.append(AdamGroup(members, rate, decay, world, settings))
        self.biases = [p for n, p in self.parameters.items() if roles[n] == "balance"]
        self._count = torch.zeros((), device=next(model.parameters()).device)
        self.steps_before = 0  # of the runs whose state was carried over

    @property
    def lr(self) -> float:
        """The peak rate that is shown: the matrices', or that of adapters where they are trained in their place."""
        return self.settings.matrix_lr if self.model.lora is None else self.settings.adapter_lr

    def step(self, step: int, lr_scale: float, skip: Tensor, divisor: Tensor) -> None:
        """Update every parameter from its gradient.

        step: the global step, from 0; lr_scale: the schedule's share of the peak rates; divisor: () fp32 that
        gradients are divided by; skip: () bool, True leaves weights and state as they are. Nothing here waits
        for the device, unless weights are offloaded from it.
        """
        skip, divisor = skip.to(self._count.device), divisor.to(self._count.device)
        if skip.device.type == "cpu" and bool(skip):  # reading it is free here
            return
        scale = varying(lr_scale, skip.device)
        if self.muon is not None:
            lr = self.settings.matrix_lr * scale
            # bf16 is enough for a direction; a run in fp32 stays in fp32 throughout, and fp16 has too small a range.
            dtype = self.model.compute_dtype
            self.muon.step(
                self.steps_before + step, lr, skip, divisor, torch.float32 if dtype == torch.float16 else dtype
            )
        self._move_biases(lr_scale, skip)
        self._count += ~skip
        # The kernel computes with the count even where it skips; a count of zero would divide by zero.
        count = self._count.clamp(min=1)
        for group in self.groups:
            if isinstance(group, AdamGroup):
                group.step(count, scale, skip.float(), divisor)
            else:  # not for XLA
                group.step(count, lr_scale, skip.float(), divisor)

    @torch.no_grad()
    def _move_biases(self, lr_scale: float, skip: Tensor) -> None:
        """Router biases move by a fixed amount against the sign of their gradient, which is their load's."""
        for bias in self.biases:
            assert bias.grad is not None
            direction = held(bias.grad).sign()
            # A product with zero would keep NaN.
            direction = torch.where(skip, torch.zeros_like(direction), direction)
            held(bias).add_(direction, alpha=-self.settings.balance_lr * lr_scale)

    def zero_grad(self) -> None:
        """Forget gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Every gradient as far as it is held here, in parameter order; a parameter without one gets zeros."""
        found = []
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.append(held(parameter.grad))
        return found

    def state(self) -> dict[str, Tensor]:
        """Everything an update depends on besides weights and gradients, by name, whole.

        Of several processes each returns another part; all call it together.
        """
        found = {"adam_count": self._count} if self.world.sharer == 0 else {}
        if self.steps_before and self.world.sharer == 0:
            found["steps_before"] = torch.tensor(self.steps_before)
        for group in self.groups:
            found |= group.state()
        return found | (self.muon.state() if self.muon is not None else {})

    @torch.no_grad()
    def load_state(self, state: Mapping[str, RowSource], where: str) -> None:
        """Continue from `state`; ArtifactError where it belongs to another optimizer or model."""
        try:
            if self.muon is not None:
                self.muon.load_state(state)
            for group in self.groups:
                group.load_state(state)
            self._count.copy_(placed(state["adam_count"][...], self._count.device))
            self.steps_before = int(state["steps_before"][...]) if "steps_before" in state else 0
        except (KeyError, RuntimeError) as error:
            raise ArtifactError(f"{where}: the optimizer state does not fit this model: {error}") from None

    def carry_over(self, state: Mapping[str, RowSource], steps: int, where: str) -> None:
        """Begin a new run with the state that another ended with after `steps` steps.

        Moments, the count behind their bias correction and the momentum's warm-up go on; rates are this run's own.
        Errors: as of `load_state`.
        """
        self.load_state(state, where)
        self.steps_before += steps


def build_optimizer(model: Transformer, settings: OptimizerSettings, world: World | None = None) -> Optimizer:
    """The optimizer for a model on its final device; `world` where several processes train together."""
    return Optimizer(model, settings, world)


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all elements of all tensors, ()."""
    norms: Tensor = torch.stack(torch._foreach_norm(list(tensors))).norm()
    return norms
