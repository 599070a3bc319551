"""What a logged training step tells besides its loss: MFU, and what the machine does meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradus.core.devices import CPU, device_called, known_devices
from gradus.core.machine import usable_cores
from gradus.model.cost import flops_of_shared, flops_per_token
from gradus.roadmap.place import Place

if TYPE_CHECKING:
    import torch

    from gradus.model.transformer import Transformer
    from gradus.train.loop import StepReport


class Meter:
    """Figures for the lines of metrics.jsonl, and of the results.

    MFU is the share of the peak of all devices together, at the format that products are computed in (Chowdhery et
    al. 2022, PaLM, appendix B); where the table of devices has no peak there is no MFU.
    """

    def __init__(self, place: Place, model: Transformer, mean_context: float, head_fraction: float = 1.0) -> None:
        """mean_context: positions that a token attends to on average; head_fraction: tokens with a target."""
        from gradus.train.telemetry import Telemetry

        self._flops_per_token = flops_per_token(model.config, mean_context, head_fraction)
        self._flops_of_shared = flops_of_shared(model.config)
        self._device = model.device
        self.peak_flops = _peak_flops(self._device, model.compute_dtype, place)
        self._telemetry = Telemetry(self._device)

    def figures(self, report: StepReport) -> dict[str, float]:
        """What goes beside the loss of a step."""
        return self._mfu(report, report.tokens_per_second) | self._telemetry.read()

    def _flops(self, report: StepReport) -> float:
        """FLOPs of all steps so far."""
        saved = (report.tokens - report.computed) * self._flops_of_shared
        return report.tokens * self._flops_per_token - saved

    def _mfu(self, report: StepReport, tokens_per_second: float) -> dict[str, float]:
        """Model FLOPs utilisation at a rate of all devices; nothing where the peak is unknown."""
        if self.peak_flops is None or not report.tokens:
            return {}
        return {"mfu": round(tokens_per_second * self._flops(report) / report.tokens / self.peak_flops, 4)}

    def results(self, last: StepReport, tokens_per_second: float) -> dict[str, Any]:
        """What the finished stage states: FLOPs of all its steps, MFU, and the most memory of the GPU."""
        import torch

        found: dict[str, Any] = {"flops": self._flops(last)} | self._mfu(last, tokens_per_second)
        if self._device.type == "cuda":
            found["gpu_peak_memory_bytes"] = torch.cuda.max_memory_reserved(self._device)
        return found


def _peak_flops(device: torch.device, dtype: torch.dtype, place: Place) -> float | None:
    """FLOPs a second of all devices at their peak, None where it is unknown."""
    import torch

    devices = known_devices(place.home)
    formats: dict[Any, Any] = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    if device.type == "cuda":
        name, parts = device_called(torch.cuda.get_device_name(device), devices), place.world_size
    elif device.type == "cpu":
        # Rates of a processor are of one core.
        name, parts = CPU, min(usable_cores(), torch.get_num_threads() * place.world_size)
    else:
        return None
    peak = devices[name].peak_flops.get(formats[dtype]) if name is not None else None
    return None if peak is None else peak * parts
