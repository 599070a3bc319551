"""What the machine does while a model trains: processors, memory, and of a GPU its load, heat and power.

Reading costs a little, so it bounds itself: a reading is due only when a thousand times what the last one took has
passed. What cannot be read on a machine is left out; nothing here ends a run.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

from gradus.core.machine import ProcessTree, usable_cores

# A reading takes at most this share of the time between two of them.
COST_FRACTION = 0.001
# Sensors of processors in psutil's list, by the names of their Linux drivers.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
_UNREADABLE = (OSError, RuntimeError, AttributeError, ImportError, psutil.Error)


class Telemetry:
    """Figures of the machine, by names that carry their units.

    cpu_fraction: share of the usable cores that this process and what it started kept busy since the last reading;
    memory_bytes: their resident memory; machine_memory_fraction: of the machine's memory, what is taken by anyone;
    cpu_celsius. On CUDA gpu_memory_bytes (reserved by this process), gpu_busy_fraction, gpu_celsius, gpu_watts; on MPS
    gpu_memory_bytes.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self._tree = ProcessTree()
        self._cores = usable_cores()
        self._last = (clock(), self._tree.usage()[1])
        self._due = float("-inf")
        self._readers: list[Callable[[], dict[str, float]]] = [self._processes, _machine, _cpu_heat]
        if device.type == "cuda":
            self._readers.append(self._gpu_memory)
            # torch reads these through NVML, whose Python package is not part of torch.
            if importlib.util.find_spec("pynvml") is not None:
                self._readers += [self._gpu_load, self._gpu_heat, self._gpu_power]
        if device.type == "mps":
            self._readers.append(self._apple_memory)

    def read(self) -> dict[str, float]:
        """The figures now; {} where a reading is not due yet."""
        begin = self._clock()
        if begin < self._due:
            return {}
        found: dict[str, float] = {}
        for reader in list(self._readers):
            try:
                found |= reader()
            except _unreadable():
                self._readers.remove(reader)
        end = self._clock()
        self._due = end + (end - begin) / COST_FRACTION
        return found

    def _processes(self) -> dict[str, float]:
        memory, seconds = self._tree.usage()
        now = self._clock()
        (then, before), self._last = self._last, (now, seconds)
        # A process that has ended takes its seconds with it.
        busy = max(0.0, seconds - before) / max(1e-9, now - then) / self._cores
        return {"cpu_fraction": round(min(1.0, busy), 3), "memory_bytes": memory}

    def _gpu_memory(self) -> dict[str, float]:
        return {"gpu_memory_bytes": torch.cuda.memory_reserved(self._device)}

    def _apple_memory(self) -> dict[str, float]:
        return {"gpu_memory_bytes": torch.mps.driver_allocated_memory()}

    def _gpu_load(self) -> dict[str, float]:
        return {"gpu_busy_fraction": torch.cuda.utilization(self._device) / 100}

    def _gpu_heat(self) -> dict[str, float]:
        return {"gpu_celsius": torch.cuda.temperature(self._device)}

    def _gpu_power(self) -> dict[str, float]:
        return {"gpu_watts": torch.cuda.power_draw(self._device) / 1000}


def _machine() -> dict[str, float]:
    return {"machine_memory_fraction": round(psutil.virtual_memory().percent / 100, 3)}


def _cpu_heat() -> dict[str, float]:
    """The hottest sensor of the processors; {} where none is known."""
    read: Any = getattr(psutil, "sensors_temperatures", dict)
    known = [sensor.current for name, sensors in read().items() if name in _CPU_SENSORS for sensor in sensors]
    if not known:
        raise AttributeError("no sensor of a processor")
    return {"cpu_celsius": max(known)}


def _unreadable() -> tuple[type[BaseException], ...]:
    """What reading raises where a figure is not to be had; NVML's own error once its package is loaded."""
    nvml: Any = sys.modules.get("pynvml")
    return _UNREADABLE if nvml is None else (*_UNREADABLE, nvml.NVMLError)
