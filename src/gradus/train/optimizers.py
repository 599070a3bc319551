"""The optimizer of a model: Muon for its matrices, fused AdamW for everything else, by declared role."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gradus.core.errors import ArtifactError
from gradus.model.transformer import Role, Transformer
from gradus.train.config import OptimizerSettings
from gradus.train.muon import Muon


class Optimizer:
    """All updates of one step. State is tensors by name, for safetensors."""

    def __init__(self, model: Transformer, settings: OptimizerSettings) -> None:
        self.model = model
        self.settings = settings
        self.parameters = dict(model.named_parameters())
        roles = model.roles()
        uses_muon = settings.matrix == "muon"
        matrices = {n: p for n, p in self.parameters.items() if roles[n] == "matrix" and uses_muon}
        self.muon = Muon(matrices, model.row_splits(), settings) if matrices else None
        rates: dict[Role, float] = {
            "matrix": settings.matrix_lr,
            "embed": settings.embed_lr,
            "head": settings.head_lr,
            "vector": settings.vector_lr,
        }
        groups = []
        for role, rate in rates.items():
            members = [p for n, p in self.parameters.items() if roles[n] == role and n not in matrices]
            decay = settings.weight_decay if role == "matrix" else 0.0
            if members:
                groups.append({"params": members, "lr": rate, "peak_lr": rate, "weight_decay": decay})
        self.adam = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True)
        self._adam_names = {p: n for n, p in self.parameters.items() if n not in matrices}

    def step(self, step: int, lr_scale: float, skip: Tensor, divisor: Tensor) -> None:
        """Update every parameter from its gradient.

        step: the global step, from 0; lr_scale: the schedule's share of the peak rates; divisor: () that
        gradients are divided by; skip: () bool, True leaves weights and state as they are. Nothing here waits
        for the device.
        """
        if self.muon is not None:
            lr = self.settings.matrix_lr * lr_scale
            # bf16 is enough for a direction; a run in fp32 stays in fp32 throughout.
            self.muon.step(step, lr, skip, divisor, self.model.compute_dtype)
        for group in self.adam.param_groups:
            group["lr"] = group["peak_lr"] * lr_scale
        # torch's fused kernels read these two; they are the interface that its GradScaler uses.
        self.adam.grad_scale = divisor.float()  # type: ignore[attr-defined]
        self.adam.found_inf = skip.float()  # type: ignore[attr-defined]
        self.adam.step()

    def zero_grad(self) -> None:
        """Forget gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @property
    def gradients(self) -> list[Tensor]:
        """Every gradient, in parameter order; a parameter that took no part counts as zero."""
        found = []
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.append(parameter.grad)
        return found

    def state(self) -> dict[str, Tensor]:
        """Everything an update depends on besides weights and gradients, by name."""
        found = dict(self.muon.state()) if self.muon is not None else {}
        for parameter, name in self._adam_names.items():
            for key, value in self.adam.state.get(parameter, {}).items():
                found[f"{key}/{name}"] = value
        return found

    def load_state(self, state: Mapping[str, Tensor], where: str) -> None:
        """Continue from `state`; ArtifactError where it belongs to another optimizer or model."""
        try:
            if self.muon is not None:
                self.muon.load_state(state)
            self.adam.state.clear()
            for parameter, name in self._adam_names.items():
                if f"step/{name}" in state:
                    self.adam.state[parameter] = self._adam_state(parameter, name, state)
        except (KeyError, RuntimeError) as error:
            raise ArtifactError(f"{where}: the optimizer state does not fit this model: {error}") from None

    @staticmethod
    def _adam_state(parameter: nn.Parameter, name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        moments = {key: state[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq")}
        for value in moments.values():
            if value.shape != parameter.shape:
                raise KeyError(f"{name} has shape {tuple(parameter.shape)}, state {tuple(value.shape)}")
        device = parameter.device
        loaded = {key: value.to(device, torch.float32).clone() for key, value in moments.items()}
        return {"step": state[f"step/{name}"].to(device, torch.float32).clone(), **loaded}


def build_optimizer(model: Transformer, settings: OptimizerSettings) -> Optimizer:
    """The optimizer for a model on its final device."""
    return Optimizer(model, settings)
